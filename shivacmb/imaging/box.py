"""The box the network looks at: placed on the mask, cut out, and put back exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError
from shivacmb.imaging.grid import Affine, Shape3


@dataclass(frozen=True)
class Box:
    """A box of voxels in an image; it may leave the image on any side.

    Attributes
    ----------
    shape : tuple of int
        Size in voxels.
    start : tuple of int
        Image voxel at which box voxel (0, 0, 0) lies; may be negative.
    """

    shape: Shape3
    start: Shape3

    def to_image_map(self) -> Affine:
        """Map box voxels to image voxels, (4, 4) float64."""
        moved = np.eye(4)
        moved[:3, 3] = self.start
        return moved

    def _overlap(self, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Slices of the common part in the image and in the box (empty where they miss)."""
        in_image, in_box = [], []
        for start, size, n in zip(self.start, self.shape, shape[:3], strict=True):
            low, high = max(start, 0), min(start + size, n)
            high = max(high, low)
            in_image.append(slice(low, high))
            in_box.append(slice(low - start, high - start))
        return tuple(in_image), tuple(in_box)


def centred_box(mask: npt.NDArray[Any], shape: Shape3) -> Box:
    """Place a box of ``shape`` on the centre of mass of a mask.

    The centre of mass is rounded to a voxel, half up, in exact integer arithmetic; that voxel
    becomes box voxel ``shape // 2``. The box may leave the image.

    Parameters
    ----------
    mask : (X, Y, Z) ndarray
        Voxels above 0 belong to the mask.
    shape : tuple of int
        Size of the box in voxels.

    Raises
    ------
    DataError
        If the mask is empty.
    """
    inside = np.asarray(mask) > 0
    total = int(np.count_nonzero(inside))
    if total == 0:
        msg = 'The brain mask is empty, so there is nothing to centre on; check the mask'
        raise DataError(msg)
    start = []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        counts = np.count_nonzero(inside, axis=others)
        moment = sum(i * int(count) for i, count in enumerate(counts))
        start.append((2 * moment + total) // (2 * total) - int(size) // 2)
    return Box((int(shape[0]), int(shape[1]), int(shape[2])), (start[0], start[1], start[2]))


def crop(array: npt.NDArray[Any], box: Box) -> npt.NDArray[Any]:
    """Cut ``box`` out of ``array`` (X, Y, Z, ...); zero where the box leaves the image."""
    out = np.zeros(box.shape + array.shape[3:], dtype=array.dtype)
    in_image, in_box = box._overlap(array.shape)
    out[in_box] = array[in_image]
    return out


def uncrop(array: npt.NDArray[Any], box: Box, shape: Shape3) -> npt.NDArray[Any]:
    """Put a box's content back into an image of ``shape``; zero outside the box.

    Exact inverse of `crop`: inside the box every voxel returns to where it came from.
    """
    if tuple(array.shape[:3]) != tuple(box.shape):
        msg = f'An array of shape {array.shape} does not fit a box of shape {box.shape}'
        raise ValueError(msg)
    out = np.zeros(tuple(shape) + array.shape[3:], dtype=array.dtype)
    in_image, in_box = box._overlap(tuple(shape))
    out[in_image] = array[in_box]
    return out


def voxels_outside(mask: npt.NDArray[Any], box: Box) -> int:
    """Count the mask's voxels that the box does not cover."""
    inside = np.asarray(mask) > 0
    in_image, _ = box._overlap(inside.shape)
    return int(np.count_nonzero(inside)) - int(np.count_nonzero(inside[in_image]))


def box_affine(affine: npt.ArrayLike, box: Box) -> Affine:
    """Return the (4, 4) affine of the cropped image: box voxel -> scanner RAS mm."""
    return np.asarray(affine, dtype=np.float64) @ box.to_image_map()
