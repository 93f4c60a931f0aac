"""Files that are whole or absent, whoever is killed in between."""

from __future__ import annotations

import contextlib
from pathlib import Path

from shivacmb.exceptions import OutputError
from shivacmb.processes import temporary_name


def write_whole(path: Path, content: bytes) -> Path:
    """Write to a temporary name beside the target, then rename.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f'Cannot write <{path}>: {error.strerror or error}. '
            'Check the rights and the free space of the output folder.'
        ) from error
    return path
