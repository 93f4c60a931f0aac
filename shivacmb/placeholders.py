"""Small texts that git-annex (unlocked files) and Git LFS leave in the place of data."""

from __future__ import annotations

import re
from pathlib import Path

from shivacmb.exceptions import DataError

#: How they begin.
BEGINNINGS = (b'/annex/objects/', b'version https://git-lfs.github.com/spec/')
#: Bytes that none of them has.
TOO_LARGE = 1024
#: The checksum in those of git-annex's backends SHA256 and SHA256E, and in those of Git LFS.
_SHA256 = re.compile(rb'(?:/SHA256E?-s\d+--|\noid sha256:)([0-9a-f]{64})\b')


def read_placeholder(path: Path, size: int) -> bytes:
    """Return the text that stands for data; empty where the file is none.

    Parameters
    ----------
    path : Path
        The file.
    size : int
        Its size in bytes: a larger file is not opened.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if not 0 < size < TOO_LARGE:
        return b''
    with path.open('rb') as stream:
        text = stream.read(TOO_LARGE)
    return text if text.startswith(BEGINNINGS) else b''


def placeholder(path: Path, start: bytes) -> DataError | None:
    """Return what to say of a file that stands for data that were not fetched; None for others.

    Parameters
    ----------
    path : Path
        The file.
    start : bytes
        How it begins.
    """
    if not start.startswith(BEGINNINGS):
        return None
    return DataError(
        f'<{path}> stands for data that are not here: fetch them (for example with "datalad get" '
        'or "git lfs pull")'
    )


def named_sha256(text: bytes) -> str | None:
    """Checksum of the data that a text of :func:`read_placeholder` names, or None."""
    found = _SHA256.search(text)
    return None if found is None else found[1].decode()
