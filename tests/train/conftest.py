"""A small labelled dataset: noise and dark dots, a few seconds of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

SHAPE = (50, 54, 48)
BRAIN = (slice(1, 49), slice(1, 53), slice(1, 47))


def _save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.to_filename(path)
    return path


def _write_scan(
    root: Path, label: str, lesions: int, *, seed: int = 0, suffix: str = 'T2starw',
    session: str | None = None, **maps: np.ndarray,
) -> None:  # fmt: skip
    """Write one scan with its label map and brain mask; ``maps`` are further label maps."""
    rng = np.random.default_rng([seed, int(label)])
    image = rng.normal(100, 4, SHAPE).astype(np.float32)
    marks = np.zeros(SHAPE, np.uint8)
    for number in range(lesions):
        i, j, k = rng.integers(6, 40, 3)
        image[i : i + 2, j : j + 2, k : k + 2] *= 0.2
        marks[i : i + 2, j : j + 2, k : k + 2] = number + 1
    brain = np.zeros(SHAPE, np.uint8)
    brain[BRAIN] = 1
    folder = f'sub-{label}' + (f'/ses-{session}' if session else '') + '/anat'
    stem = f'sub-{label}' + (f'_ses-{session}' if session else '')
    _save(root / 'raw' / folder / f'{stem}_{suffix}.nii.gz', image)
    (root / 'raw' / folder / f'{stem}_{suffix}.json').write_text(json.dumps({'EchoTime': 0.02}))
    _save(root / 'labels' / folder / f'{stem}_desc-CMB_dseg.nii.gz', marks)
    _save(root / 'labels' / folder / f'{stem}_desc-brain_mask.nii.gz', brain)
    for name, array in maps.items():
        _save(root / 'labels' / folder / f'{stem}_desc-{name}_dseg.nii.gz', array)


@pytest.fixture(scope='session')
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``raw`` and ``labels``: four people, one with two sessions."""
    root = tmp_path_factory.mktemp('labelled')
    for label, count in (('01', 3), ('02', 2), ('03', 0)):
        _write_scan(root, label, count)
    for session in ('a', 'b'):
        _write_scan(root, '04', 2, seed=ord(session), session=session)
    (root / 'raw' / 'dataset_description.json').write_text(
        json.dumps({'Name': 'dots', 'BIDSVersion': '1.10.0'})
    )
    return root


def _command(root: Path, output: Path, *more: Any) -> list[str]:
    """Return the arguments of a training of a few seconds."""
    arguments = [
        'train', root / 'raw', root / 'labels', '-d', f'masks={root / "labels"}', '-o', output,
        '--shape', 48, 52, 44, '--filters', 2, '--stages', 2, '--convolutions', 1, '--folds', 2,
        '--steps', 4, '--patch-size', 16, '--batch', 2, *more,
    ]  # fmt: skip
    return [str(argument) for argument in arguments]


@pytest.fixture
def save() -> Callable[..., Path]:
    """Return a function that writes an image."""
    return _save


@pytest.fixture
def write_scan() -> Callable[..., None]:
    """Return a function that writes a scan with its labels."""
    return _write_scan


@pytest.fixture
def command() -> Callable[..., list[str]]:
    """Return a function that makes the arguments of a short training."""
    return _command
