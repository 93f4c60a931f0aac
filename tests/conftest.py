"""What tests of several parts share: a small head without a skull, and a model that finds spots.

The model is a formula, not a trained network: the darkness of a voxel against its surroundings.
What it must find in an image is therefore known, and no test needs TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

Point = tuple[float, float, float]

BOX = 96
#: Half axes of the phantom's brain in mm: 345 mL, which fits the box.
BRAIN_MM: Point = (45.0, 41.0, 44.0)
FIELD_MM: Point = (112.0, 104.0, 110.0)
#: Centres of dark spots in mm from the middle of the brain.
SPOTS: tuple[Point, ...] = ((20.0, 5.0, 10.0), (-18.0, 12.0, -14.0), (2.0, -22.0, 6.0))


def head(
    spots: Sequence[Point] = SPOTS,
    *,
    voxel_mm: Point = (1.0, 1.0, 2.0),
    field_mm: Point = FIELD_MM,
    brain_mm: Point = BRAIN_MM,
    radius_mm: float = 3.0,
    seed: int = 1,
) -> nib.Nifti1Image:
    """Return a brain with dark spots on a background of zeros, axes as RAS, int16."""
    shape = tuple(round(size / voxel) for size, voxel in zip(field_mm, voxel_mm, strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * voxel for n, voxel in zip(shape, voxel_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing='ij', sparse=True)
    a, b, c = brain_mm
    inside = (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 <= 1
    noise = np.random.default_rng(seed).normal(0, 8, shape)
    values = 400 + 20 * np.sin(x / 15) + 20 * np.cos(y / 17) + 20 * np.sin(z / 13) + noise
    for i, j, k in spots:
        values[(x - i) ** 2 + (y - j) ** 2 + (z - k) ** 2 <= radius_mm**2] = 60
    affine = np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = [float(axis[0]) for axis in axes]
    image = nib.Nifti1Image(np.where(inside, values, 0).astype(np.int16), affine)
    image.header.set_xyzt_units('mm', 'sec')
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _spot_network(folder: Path, index: int, contrast: float, channels: int) -> dict[str, str]:
    """Write sigmoid(30 (mean of 9x9x9 - mean of 3x3x3 - contrast)) as an OpenVINO network.

    With several channels a spot has to be dark in each of them.
    """
    from shivacmb.models.openvino_runtime import import_openvino

    openvino = import_openvino()
    ops = openvino.opset13
    scan = ops.parameter([1, BOX, BOX, BOX, channels], openvino.Type.f32)
    image = ops.transpose(scan, np.array([0, 4, 1, 2, 3]))

    def mean(size: int) -> Any:
        pad = [size // 2] * 3
        return ops.avg_pool(
            image, strides=[1, 1, 1], pads_begin=pad, pads_end=pad, kernel_shape=[size] * 3,
            exclude_pad=False,
        )  # fmt: skip

    darkness = ops.subtract(ops.subtract(mean(9), mean(3)), np.float32(contrast))
    least = ops.reduce_min(darkness, np.array([1]), keep_dims=True)
    probability = ops.sigmoid(ops.multiply(least, np.float32(30)))
    back = ops.reshape(probability, np.array([1, BOX, BOX, BOX, 1], np.int64), special_zero=False)
    xml = folder / f'fold-{index}.xml'
    openvino.save_model(openvino.Model([back], [scan], 'spots'), str(xml), compress_to_fp16=False)
    return {
        'file': xml.name,
        'sha256': _sha256(xml),
        'weights_sha256': _sha256(xml.with_suffix('.bin')),
    }


def write_spot_bundle(folder: Path, **changes: Any) -> Path:
    """Write a bundle of two networks that find dark spots; ``changes`` go into model.json."""
    folder.mkdir(parents=True)
    folds = []
    inputs = changes.pop('inputs', [{'name': 'swi', 'contrasts': ['T2starw', 'swi']}])
    for index, contrast in enumerate((0.26, 0.30)):
        source = folder / f'fold-{index}.keras'
        source.write_bytes(b'never opened: the OpenVINO form beside it is used %d' % index)
        form = _spot_network(folder, index, contrast, len(inputs))
        folds.append(
            {
                'file': source.name,
                'format': 'keras',
                'sha256': _sha256(source),
                'openvino': form,
            }
        )
    content = {
        'name': 'spots',
        'version': '1.0',
        'description': 'Darkness of a voxel against its surroundings; a formula for tests.',
        'license': 'CC0-1.0',
        'intended_use': 'Tests of the software only.',
        'inputs': inputs,
        'grid': {'shape': [BOX] * 3, 'voxel_mm': [1, 1, 1], 'orientation': 'RAS'},
        'intensity': {'percentile': 99, 'clip': 1.0, 'masked': False},
        'classes': [{'value': 1, 'name': 'CMB'}],
        'postprocess': {'threshold': 0.4, 'min_voxels': 3, 'connectivity': 26},
        'folds': folds,
        **changes,
    }
    (folder / 'model.json').write_text(json.dumps(content), encoding='utf-8')
    return folder


@pytest.fixture(scope='session')
def make_head() -> Any:
    """Return :func:`head`."""
    return head


@pytest.fixture(scope='session')
def make_spot_bundle() -> Any:
    """Return :func:`write_spot_bundle`."""
    return write_spot_bundle


@pytest.fixture(scope='session')
def spot_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that finds dark spots; not to be changed."""
    return write_spot_bundle(tmp_path_factory.mktemp('models') / 'spots')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files with long tests come first: at the end one worker would wait for another."""
    long = {
        item.path
        for item in items
        if item.get_closest_marker('slow') or item.get_closest_marker('system')
    }
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope='session')
def fuzz() -> Any:
    """Return the module ``fuzz``: damaged and hostile files, drawn by hypothesis."""
    spec = importlib.util.spec_from_file_location('fuzz', Path(__file__).with_name('fuzz.py'))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules['fuzz'] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def tools_main() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return ``shivacmb-tools`` in this process: no second to import what is there already."""
    from shivacmb.cli.tools import main

    def run(*args: Any) -> subprocess.CompletedProcess[str]:
        words = [str(arg) for arg in args]
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return run
