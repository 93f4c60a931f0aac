"""The box of the network: centre, cut, and put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError

Scalar = TypeVar('Scalar', bound=np.generic)


@dataclass(frozen=True)
class Box:
    """A block of voxels of a grid; it may reach beyond the grid on any side.

    Attributes
    ----------
    shape : tuple of three int
        Size in voxels.
    start : tuple of three int
        First voxel in the grid's indices; may be negative.
    """

    shape: tuple[int, int, int]
    start: tuple[int, int, int]

    def overlap(self, grid: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Slices of the grid, and of the box, that cover the same voxels."""
        in_grid, in_box = [], []
        for start, size, extent in zip(self.start, self.shape, grid, strict=True):
            low, high = max(start, 0), max(min(start + size, extent), max(start, 0))
            in_grid.append(slice(low, high))
            in_box.append(slice(low - start, high - start))
        return tuple(in_grid), tuple(in_box)


def centred_box(mask: npt.NDArray[np.generic], shape: Sequence[int]) -> Box:
    """Centre a box on the centre of mass of a brain mask (Tsuchida 2024, step 3).

    Parameters
    ----------
    mask : (X, Y, Z) ndarray
        Non-zero inside the brain.
    shape : sequence of three int
        Size of the box in voxels.

    Returns
    -------
    Box
        Its voxel ``shape // 2`` lies on the centre of mass, rounded half up.

    Raises
    ------
    DataError
        If the mask is empty.
    """
    filled = mask != 0
    total = int(filled.sum())
    if total == 0:
        raise DataError('the brain mask is empty; look at the scan or give another mask')
    start = []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        profile = filled.sum(axis=others, dtype=np.int64)
        # Sums of whole numbers: no rounding before the last step
        moment = int((profile * np.arange(profile.size, dtype=np.int64)).sum())
        centre = (2 * moment + total) // (2 * total)
        start.append(centre - int(size) // 2)
    x, y, z = (int(size) for size in shape)
    return Box((x, y, z), (start[0], start[1], start[2]))


def crop(array: npt.NDArray[Scalar], box: Box) -> npt.NDArray[Scalar]:
    """Cut a box out of an array, zero where the box leaves it.

    Parameters
    ----------
    array : (X, Y, Z) ndarray
        Any type.
    box : Box
        In voxels of ``array``.

    Returns
    -------
    ndarray of ``box.shape``
        A copy.
    """
    result = np.zeros(box.shape, dtype=array.dtype)
    in_grid, in_box = box.overlap(array.shape)
    result[in_box] = array[in_grid]
    return result


def uncrop(array: npt.NDArray[Scalar], box: Box, shape: Sequence[int]) -> npt.NDArray[Scalar]:
    """Put a box back where it was cut, zero elsewhere; inverse of :func:`crop` inside the box.

    Parameters
    ----------
    array : ndarray of ``box.shape``
        Any type.
    box : Box
        In voxels of the grid.
    shape : sequence of three int
        The grid.

    Returns
    -------
    ndarray of ``shape``
    """
    if array.shape != box.shape:
        raise ValueError(f'expected an array of {box.shape}, got {array.shape}')
    result = np.zeros(tuple(shape), dtype=array.dtype)
    in_grid, in_box = box.overlap(shape)
    result[in_grid] = array[in_box]
    return result


def voxels_outside(mask: npt.NDArray[np.generic], box: Box) -> int:
    """Count the voxels of a mask that a box leaves out."""
    in_grid, _ = box.overlap(mask.shape)
    return int(np.count_nonzero(mask)) - int(np.count_nonzero(mask[in_grid]))
