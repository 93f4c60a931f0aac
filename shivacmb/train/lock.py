"""One training at a time in a folder; the lock goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from shivacmb.exceptions import OutputError, TemporaryError

POLL_S = 1.0


@contextlib.contextmanager
def locked(folder: Path, wait: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold a folder while the block runs.

    Parameters
    ----------
    folder : Path
        Created when missing.
    wait : callable
        Asked once a second while another process holds it: whether to go on waiting.

    Raises
    ------
    TemporaryError
        Another process holds it.
    OutputError
        It cannot be written, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / '.lock').open('w')
    except OSError as error:
        raise _unwritable(folder, error) from error
    with stream:
        while not _taken(stream, folder):
            if not wait():
                raise TemporaryError(
                    f'another training works in <{folder}>; wait until it ends, or give another '
                    'folder with --work'
                )
            time.sleep(POLL_S)
        yield


def is_locked(folder: Path) -> bool:
    """Tell whether a process holds a folder; one that ended holds nothing, however it ended.

    Raises
    ------
    OutputError
        It cannot be written, or its file system has no locks.
    """
    try:
        # for writing too: NFS refuses such a lock on what is open for reading alone
        stream = (folder / '.lock').open('r+b')
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(folder, error) from error
    with stream:
        return not _taken(stream, folder)


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f'cannot write <{folder}> ({error.strerror}): free space, or give a folder that you '
        'may write to with --work'
    )


def _taken(stream: IO[Any], folder: Path) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(
            f'<{folder}> cannot be locked ({error.strerror}), so two trainings could not be kept '
            'apart: give a folder on another file system with --work'
        ) from error
    return True
