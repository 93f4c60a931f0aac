"""Tiny networks of random weights, and bundles of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shivacmb.models import Bundle, load_bundle
from shivacmb.models.bundle import IntermediateForm
from shivacmb.models.checksums import sha256_of
from shivacmb.models.openvino_runtime import import_openvino

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (6, 5, 4)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests out of the user's models and cache."""
    monkeypatch.setenv('SHIVACMB_MODELS', str(tmp_path / 'user-models'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture
def description() -> dict[str, Any]:
    """Return a valid model.json with one fold that is not there."""
    return {
        'name': 'small',
        'version': '1.0',
        'license': 'CC0-1.0',
        'inputs': [{'name': 'swi', 'contrasts': ['T2starw', 'swi']}],
        'grid': {'shape': list(SHAPE), 'voxel_mm': [1, 1, 1], 'orientation': 'RAS'},
        'folds': [{'file': 'fold-0.keras', 'format': 'keras', 'sha256': 'a' * 64}],
    }


def save_form(folder: Path, index: int, scale: float, *, maps: int = 1) -> IntermediateForm:
    """Write an OpenVINO network that returns ``scale`` times its input, ``maps`` times."""
    openvino = import_openvino()
    operations = openvino.opset13
    scan = operations.parameter([1, *SHAPE, 1], openvino.Type.f32)
    factor = operations.constant(np.full((1, 1, 1, 1, maps), scale, np.float32))
    model = openvino.Model([operations.multiply(scan, factor)], [scan], 'scale')
    xml = folder / f'fold-{index}.xml'
    openvino.save_model(model, str(xml), compress_to_fp16=False)
    return IntermediateForm(xml.name, sha256_of(xml), sha256_of(xml.with_suffix('.bin')))


@pytest.fixture
def make_bundle(tmp_path: Path, description: dict[str, Any]) -> Callable[..., Bundle]:
    """Return a maker of bundles whose folds multiply by the given factors; no TensorFlow."""

    def make(*scales: float, maps: int = 1, name: str = 'small', **changes: Any) -> Bundle:
        folder = tmp_path / 'bundles' / name
        folder.mkdir(parents=True)
        folds = []
        for index, scale in enumerate(scales):
            source = folder / f'fold-{index}.keras'
            source.write_bytes(b'not opened where an OpenVINO form is kept %d' % index)
            form = save_form(folder, index, scale, maps=maps)
            folds.append(
                {
                    'file': source.name,
                    'format': 'keras',
                    'sha256': sha256_of(source),
                    'openvino': vars(form),
                }
            )
        content = {**description, 'name': name, 'folds': folds, **changes}
        (folder / 'model.json').write_text(json.dumps(content))
        return load_bundle(folder)

    return make
