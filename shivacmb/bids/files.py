"""Write files whole or not at all, also when several processes share a folder."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from shivacmb.exceptions import OutputError, TemporaryError
from shivacmb.processes import left_behind, temporary_name

T = TypeVar('T')


def read_result(path: Path, read: Callable[[Path], T], *, again: bool = True) -> T | None:
    """Read what a run left behind.

    Parameters
    ----------
    path : Path
        A file or folder of the results.
    read : callable
        What to do with it.
    again : bool
        Read once more where the file server calls it stale: another process has renamed a new
        one over it, which the next attempt finds.

    Returns
    -------
    Whatever ``read`` returns; None where there is nothing.

    Raises
    ------
    TemporaryError
        When it is there, or may be, and cannot be read.
    """
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if again and error.errno == errno.ESTALE:
            return read_result(path, read, again=False)
        raise TemporaryError(
            f'cannot read <{path}> ({error.strerror}), so nobody knows what it holds; run again '
            'when it can be read, or see its permissions'
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` and rename it to ``path`` when the block succeeds.

    The name starts with a dot (BIDS tools pass over it), keeps the extension (nibabel goes by it)
    and is new for every call, so that two processes never write the same file. The file gets the
    permissions that the user's umask grants. Do nothing but write in the block: every OSError in
    it is taken for a failure to write.

    Raises
    ------
    OutputError
        When the folder or the file cannot be written; nothing is left behind.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f'cannot write <{path}> ({error.strerror or error}): free space, or give an output '
            'folder that you may write to'
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> bool:
    """Write a text file atomically unless it already has this content.

    Returns
    -------
    bool
        True when the file was written.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    # A path may hold bytes that are no text
    content = text.encode('utf-8', 'backslashreplace')
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return False
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return True


def remove_stale(folder: Path) -> list[Path]:
    """Remove temporary files in ``folder`` whose writer was killed on this machine."""
    removed = []
    for path in left_behind(folder):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed
