"""What all nodes of this package share."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

from nipype.interfaces.base import SimpleInterface

from shivacmb.exceptions import ShivaCMBError, TemporaryError
from shivacmb.imaging import disk_problem
from shivacmb.models.memory import give_back_memory

FAILURE_FILE = 'failure.json'
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Have the kernel end a pool worker when the run that owns it is killed outright."""
    if multiprocessing.parent_process() is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ScanInterface(SimpleInterface):
    """A node over one pure function that leaves its failure where the run finds it.

    Subclasses write ``_run`` and fill ``self._results``; paths they create lie in
    ``runtime.cwd``. An exception is written to ``failure.json`` there before it is raised again,
    so that the scan's row can say in the user's words what went wrong: nipype itself keeps only
    a traceback.
    """

    def _run(self, cwd: Path) -> None:
        raise RuntimeError(f'{type(self).__name__} does not define _run; it was to use <{cwd}>')

    def _run_interface(self, runtime: Any) -> Any:
        _end_with_parent()
        cwd = Path(runtime.cwd)
        try:
            self._run(cwd)
        except ShivaCMBError as error:
            _write_failure(cwd, error)
            raise
        except MemoryError as error:
            short = TemporaryError('memory ran out; run fewer scans at once (--nprocs)')
            _write_failure(cwd, short)
            raise short from error
        except OSError as error:
            problem = disk_problem(cwd, error)
            _write_failure(cwd, problem)
            raise problem from error
        except Exception as error:
            unexpected = ShivaCMBError(
                f'unexpected {type(error).__name__}: {error}; see the crash file under logs and '
                'please report it'
            )
            _write_failure(cwd, unexpected)
            raise
        finally:
            # each worker of the pool would keep what its largest node took
            give_back_memory()
        return runtime


def _write_failure(cwd: Path, error: ShivaCMBError) -> None:
    content = {'kind': type(error).__name__, 'message': str(error), 'code': error.exit_code}
    try:
        (cwd / FAILURE_FILE).write_text(json.dumps(content), encoding='utf-8')
    except OSError:
        # A full disk: the crash file cannot be written either, nipype's log still has the text
        return
