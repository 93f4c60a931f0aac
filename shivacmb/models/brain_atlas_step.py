"""One Gauss-Newton step that lays maps of a template on maps of a head."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class TemplateGrid(Protocol):
    """Where the voxels of a template lie."""

    @property
    def origin(self) -> Array:
        """Template mm of the first voxel, [3]."""

    @property
    def mm(self) -> float:
        """Voxel size."""


def newton_step(
    maps: Array, values: Array, basis: Array, numbers: Array, grid: TemplateGrid, weights: Array
) -> Array:
    """Find the change of the twelve numbers that lowers the squared differences most.

    Parameters
    ----------
    maps : ndarray, float32 [X, Y, Z, 4 C]
        Of :func:`with_slopes`, on the grid of the template.
    values : ndarray [N, C]
        What was seen.
    basis : ndarray [N, 4]
        1 and the place of each voxel.
    numbers : ndarray [4, 3]
        The affine map so far: ``basis @ numbers`` are template mm.
    grid : TemplateGrid
        Of the maps.
    weights : ndarray [C]
        How much each map counts.

    Returns
    -------
    ndarray, float64 [4, 3]
        To be taken from ``numbers``.
    """
    count = values.shape[1]
    there = sample_maps(maps, (basis @ numbers - grid.origin) / grid.mm)
    error = there[:, :count] - values
    slope = there[:, count:].reshape(-1, count, 3)
    weighted = slope * weights[:, None]
    square = np.matmul(weighted.transpose(0, 2, 1), slope)
    size = basis.shape[1]
    hessian = np.zeros((3 * size, 3 * size))
    for a in range(3):
        for b in range(3):
            block = basis.T @ (basis * square[:, a, b, None])
            hessian[a * size : (a + 1) * size, b * size : (b + 1) * size] = block
    hessian[np.diag_indices(3 * size)] += 1e-6 * len(basis)
    gradient = basis.T @ (weighted * error[..., None]).sum(axis=1)
    step = np.linalg.solve(hessian, gradient.T.reshape(-1).astype(np.float64))
    return np.asarray(step.reshape(3, size).T)


def with_slopes(maps: Array, mm: float) -> Array:
    """Maps [X, Y, Z, C] and behind them their gradients, [X, Y, Z, 4 C]."""
    slopes = np.stack([np.gradient(maps, mm, axis=axis) for axis in range(3)], axis=-1)
    joined = np.concatenate([maps, slopes.reshape(*maps.shape[:3], -1)], axis=-1)
    return np.ascontiguousarray(joined, np.float32)


def sample_maps(maps: Array, index: Array) -> Array:
    """Linear interpolation of [X, Y, Z, C] at voxel coordinates [N, 3], edges go on."""
    x, y, z = maps.shape[:3]
    index = np.clip(index, 0.0, np.array([x, y, z]) - 1.001).astype(np.float32)
    low = index.astype(np.int32)
    part = index - low
    flat = maps.reshape(-1, maps.shape[-1])
    first = (low[:, 0] * y + low[:, 1]) * z + low[:, 2]
    out = np.zeros((len(index), maps.shape[-1]), np.float32)
    for corner in np.ndindex(2, 2, 2):
        weight = np.ones(len(index), np.float32)
        for axis in range(3):
            weight *= part[:, axis] if corner[axis] else 1.0 - part[:, axis]
        out += flat[first + (corner[0] * y + corner[1]) * z + corner[2]] * weight[:, None]
    return out
