from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest


def make_lesion(index, x, y, z, volume=27.0, **other):
    values = {'p_max': 0.9, 'p_mean': 0.6, 'fold_agreement': 2 / 3, 'edge_distance_mm': 8.0}
    values |= {'region': '', 'parenchyma_fraction': math.nan}
    return SimpleNamespace(
        index=index, name=f'CMB{index}', x=x, y=y, z=z, volume_mm3=volume, **(values | other)
    )


@pytest.fixture
def lesion():
    return make_lesion


@pytest.fixture
def head():
    """A bright ball with a dark spot on the patient's right, in RAS order, 2 mm voxels."""
    shape = (40, 48, 44)
    grid = np.indices(shape)
    ball = sum(((grid[n] - (s - 1) / 2) / (0.4 * s)) ** 2 for n, s in enumerate(shape)) < 1
    noise = np.random.default_rng(3).normal(0, 4, shape)
    image = np.where(ball, 100 + noise, 10).astype(np.float32)
    labels = np.zeros(shape, np.int32)
    labels[27:30, 30:33, 20:23] = 1
    labels[12:14, 16:18, 30:32] = 2
    image[labels > 0] = 0
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -40, -50, -45
    lesions = [
        make_lesion(1, *(affine @ [28, 31, 21, 1])[:3], volume=216.0),
        make_lesion(2, *(affine @ [12.5, 16.5, 30.5, 1])[:3], volume=64.0),
    ]
    box = SimpleNamespace(start=(4, -3, 2), shape=(32, 54, 40))
    return SimpleNamespace(
        image=image, labels=labels, mask=ball, affine=affine, lesions=lesions, box=box
    )
