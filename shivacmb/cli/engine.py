"""Run workflows through nipype: plugin, memory, progress, and who failed why."""

from __future__ import annotations

import configparser
import contextlib
import functools
import gc
import getpass
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.cli import interrupts
from shivacmb.cli.failures import (
    NotStartedError,
    WorkerKilledError,
    last_line,
    read_failure,
)
from shivacmb.cli.memory import memory_for_steps_mb
from shivacmb.exceptions import ShivaCMBError, TemporaryError, UsageError

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings
    from shivacmb.workflows.plan import Detection, ScanPlan

# Graphs grow slow with thousands of nodes
SCANS_PER_GRAPH = 64
# Workers beyond the processors: those that wait for the prediction process use none
WAITING_WORKERS = 1
# One process predicts, and takes about a second for a scan: more would only wait for it, each with
# a scan of its own in memory
MAX_WORKERS = 8
POLL_SECONDS = 0.02
# A scheduler is asked by everybody, and a file server shows a job's files late
REMOTE_POLL_SECONDS = 2.0
REMOTE_FILES_SECONDS = 30.0
LAST_NODE = 'write_derivatives'
PREDICT_NODE = 'predict'
SCAN_BY_SCAN = 'ScanByScan'
LOCAL_PLUGINS = frozenset({'Linear', 'MultiProc', 'LegacyMultiProc', SCAN_BY_SCAN})


@dataclass(frozen=True)
class Plugin:
    """A nipype plugin and its arguments."""

    name: str
    args: dict[str, Any]

    @property
    def local(self) -> bool:
        """Whether nodes run on this machine, where they can share one prediction process."""
        return self.name in LOCAL_PLUGINS

    @property
    def scans_per_graph(self) -> int:
        """The serial plugin orders nodes by depth: one scan at a time keeps it scan by scan."""
        return 1 if self.name == 'Linear' else SCANS_PER_GRAPH

    def start(self, status: Callable[[Any, str], None]) -> Any:
        """Make what nipype's ``Workflow.run`` takes as its plugin."""
        # nipype's plugins for clusters want it, and containers and cron do not set it
        os.environ.setdefault('LOGNAME', _user_name())
        return plugin_class(self.name)(plugin_args={**self.args, 'status_callback': status})


def plugin_class(name: str) -> Any:
    """Find a plugin of nipype by its name.

    Raises
    ------
    UsageError
        If nipype has none of that name.
    """
    if name in (SCAN_BY_SCAN, 'MultiProc'):
        from shivacmb.workflows.plugin import ScanByScanPlugin

        return ScanByScanPlugin
    from nipype.pipeline import plugins

    found = getattr(plugins, f'{name}Plugin', None)
    if found is None:
        known = sorted(item.removesuffix('Plugin') for item in dir(plugins) if 'Plugin' in item)
        raise UsageError(f'--use-plugin: nipype has no plugin {name!r}, only {", ".join(known)}')
    return found


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run with a user id that has no name
        return str(os.getuid())


def configure_nipype(
    crash_dir: Path, *, verbose: int, stop_on_first_crash: bool, local: bool = True
) -> None:
    """Set nipype up for this run: quiet, no network, no files in the user's home.

    Parameters
    ----------
    crash_dir : Path
        Where crash files go.
    verbose : int
        2 and more lets nipype's own messages through.
    stop_on_first_crash : bool
        Stop instead of finishing the other scans.
    local : bool
        Whether nodes run on this machine; others are asked less often.
    """
    os.environ.setdefault('NO_ET', '1')
    os.environ.setdefault('NIPYPE_NO_ET', '1')
    from nipype import config, logging as nipype_logging  # noqa: I001

    # A % in a path is a %, not a reference to another option
    config._config._interpolation = configparser.Interpolation()
    config.update_config(
        {
            'logging': {'log_to_file': 'false'},
            'execution': {
                'crashdump_dir': str(crash_dir),
                'crashfile_format': 'txt',
                'poll_sleep_duration': str(POLL_SECONDS if local else REMOTE_POLL_SECONDS),
                'job_finished_timeout': str(REMOTE_FILES_SECONDS),
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
    parts = ('workflow', 'interface', 'utils', 'filemanip')
    # The pool's own logger speaks up when a worker is killed; the scan's row says so too
    for name in ('concurrent.futures', *(f'nipype.{part}' for part in parts)):
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
        'n_procs': min(settings.nprocs, MAX_WORKERS) + WAITING_WORKERS,
        'raise_insufficient': False,
        'maxtasksperchild': None,
    }
    shared = settings.mem_mb if settings.mem_mb is not None else memory_for_steps_mb()
    if shared is not None:
        args['memory_gb'] = shared / 1e3
    return Plugin(SCAN_BY_SCAN, args)


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
    args = content.get('plugin_args', {})
    if not isinstance(args, dict):
        raise UsageError(f"--use-plugin <{path}>: 'plugin_args' must be a table, not {args!r}")
    plugin = Plugin(content['plugin'], dict(args))
    plugin_class(plugin.name)
    return plugin


def check_plugin(plugin: Plugin, settings: Settings) -> None:
    """Refuse what a plugin that sends nodes to other machines cannot do.

    Raises
    ------
    UsageError
        If it would not wait for its jobs, or has no folder that all machines share.
    """
    if plugin.local:
        return
    if plugin.name.endswith('Graph') or plugin.name == 'CondorDAGMan':
        raise UsageError(
            f'--use-plugin: {plugin.name} submits jobs and does not wait for their results; use '
            f'{plugin.name.removesuffix("Graph") if plugin.name != "CondorDAGMan" else "Condor"}, '
            'or an array job (shivacmb-tools slurm)'
        )
    if settings.work_dir is None:
        raise UsageError(
            f'--use-plugin with {plugin.name} needs --work-dir: a folder that every node can '
            'reach under the same path'
        )
    # nipype puts it into command lines and configuration files as it is
    if re.search(r'[\s%]', f'{settings.work_dir.absolute()}'):
        raise UsageError(
            f'--use-plugin with {plugin.name}: the path of --work-dir <{settings.work_dir}> must '
            'have no space and no %; choose another'
        )
    if '%' in str(settings.out_dir):
        raise UsageError(
            f'--use-plugin with {plugin.name}: the path of OUT_DIR <{settings.out_dir}> must have '
            'no %; choose another'
        )


def run_graph(
    plans: list[ScanPlan],
    detection: Detection,
    plugin: Plugin,
    *,
    service: str,
    omp_nthreads: int,
    work_dir: Path,
    crash_dir: Path,
    on_scan: Callable[[ScanPlan, dict[str, Any]], None],
    log: logging.Logger,
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
    crash_dir : Path
        Where nipype writes crash files.
    on_scan : callable
        Called with the plan and nipype's status whenever a node of the scan starts or ends.
    log : Logger
        Gets a line with the seconds of each node.
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
    _shield_workers()
    watch = _Watch(plans, root, on_scan, log, keep_work=keep_work)
    crash: BaseException | None = None
    runner: Any = None
    with _in_folder(work_dir), _settled_heap():
        try:
            runner = plugin.start(watch.status)
            workflow.run(plugin=runner)
        except Exception as error:  # noqa: BLE001  each scan says below what happened to it
            crash = error
        except BaseException:
            _end_workers()
            _cancel_jobs(plugin, runner)
            raise
    failures = {}
    for plan in plans:
        if plan.stem in watch.failed:
            node = watch.failed[plan.stem]
            failures[plan.stem] = read_failure(root / plan.node_name, crash_dir, node)
        elif plan.stem not in watch.done:
            failures[plan.stem] = _not_finished(crash, under_way=plan.stem in watch.under_way)
    return failures


def _not_finished(crash: BaseException | None, *, under_way: bool) -> ShivaCMBError:
    """What to say of scans that no node failed on."""
    if isinstance(crash, BrokenExecutor):
        message = (
            'not finished: a worker process was killed, most often because memory ran out; free '
            'memory or lower --nprocs and run the same command again'
        )
        if under_way:
            return WorkerKilledError(message)
        error = NotStartedError(message)
        error.exit_code = TemporaryError.exit_code
        return error
    return NotStartedError(f'not started: {last_line(crash)}')


class _Watch:
    """Follow the nodes of a graph: who is done, who failed, how long each took."""

    def __init__(
        self,
        plans: list[ScanPlan],
        root: Path,
        on_scan: Callable[[ScanPlan, dict[str, Any]], None],
        log: logging.Logger,
        *,
        keep_work: bool,
    ) -> None:
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self._plans = {plan.node_name: plan for plan in plans}
        self._root = root
        self._on_scan = on_scan
        self._log = log
        self._keep_work = keep_work
        self._started: dict[str, float] = {}

    @property
    def under_way(self) -> set[str]:
        """Scans of which a node has begun and not ended."""
        return {self._plans[name.split('.')[1]].stem for name in self._started}

    def status(self, node: Any, state: str) -> None:
        """Take nipype's word for a node: 'start', 'end' or 'exception'."""
        parts = node.fullname.split('.')
        plan = self._plans[parts[1]]
        if state == 'start':
            self._started[node.fullname] = time.monotonic()
        elif state == 'exception':
            interrupts.raise_received()
            self.failed.setdefault(plan.stem, node.fullname)
        if state != 'start' and node.fullname in self._started:
            seconds = time.monotonic() - self._started.pop(node.fullname)
            used = self._used(parts) if parts[-1] == PREDICT_NODE else ''
            self._log.info('%s %s %s %.2f s%s', plan.stem, parts[-1], state, seconds, used)
        # The serial plugin also reports the end of nodes that it skipped after a failure
        if state == 'end' and parts[-1] == LAST_NODE and plan.stem not in self.failed:
            self.done.add(plan.stem)
            if not self._keep_work:
                shutil.rmtree(self._root / plan.node_name, ignore_errors=True)
        self._on_scan(plan, {'node': parts[-1], 'state': state})
        # what was swallowed in a node, in a destructor say, must not let the run go on to its end
        interrupts.raise_received()

    def _used(self, parts: list[str]) -> str:
        """On what a scan was predicted, and why not on what was asked for."""
        from shivacmb.interfaces.predict import PREDICTION_FILE

        try:
            text = self._root.joinpath(*parts[1:], PREDICTION_FILE).read_text('utf-8')
        except OSError:
            return ''
        said = json.loads(text)
        note = f'; {said["note"]}' if said['note'] else ''
        return f' on {said["device"]} ({said["engine"]}, {said["precision"]}){note}'


@functools.cache
def _shield_workers() -> None:
    """Leave Ctrl-C to this process: a terminal sends it to the workers too, who would complain.

    SIGTERM, which clusters send to all as well, ends a worker without a word.
    """

    def in_worker() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    os.register_at_fork(after_in_child=in_worker)


def _end_workers() -> None:
    """Kill the pool of an interrupted run: it would go on with its nodes, in removed folders."""
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()


def _cancel_jobs(plugin: Plugin, runner: Any) -> None:
    """Cancel the SLURM jobs of an interrupted run; they would write into removed folders."""
    jobs = [str(job) for job in getattr(runner, '_pending', None) or {}]
    if plugin.name == 'SLURM' and jobs:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(['scancel', *jobs], timeout=30, capture_output=True, check=False)


@contextlib.contextmanager
def _settled_heap() -> Iterator[None]:
    """Keep what is loaded out of garbage collections.

    nipype collects whenever it submits, which took a tenth of a second each time; and a worker's
    collection would copy every page that it shares with this process.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
