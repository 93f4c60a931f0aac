"""Progress of a run on a terminal; silence elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shivacmb.workflows.plan import ScanPlan

STEPS = {
    'check_image': 'reading',
    'check_channel': 'reading',
    'reorient': 'reorienting',
    'resample': 'resampling',
    'bet': 'masking',
    'synthstrip': 'masking',
    'hdbet': 'masking',
    'mask': 'masking',
    'network_input': 'scaling',
    'predict': 'predicting',
    'find_lesions': 'finding lesions',
    'to_input_grid': 'returning to the scan',
    'figures': 'drawing',
    'write_derivatives': 'writing',
}
LAST = 'write_derivatives'


@contextlib.contextmanager
def progress(
    todo: list[ScanPlan], *, quiet: bool = False
) -> Iterator[Callable[[ScanPlan, dict[str, Any]], None]]:
    """Show a bar over scans with the step at hand, if standard error is a terminal.

    Parameters
    ----------
    todo : list of ScanPlan
        The scans of the run.
    quiet : bool
        Show nothing.

    Yields
    ------
    callable
        To be called with a plan and ``{'node': name, 'state': nipype status}``.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda plan, event: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('[dim]{task.fields[step]}'),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task('scans', total=len(todo), step='loading the networks')
        ended: set[str] = set()

        def on_scan(plan: ScanPlan, event: dict[str, Any]) -> None:
            step = STEPS.get(event['node'])
            if event['state'] == 'start' and step:
                bar.update(task, step=f'{plan.stem}: {step}')
            finished = event['state'] == 'exception' or (
                event['state'] == 'end' and event['node'] == LAST
            )
            if finished and plan.stem not in ended:
                ended.add(plan.stem)
                bar.advance(task)

        yield on_scan


@contextlib.contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a bar over things that are counted, if standard error is a terminal.

    Parameters
    ----------
    what : str
        What is counted.
    quiet : bool
        Show nothing.

    Yields
    ------
    callable
        To be called with how many are done, and of how many.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
