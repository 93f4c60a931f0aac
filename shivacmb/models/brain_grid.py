"""To the brain network's coarse grid and back: box averages one way, cubic the other.

Both are separable, so each is three small matrix products and takes a tenth of a second for a
1 mm head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[Any]


def scale_input(array: Array, percentile: float = 99.5) -> Array:
    """Bring intensities to 0..1: the percentile of the positive voxels becomes 1.

    Parameters
    ----------
    array : ndarray
        Any units; values below 0 count as 0.
    percentile : float
        Reference of the positive voxels.

    Returns
    -------
    ndarray, float32
        Same shape; all 0 where nothing is positive.
    """
    positive = array[array > 0]
    top = float(np.percentile(positive, percentile)) if positive.size else 1.0
    return np.asarray(np.clip(array / np.float32(max(top, 1e-12)), 0.0, 1.0), np.float32)


def _apply(array: Array, matrices: Sequence[Array]) -> Array:
    """Multiply each of the first three axes by its matrix [out, in]."""
    used = [np.flatnonzero(matrix.any(axis=0)) for matrix in matrices]
    spans = [slice(hit[0], hit[-1] + 1) if hit.size else slice(0, 1) for hit in used]
    # What no row asks for is left out: a brain fills a third of the network's grid
    out = array[tuple(spans)]
    for matrix, span in zip(matrices, spans, strict=True):
        # contract the first axis, append the new one: the order is back after three turns
        out = np.tensordot(out, matrix[:, span], axes=(0, 1))
    if array.ndim > 3:
        out = np.moveaxis(out, 0, -1)
    return np.ascontiguousarray(out, np.float32)


def smooth(array: Array, sigma: float) -> Array:
    """Convolve with a Gaussian as ``scipy.ndimage.gaussian_filter`` does, some times faster.

    Parameters
    ----------
    array : ndarray, float32 [X, Y, Z] or [X, Y, Z, C]
        Not more than a few hundred voxels along each axis.
    sigma : float
        In voxels.

    Returns
    -------
    ndarray, float32
        Of the shape of the array.
    """
    matrices = [
        ndimage.gaussian_filter1d(np.eye(size, dtype=np.float32), sigma, axis=0)
        for size in array.shape[:3]
    ]
    return _apply(array, matrices)


def _box_weights(size: int, mm: float, count: int, net_mm: float, centre: float) -> Array:
    """Rows: share of each image voxel in a network voxel; 0 where the image ends."""
    low = (np.arange(size)[None] - 0.5) * mm
    start = centre + (np.arange(count)[:, None] - count / 2) * net_mm
    shared = np.minimum(low + mm, start + net_mm) - np.maximum(low, start)
    return np.asarray(np.maximum(shared, 0.0) / net_mm, np.float32)


def _cubic_weights(size: int, mm: float, count: int, net_mm: float, centre: float) -> Array:
    """Rows: Keys' cubic convolution (1981, a = -1/2) of network voxels at each image voxel."""
    where = (np.arange(size)[:, None] * mm - centre) / net_mm + (count - 1) / 2
    t = np.abs(where - np.arange(count)[None])
    near = 1.5 * t**3 - 2.5 * t**2 + 1.0
    far = -0.5 * t**3 + 2.5 * t**2 - 4.0 * t + 2.0
    return np.where(t < 1, near, np.where(t < 2, far, 0.0)).astype(np.float32)


def to_network(
    array: Array,
    mm: Sequence[float] | Array,
    shape: Sequence[int],
    net_mm: float,
    centre: Sequence[float],
) -> Array:
    """Average an image over the voxels of the network's grid.

    Parameters
    ----------
    array : ndarray [X, Y, Z]
    mm : sequence of three float
        Its voxel size.
    shape : sequence of three int
        The network's grid.
    net_mm : float
        Its voxel size.
    centre : sequence of three float
        Where the grid's middle lies, in mm from the middle of the image's first voxel.

    Returns
    -------
    ndarray, float32 ``shape``
        Space outside the image counts as 0.
    """
    matrices = [_box_weights(array.shape[a], mm[a], shape[a], net_mm, centre[a]) for a in range(3)]
    return _apply(np.asarray(array, np.float32), matrices)


def from_network(
    field: Array,
    shape: Sequence[int],
    mm: Sequence[float] | Array,
    net_mm: float,
    centre: Sequence[float],
    window: Sequence[slice] | None = None,
) -> Array:
    """Interpolate a field on the network's grid smoothly at the voxels of the image.

    Parameters
    ----------
    field : ndarray [A, B, C]
    shape : sequence of three int
        The image's grid.
    mm, net_mm, centre
        As for :func:`to_network`.
    window : sequence of three slice, optional
        The part of the image that is wanted; all of it by default.

    Returns
    -------
    ndarray, float32 ``shape``
        Or the size of the window; 0 more than two network voxels beyond the network's grid.
    """
    wanted = window if window is not None else [slice(None)] * 3
    matrices = [
        _cubic_weights(shape[a], mm[a], field.shape[a], net_mm, centre[a])[wanted[a]]
        for a in range(3)
    ]
    return _apply(field, matrices)
