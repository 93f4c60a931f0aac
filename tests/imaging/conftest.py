from __future__ import annotations

import itertools
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import inv_ornt_aff

ORIENTATIONS = [
    np.array(list(zip(order, flips, strict=True)), dtype=float)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def name(ornt: np.ndarray) -> str:
    return ''.join(f'{"+" if flip > 0 else "-"}{int(axis)}' for axis, flip in ornt)


@pytest.fixture(params=ORIENTATIONS, ids=name)
def orientation(request: pytest.FixtureRequest) -> np.ndarray:
    return request.param


@pytest.fixture
def make_scan() -> Callable[..., nib.Nifti1Image]:
    """A head-like float32 scan, 110 mm along each axis unless told otherwise."""

    def make(shape=(44, 55, 44), zooms=(2.5, 2.0, 2.5), ornt=None) -> nib.Nifti1Image:
        affine = np.diag([*zooms, 1.0])
        affine[:3, 3] = (-50, -60, -40)
        grids = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing='ij')
        values = 500 * (sum(g**2 for g in grids) < 0.8) + 10 + 5 * np.sin(9 * grids[0])
        if ornt is not None:
            values = nib.orientations.apply_orientation(values, ornt)
            affine = affine @ inv_ornt_aff(ornt, shape)
        img = nib.Nifti1Image(values.astype(np.float32), affine)
        img.header.set_sform(affine, 1)
        img.header.set_qform(affine, 1)
        return img

    return make
