"""Small files: whole, or not there."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from shivacmb.exceptions import OutputError
from shivacmb.models.portable import without_defaults
from shivacmb.train.compact import save_compact

BUNDLES = Path(__file__).parents[2] / 'shivacmb' / 'models' / 'bundles'


class Model:
    """Saves itself as Keras does: a zip file without compression."""

    def save(self, path: str) -> None:
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('weights', b'\0' * 9999)


def test_the_shipped_files_load_in_older_releases_of_keras() -> None:
    """Keras 3.12, the newest for Python 3.10, refuses arguments that came later."""
    found = 0
    for path in BUNDLES.glob('*/*.keras'):
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read('config.json'))
        assert without_defaults(config) == config
        found += 1
    assert found >= 4


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'model.keras'
    save_compact(Model(), path)
    before = path.read_bytes()
    assert len(before) < 999
    real = zipfile.ZipFile.writestr

    def full(archive: zipfile.ZipFile, name: Any, *more: Any) -> None:
        if isinstance(name, zipfile.ZipInfo):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(archive, name, *more)

    monkeypatch.setattr(zipfile.ZipFile, 'writestr', full)
    with pytest.raises(OutputError, match=r'cannot write <.*model\.keras> \(No space left'):
        save_compact(Model(), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ['model.keras']
