"""Checksums of model files and folders."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 20


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open('rb') as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _files(folder: Path) -> list[Path]:
    return sorted(item for item in folder.rglob('*') if item.is_file())


def sha256_of(path: Path) -> str:
    """Hash a file, or a folder (SavedModel) by names and contents.

    Parameters
    ----------
    path : Path
        File or folder.

    Returns
    -------
    str
        Hexadecimal SHA-256. For a folder, each file adds its relative name, a zero byte, its size
        in bytes, a newline and its content, in the order of the sorted paths, so that moving a
        byte from one file to its neighbour changes the sum.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for item in _files(path):
            name = item.relative_to(path).as_posix()
            digest.update(f'{name}\0{item.stat().st_size}\n'.encode())
            for chunk in _chunks(item):
                digest.update(chunk)
    else:
        for chunk in _chunks(path):
            digest.update(chunk)
    return digest.hexdigest()


def md5_of(path: Path) -> str:
    """Hash a file, or a folder by the rule of SHiVAi's model descriptors.

    Parameters
    ----------
    path : Path
        File or folder.

    Returns
    -------
    str
        Hexadecimal MD5. For a folder, the contents of all its files one after the other in the
        order of the sorted paths, names left out (``shivai.utils.misc.md5`` of SHiVAi 0.5.9).
        Good enough to recognise a published file, not to protect one: bundles carry SHA-256 too.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for item in _files(path) if path.is_dir() else [path]:
        for chunk in _chunks(item):
            digest.update(chunk)
    return digest.hexdigest()
