"""One training at a time in a folder; the lock goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from shivacmb.exceptions import OutputError, TemporaryError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs.

    Raises
    ------
    TemporaryError
        Another process holds it.
    OutputError
        It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / '.lock').open('w')
    except OSError as error:
        raise OutputError(
            f'cannot write <{folder}> ({error.strerror}): free space, or give a folder that you '
            'may write to with --work'
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TemporaryError(
                f'another training works in <{folder}>; wait until it ends, or give another '
                'folder with --work'
            ) from error
        yield
