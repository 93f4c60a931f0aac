"""Run workflows through nipype: plugin, memory, progress, and who failed why."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb import exceptions
from shivacmb.exceptions import DataError, OutputError, ShivaCMBError, UsageError

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings
    from shivacmb.workflows.plan import Detection, ScanPlan

# Graphs grow slow with thousands of nodes, and finished scans free their space only per node
SCANS_PER_GRAPH = 64
POLL_SECONDS = 0.02
_PROGRAM_CRASH = re.compile(
    r'\nCmdline:\n\t(?P<command>.+)\nStdout:(?P<stdout>[\s\S]*?)'
    r'\nStderr:(?P<stderr>[\s\S]*?)\nTraceback:'
)
LAST_NODE = 'write_derivatives'
LOCAL_PLUGINS = frozenset({'Linear', 'MultiProc', 'LegacyMultiProc'})


@dataclass(frozen=True)
class Plugin:
    """A nipype plugin and its arguments."""

    name: str
    args: dict[str, Any]

    @property
    def local(self) -> bool:
        """Whether nodes run on this machine, where they can share one prediction process."""
        return self.name in LOCAL_PLUGINS


def configure_nipype(crash_dir: Path, *, verbose: int, stop_on_first_crash: bool) -> None:
    """Set nipype up for this run: quiet, no network, no files in the user's home.

    Parameters
    ----------
    crash_dir : Path
        Where crash files go.
    verbose : int
        2 and more lets nipype's own messages through.
    stop_on_first_crash : bool
        Stop instead of finishing the other scans.
    """
    os.environ.setdefault('NO_ET', '1')
    os.environ.setdefault('NIPYPE_NO_ET', '1')
    from nipype import config, logging as nipype_logging  # noqa: I001

    config.update_config(
        {
            'logging': {'log_to_file': 'false'},
            'execution': {
                'crashdump_dir': str(crash_dir),
                'crashfile_format': 'txt',
                'poll_sleep_duration': str(POLL_SECONDS),
                'remove_unnecessary_outputs': 'false',
                'stop_on_first_crash': str(stop_on_first_crash).lower(),
                'check_version': 'false',
                'hash_method': 'timestamp',
                'use_relative_paths': 'false',
            },
        }
    )
    level = logging.INFO if verbose >= 2 else logging.CRITICAL + 1
    nipype_logging.update_logging(config)
    for name in ('nipype.workflow', 'nipype.interface', 'nipype.utils', 'nipype.filemanip'):
        logging.getLogger(name).setLevel(level)


def choose_plugin(settings: Settings, n_scans: int) -> Plugin:
    """Pick the plugin: the user's, else one process for one scan, else a pool.

    Parameters
    ----------
    settings : Settings
        Of the run.
    n_scans : int
        Scans to process.

    Returns
    -------
    Plugin
        Name and arguments.

    Raises
    ------
    UsageError
        If ``--use-plugin`` is not a mapping with a ``plugin``.
    """
    if settings.use_plugin is not None:
        return read_plugin(settings.use_plugin)
    if settings.nprocs == 1 or n_scans == 1:
        return Plugin('Linear', {})
    args: dict[str, Any] = {
        'n_procs': settings.nprocs,
        'raise_insufficient': False,
        'maxtasksperchild': None,
    }
    if settings.mem_mb is not None:
        args['memory_gb'] = settings.mem_mb / 1e3
    return Plugin('MultiProc', args)


def read_plugin(path: Path) -> Plugin:
    """Read the file of ``--use-plugin``.

    Raises
    ------
    UsageError
        If it is not a mapping with a ``plugin``.
    """
    import yaml

    content: Any
    try:
        if path.suffix == '.toml':
            from shivacmb.cli.settings import read_toml

            content = read_toml(path)
        else:
            content = yaml.safe_load(path.read_text('utf-8'))
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f'--use-plugin <{path}> cannot be read: {error}') from error
    content = content if isinstance(content, dict) else {}
    if not isinstance(content.get('plugin'), str):
        raise UsageError(f"--use-plugin <{path}> must have 'plugin' and may have 'plugin_args'")
    return Plugin(content['plugin'], dict(content.get('plugin_args', {})))


def run_graph(
    plans: list[ScanPlan],
    detection: Detection,
    plugin: Plugin,
    *,
    service: str,
    omp_nthreads: int,
    work_dir: Path,
    on_scan: Callable[[ScanPlan, dict[str, Any]], None],
    crash_dir: Path | None = None,
    keep_work: bool = False,
    graph_dir: Path | None = None,
) -> dict[str, ShivaCMBError]:
    """Run some scans through one graph.

    Parameters
    ----------
    plans : list of ScanPlan
        The scans.
    detection : Detection
        How to detect.
    plugin : Plugin
        Where nodes run.
    service : str
        Address of the prediction service, or ''.
    omp_nthreads : int
        Threads of one node.
    work_dir : Path
        Intermediate files; a scan's part is removed as soon as it is written.
    on_scan : callable
        Called with the plan and nipype's status whenever a node of the scan starts or ends.
    crash_dir : Path, optional
        Where nipype writes crash files.
    keep_work : bool
        Leave intermediate files.
    graph_dir : Path, optional
        Where to write the graph, if wanted.

    Returns
    -------
    dict
        Failure by ``ScanPlan.stem``; empty when all went well.
    """
    from shivacmb.workflows.base import init_shivacmb_wf

    workflow = init_shivacmb_wf(
        plans=plans, detection=detection, service=service, omp_nthreads=omp_nthreads
    )
    workflow.base_dir = str(work_dir)
    root = work_dir / workflow.name
    if graph_dir is not None:
        graph_dir.mkdir(parents=True, exist_ok=True)
        # Without Graphviz the .dot file alone stays
        with contextlib.suppress(OSError):
            workflow.write_graph(str(graph_dir / 'graph.dot'), graph2use='colored', format='svg')
    by_name = {plan.node_name: plan for plan in plans}

    def status(node: Any, state: str) -> None:
        parts = node.fullname.split('.')
        plan = by_name[parts[1]]
        # The serial plugin also reports the end of nodes that it skipped after a failure
        finished = state == 'end' and parts[-1] == LAST_NODE and _recorded(plan)
        if finished and not keep_work:
            shutil.rmtree(root / plan.node_name, ignore_errors=True)
        on_scan(plan, {'node': parts[-1], 'state': state})

    crash: BaseException | None = None
    with _in_folder(work_dir):
        try:
            workflow.run(
                plugin=plugin.name, plugin_args={**plugin.args, 'status_callback': status}
            )
        except Exception as error:  # noqa: BLE001  each scan says below what happened to it
            crash = error
        except BaseException:
            _end_workers()
            raise
    return {
        plan.stem: read_failure(root / plan.node_name, crash, crash_dir)
        for plan in plans
        if not _recorded(plan)
    }


def _end_workers() -> None:
    """Kill the pool of an interrupted run: it would go on with its nodes, in removed folders."""
    logging.getLogger('concurrent.futures').setLevel(logging.CRITICAL + 1)
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


def _recorded(plan: ScanPlan) -> bool:
    """Tell whether a scan is finished: its record is written last."""
    return Path(plan.outputs['record']).is_file()


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder that exists: nipype changes into node folders and back."""
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def read_failure(
    scan_dir: Path, crash: BaseException | None = None, crash_dir: Path | None = None
) -> ShivaCMBError:
    """Find out why a scan did not finish.

    Parameters
    ----------
    scan_dir : Path
        Intermediate files of the scan.
    crash : exception, optional
        What nipype raised, for nodes that are not ours.
    crash_dir : Path, optional
        Where nipype wrote crash files.

    Returns
    -------
    ShivaCMBError
        With the class and the text of the node that failed.
    """
    from shivacmb.interfaces.base import FAILURE_FILE

    for path in sorted(scan_dir.rglob(FAILURE_FILE)):
        try:
            content = json.loads(path.read_text('utf-8'))
        except ValueError:
            # The node could make the file but not fill it
            return OutputError(
                f'No space left on device for temporary files <{path.parent}>; free some, or '
                'give another folder with --work-dir'
            )
        kind = getattr(exceptions, content['kind'], DataError)
        return kind(content['message'])
    said = _program_failure(crash_dir, scan_dir.name) if crash_dir is not None else None
    if said is not None:
        return DataError(said)
    if crash is not None:
        text = str(crash).strip()
        return ShivaCMBError(text.splitlines()[-1] if text else type(crash).__name__)
    return ShivaCMBError('did not finish; see the crash files under logs')


def _program_failure(crash_dir: Path, node_name: str) -> str | None:
    """What an outside program said before it failed, from nipype's crash file of the scan."""
    for path in sorted(crash_dir.glob('crash-*.txt')):
        text = path.read_text('utf-8', errors='replace')
        match = _PROGRAM_CRASH.search(text)
        if f'.{node_name}.' not in text.partition('\n')[0] or match is None:
            continue
        program = match['command'].split()[0]
        words = (match['stderr'] or match['stdout']).split('\n')
        said = [word.strip() for word in words if word.strip()]
        return (
            f'{program} failed: {said[-1] if said else "it said nothing"}; check its '
            'installation, or choose another --toolkit or --mask'
        )
    return None
