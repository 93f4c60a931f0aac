"""A pool that finishes scans one after the other."""

from __future__ import annotations

import math
import threading
from concurrent.futures import BrokenExecutor, Future
from traceback import format_exception
from typing import Any

import numpy as np
from nipype.pipeline.plugins.multiproc import MultiProcPlugin

#: Longest wait for a worker before nipype looks around by itself.
PATIENCE_SECONDS = 1.0


class ScanByScanPlugin(MultiProcPlugin):
    """nipype's MultiProc, with the nodes of earlier scans first.

    nipype orders a graph by depth: with many scans, all are read before the first is resampled,
    and all are predicted before the first is written. A run that is killed would lose everything
    and the intermediate files of all scans would lie side by side. Here a ready node of an earlier
    scan always goes before one of a later scan, so that while one scan is predicted the next is
    prepared and the last is written.

    Between two events it sleeps: nipype looks whether a worker is done fifty times a second here,
    collects garbage and adds up its table of dependencies each time, which took half a processor
    from the networks.

    A worker that cannot say how its node ended has failed: nipype would wait for it for ever, on a
    full disk for example, where it stores no result.
    """

    procs: Any
    proc_done: Any
    depidx: Any
    refidx: Any
    pending_tasks: Any
    processors: Any
    max_jobs: Any
    _task_obj: Any
    _broken: BaseException | None = None

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        self._news = threading.Event()
        super().__init__(plugin_args=plugin_args)
        # nipype would not look at a broken pool while so many wait; fewer workers do the same
        self.processors = min(self.processors, self.max_jobs)
        self.max_jobs = math.inf

    def _async_callback(self, args: Future[Any]) -> None:
        # nipype forgets a task whose worker was killed, and waits for it for ever unless it has
        # more to submit
        error = None if args.cancelled() else args.exception()
        if isinstance(error, BrokenExecutor):
            self._broken = error
        elif error is None:
            super()._async_callback(args)
        self._news.set()

    def _get_result(self, taskid: int) -> Any:
        future = self._task_obj[taskid]
        error = future.exception() if future.done() and not future.cancelled() else None
        if error is None or isinstance(error, BrokenExecutor):
            return super()._get_result(taskid)
        return {'result': None, 'traceback': format_exception(error), 'taskid': taskid}

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:  # noqa: FBT001
        if self._broken is not None:
            raise self._broken
        begun = np.count_nonzero(self.proc_done)
        super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
        # A node that was begun, or done in this process, may have made others ready
        if self.pending_tasks and np.count_nonzero(self.proc_done) == begun:
            self._news.wait(PATIENCE_SECONDS)
            # Cleared before nipype looks at the results: what comes after wakes the next wait
            self._news.clear()

    def _generate_dependency_list(self, graph: Any) -> None:
        super()._generate_dependency_list(graph)
        order = scan_order([node.fullname for node in self.procs])
        self.procs = [self.procs[index] for index in order]
        self.depidx = self.depidx[np.ix_(order, order)]
        self.refidx = self.refidx[np.ix_(order, order)]


def scan_order(names: list[str]) -> list[int]:
    """Order nodes by scan, and within a scan as they were.

    Parameters
    ----------
    names : list of str
        Full names of the nodes: workflow, scan, then the rest.

    Returns
    -------
    list of int
        Indices into ``names``.
    """
    scans = [name.split('.')[1] for name in names]
    first = {scan: rank for rank, scan in enumerate(sorted(set(scans)))}
    return sorted(range(len(names)), key=lambda index: (first[scans[index]], index))
