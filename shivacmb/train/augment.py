"""Augmentation as in Tsuchida 2024: midsagittal flip, shift, rotation, intensity curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]

#: Axis of the box from one side of the head to the other.
LEFT_RIGHT = 0
_SAMPLES = 1024


@dataclass(frozen=True)
class Augmentation:
    """How far each kind goes; every draw is uniform.

    Attributes
    ----------
    flip : bool
        Mirror every second image at the middle plane of the box.
    shift_voxels : int
        Largest shift along each axis.
    rotation_degrees : float
        Largest angle about each axis.
    curves : {'sorted', 'free', 'none'}
        Intensity curves, their inner control points sorted or free. The paper leaves open which;
        both rise everywhere (see :func:`bezier_curve`).
    """

    flip: bool = True
    shift_voxels: int = 10
    rotation_degrees: float = 10.0
    curves: str = 'sorted'


@dataclass(frozen=True)
class Move:
    """A rigid movement within the box.

    Attributes
    ----------
    flip : bool
        Mirror left and right at the middle of the box.
    shift : tuple of three float
        Voxels by which the content moves.
    angles : tuple of three float
        Degrees about the first, second and third axis, in this order, about the middle of the box.
    """

    flip: bool = False
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def matrix(self, shape: tuple[int, ...]) -> Array:
        """Map voxels of the moved image to voxels of the image, (4, 4)."""
        middle = (np.array(shape[:3], float) - 1) / 2
        turned = np.eye(3)
        for axis, degrees in enumerate(self.angles):
            turned = _turn(axis, np.deg2rad(degrees)) @ turned
        # content goes: mirror, turn, shift; sampling goes the other way
        linear = turned.T
        if self.flip:
            linear = np.diag([-1.0 if axis == LEFT_RIGHT else 1.0 for axis in range(3)]) @ linear
        out = np.eye(4)
        out[:3, :3] = linear
        out[:3, 3] = middle - linear @ (middle + np.array(self.shift))
        return out


def _turn(axis: int, angle: float) -> Array:
    one, two = (axis + 1) % 3, (axis + 2) % 3
    turned = np.eye(3)
    turned[one, one] = turned[two, two] = np.cos(angle)
    turned[one, two], turned[two, one] = -np.sin(angle), np.sin(angle)
    return turned


def draw_move(rng: np.random.Generator, how: Augmentation) -> Move:
    """Draw a movement."""
    flip = bool(how.flip and rng.random() < 0.5)
    shift = rng.integers(-how.shift_voxels, how.shift_voxels + 1, 3)
    angles = rng.uniform(-how.rotation_degrees, how.rotation_degrees, 3)
    return Move(flip, _three(shift), _three(angles))


def _three(numbers: Array) -> tuple[float, float, float]:
    a, b, c = (float(number) for number in numbers)
    return a, b, c


def sample(volume: Array, to_volume: Array, shape: tuple[int, int, int], *, order: int) -> Array:
    """Sample a volume on a moved grid; 0 outside.

    Parameters
    ----------
    volume : ndarray [X, Y, Z]
        Image (order 1) or labels (order 0).
    to_volume : (4, 4) ndarray
        Voxel of the new grid -> voxel of the volume.
    shape : tuple of three int
        Of the new grid.
    order : int
        0 nearest, 1 linear.

    Returns
    -------
    ndarray
        ``shape``, the type of ``volume``.
    """
    linear, offset = to_volume[:3, :3], to_volume[:3, 3]
    scale = np.diag(linear)
    if np.array_equal(linear, np.diag(scale)) and np.isin(scale, (-1, 1)).all() and (
        offset == np.rint(offset)
    ).all():  # fmt: skip
        return _slide(volume, scale.astype(int), offset.astype(int), shape)
    out = np.empty(shape, volume.dtype)
    ndimage.affine_transform(
        volume, linear, offset, output_shape=shape, output=out, order=order, mode='constant',
        prefilter=False,
    )  # fmt: skip
    return out


def _slide(volume: Array, scale: Array, offset: Array, shape: tuple[int, int, int]) -> Array:
    """Shift by whole voxels and mirror without interpolation."""
    out = np.zeros(shape, volume.dtype)
    target, source = [], []
    for axis, size in enumerate(shape):
        index = scale[axis] * np.arange(size) + offset[axis]
        inside = np.flatnonzero((index >= 0) & (index < volume.shape[axis]))
        if not inside.size:
            return out
        target.append(slice(int(inside[0]), int(inside[-1]) + 1))
        first, last = int(index[inside].min()), int(index[inside].max()) + 1
        source.append(slice(first, last))
    part = np.flip(volume[tuple(source)], tuple(axis for axis in range(3) if scale[axis] < 0))
    out[tuple(target)] = part
    return out


def bezier_curve(inner: Array, at: Array) -> Array:
    """Evaluate a cubic Bezier curve from (0, 0) to (1, 1).

    With inner points in the unit square, in any order, both coordinates never fall. With
    a = y1 and c = 1 - y2 the slope is 3 (a (1-t)^2 - 2 (a+c-1) t (1-t) + c t^2), which is not
    negative because a + c - 1 <= min(a, c) <= sqrt(a c).

    Parameters
    ----------
    inner : (2, 2) ndarray
        The two inner control points, (x, y) each, in the unit square.
    at : ndarray
        Values of x in 0 to 1.

    Returns
    -------
    ndarray
        Values of y, as ``at``.
    """
    t = np.linspace(0, 1, _SAMPLES)
    basis = np.stack([3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t)], axis=1)
    x, y = (basis @ np.asarray(inner)).T + t**3
    return np.asarray(np.interp(at, x, y))


def draw_inner(rng: np.random.Generator, curves: str) -> Array:
    """Draw inner control points, (2, 2), uniform in the unit square; 'sorted' by x and by y."""
    inner = rng.random((2, 2))
    return np.sort(inner, axis=0) if curves == 'sorted' else inner


def apply_curve(image: Array, inner: Array, top: float = 1.0) -> Array:
    """Pass an image through a curve.

    Parameters
    ----------
    image : ndarray, float32
        Values in 0 to ``top``.
    inner : (2, 2) ndarray
        See :func:`bezier_curve`.
    top : float
        The largest value that the scaling of intensities leaves.

    Returns
    -------
    ndarray, float32
        Values in 0 to ``top``; 0 and ``top`` stay.
    """
    grid = np.linspace(0, 1, _SAMPLES)
    table = bezier_curve(inner, grid)
    scaled = np.interp(image.ravel() / top, grid, table) * top
    return scaled.reshape(image.shape).astype(np.float32)
