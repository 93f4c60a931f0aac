"""Asking whether a folder is held."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Any

import pytest

from shivacmb.train.lock import is_locked, locked


def test_a_folder_is_locked_while_it_is_held(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_nfs_is_asked_as_it_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path):
        pass

    def nfs(stream: IO[Any], _: int) -> None:
        """Refuse as flock(2) does on NFS, where an exclusive lock is one of a written file."""
        if fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr('shivacmb.train.lock.fcntl.flock', nfs)
    assert not is_locked(tmp_path)
