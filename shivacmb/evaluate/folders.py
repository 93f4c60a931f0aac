"""Files below a folder, also where folders of participants are links to another place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from shivacmb.evaluate.lists import in_folder
from shivacmb.exceptions import TemporaryError


def files_below(root: Path, pattern: str | None = None) -> list[Path]:
    """Find files below a folder, sorted, without hidden ones.

    Links to folders elsewhere are followed, as the app does with its input; ``pathlib`` leaves
    them out. Those to folders below the root are not: what they hold is there already.

    Parameters
    ----------
    root : Path
        Folder.
    pattern : str, optional
        Glob relative to it, ``**`` for any number of folders; without a ``/`` for names anywhere.

    Raises
    ------
    TemporaryError
        If a folder cannot be listed: its scans would pass for missing.
    """
    wanted = None
    if pattern is not None:
        wanted = [part for part in pattern.split('/') if part not in ('', '.')]
        wanted = wanted if '/' in pattern else ['**', *wanted]
    found: list[Path] = []
    top = os.path.realpath(root)
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        folder = Path(error.filename)
        first = folder.relative_to(root).parts[:1]
        if not (wanted and first) or wanted[0] == '**' or fnmatchcase(first[0], wanted[0]):
            raise TemporaryError(
                f'<{folder}> cannot be listed ({error.strerror}), and its scans would pass for '
                'missing; run the same command again when it can be'
            ) from error

    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(folder)
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith('.') and _is_new(here / name, top, seen)
        ]
        for name in names:
            path = here / name
            if name.startswith('.') or not in_folder(path):
                continue
            if wanted is None or _fits(path.relative_to(root).parts, wanted):
                found.append(path)
    return sorted(found)


def _is_new(folder: Path, top: str, seen: set[str]) -> bool:
    """Whether a folder is none that is listed anyway: no link into or around the root."""
    if not folder.is_symlink():
        return True
    real = os.path.realpath(folder)
    if real in seen or os.path.commonpath([real, top]) in (real, top):
        return False
    seen.add(real)
    return True


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Compare a path with a glob, part by part."""
    if not wanted or not parts:
        return not wanted and not parts
    if wanted[0] == '**':
        return _fits(parts, wanted[1:]) or _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])
