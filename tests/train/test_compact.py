"""Small files: whole, or not there."""

from __future__ import annotations

import errno
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shivacmb.exceptions import OutputError
from shivacmb.models.portable import without_defaults
from shivacmb.models.unet3d import build_unet3d
from shivacmb.train.compact import _numbered, save_compact

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


@pytest.mark.tensorflow
def test_two_saves_of_a_model_are_the_same_bytes(tmp_path: Path) -> None:
    keras = pytest.importorskip('keras')
    pytest.importorskip('tensorflow')
    made = []
    for name in 'ab':
        keras.utils.clear_session()
        model = build_unet3d((8, 8, 8), filters=2, stages=2, convolutions=1)
        model.set_weights([np.full(weight.shape, 0.5) for weight in model.get_weights()])
        # the first stays, so that objects of the second lie elsewhere in memory
        made.append(model)
        save_compact(model, tmp_path / f'{name}.keras')
        # the date that Keras writes down has whole seconds
        time.sleep(1.1)
    assert (tmp_path / 'a.keras').read_bytes() == (tmp_path / 'b.keras').read_bytes()
    again = keras.models.load_model(tmp_path / 'a.keras', compile=False, safe_mode=True)
    batch = np.random.default_rng(0).random((1, 8, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(again.predict_on_batch(batch), made[1].predict_on_batch(batch))
    for ours, theirs in zip(again.get_weights(), made[1].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_shared_objects_are_numbered_as_they_come() -> None:
    one, two = ({'config': {'name': 'float32'}, 'shared_object_id': number} for number in (77, 5))
    found = _numbered({'layers': [{'dtype': one}, {'dtype': two}, {'dtype': one}]}, {})
    assert [layer['dtype']['shared_object_id'] for layer in found['layers']] == [1, 2, 1]
    assert found['layers'][0]['dtype']['config'] == {'name': 'float32'}
