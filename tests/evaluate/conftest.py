"""Small volumes with lesions whose places are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from shivacmb.evaluate import Objects, from_labels

SHAPE = (40, 40, 40)
Voxel = tuple[int, int, int]


def boxes(places: Mapping[int, Sequence[tuple[Voxel, Voxel]]], shape: Any = SHAPE) -> Any:
    """Label map: value -> boxes of (first voxel, size)."""
    labels = np.zeros(shape, np.int32)
    for value, parts in places.items():
        for (i, j, k), (a, b, c) in parts:
            labels[i : i + a, j : j + b, k : k + c] = value
    return labels


def lesions(*places: tuple[Voxel, Voxel], affine: Any = None, shape: Any = SHAPE) -> Objects:
    """One lesion per box."""
    labels = boxes({n: [place] for n, place in enumerate(places, start=1)}, shape)
    return from_labels(labels, np.eye(4) if affine is None else affine)


@pytest.fixture
def make_lesions() -> Any:
    """Return :func:`lesions`."""
    return lesions


@pytest.fixture
def make_boxes() -> Any:
    """Return :func:`boxes`."""
    return boxes
