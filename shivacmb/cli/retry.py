"""Scans that a killed worker took with it run again: one bad scan never stops the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shivacmb.cli.engine import Plugin, run_graph
from shivacmb.cli.failures import NotStartedError, WorkerKilledError

if TYPE_CHECKING:
    from shivacmb.exceptions import ShivaCMBError
    from shivacmb.workflows.plan import Detection, ScanPlan


def run_scans(
    plans: list[ScanPlan], detection: Detection, plugin: Plugin, **options: Any
) -> dict[str, ShivaCMBError]:
    """Run scans through one graph; what a killed worker left undone through further ones.

    A pool that loses a worker is lost as a whole. The kernel kills the largest process, so the
    scans that were under way are the suspects: the others run on together first, then each
    suspect alone.

    Parameters
    ----------
    plans : list of ScanPlan
        The scans.
    detection : Detection
        How to detect.
    plugin : Plugin
        Where nodes run.
    **options
        Of :func:`shivacmb.cli.engine.run_graph`.

    Returns
    -------
    dict
        Failure by ``ScanPlan.stem``: :class:`WorkerKilledError` for a scan over which a worker was
        killed even when it ran alone.
    """
    failures = run_graph(plans, detection, plugin, **options)
    suspects = _those(plans, failures, WorkerKilledError)
    if not suspects or len(plans) == 1:
        return failures
    later = {**options, 'graph_dir': None}
    rest = _those(plans, failures, NotStartedError)
    again = {plan.stem for plan in (*suspects, *rest)}
    failures = {stem: error for stem, error in failures.items() if stem not in again}
    if rest:
        failures.update(run_scans(rest, detection, plugin, **later))
    alone = replace(plugin, args={**plugin.args, 'n_procs': 1})
    for plan in suspects:
        failures.update(run_graph([plan], detection, alone, **later))
    return failures


def _those(
    plans: list[ScanPlan], failures: dict[str, ShivaCMBError], kind: type[ShivaCMBError]
) -> list[ScanPlan]:
    return [plan for plan in plans if isinstance(failures.get(plan.stem), kind)]
