"""Random coordinates: where each voxel of a new head comes from in the template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from shivacmb.simulate.anatomy_atlas import COARSE_MM, COARSE_ORIGIN, Array, Atlas

if TYPE_CHECKING:
    from collections.abc import Sequence

LATTICE_MM = 4.0
#: Middle of the brain in MNI mm: heads are turned and scaled about it.
CENTRE = np.array([0.0, -18.0, 4.0])


@cache
def _weights(size: int, nodes: int, order: int) -> Array:
    """Interpolation matrix [size, nodes] from nodes spread end to end over ``size`` voxels."""
    unit = np.eye(nodes, dtype=np.float32)
    where = np.linspace(0.0, nodes - 1.0, size)
    columns = [
        ndimage.map_coordinates(unit[:, n], [where], order=order, mode='nearest')
        for n in range(nodes)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def expand(nodes: Array, shape: Sequence[int], order: int = 1) -> Array:
    """Blow a coarse field up to a full grid, its corners on the grid's corners.

    Separable, as three matrix products, which is ten times faster than a general resampling.

    Parameters
    ----------
    nodes : ndarray, float32 [A, B, C]
    shape : sequence of three int
    order : int
        Spline order, 1 or 3.

    Returns
    -------
    ndarray, float32 ``shape``
    """
    field = np.asarray(nodes, np.float32)
    for size in shape:
        # contract the first axis and append the new one: after three turns the order is back
        field = np.tensordot(field, _weights(int(size), field.shape[0], order), axes=(0, 1))
    return np.ascontiguousarray(field)


def smooth_noise(
    rng: np.random.Generator,
    shape: Sequence[int],
    voxel_mm: Sequence[float] | Array,
    scale_mm: float,
) -> Array:
    """Random smooth field of zero mean and about unit deviation.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : sequence of three int
        Voxels.
    voxel_mm : sequence of three float
        Voxel size.
    scale_mm : float
        Distance between independent values.

    Returns
    -------
    ndarray, float32 ``shape``
    """
    nodes = [
        max(2, int(np.ceil(size * mm / scale_mm)) + 1)
        for size, mm in zip(shape, voxel_mm, strict=True)
    ]
    return expand(rng.standard_normal(nodes).astype(np.float32), shape, order=3)


@dataclass(frozen=True)
class WarpRange:
    """How far heads differ.

    Attributes
    ----------
    rotation_deg : float
        Standard deviation of the head's rotation about each axis.
    size : float
        Standard deviation of the logarithm of the head's size; 0.7 of it more for each axis.
    shear : float
        Standard deviation of each shear.
    shift_mm : float
        Half width of the uniform shift of the head in the field of view.
    warp_mm : tuple of (float, float)
        Pairs (scale in mm, standard deviation in mm) of the non-linear displacements.
    ventricle_mm : tuple of float
        Least and most widening of the ventricles.
    """

    rotation_deg: float = 5.0
    size: float = 0.05
    shear: float = 0.03
    shift_mm: float = 6.0
    warp_mm: tuple[tuple[float, float], ...] = ((60.0, 3.0), (28.0, 1.6), (14.0, 0.6))
    ventricle_mm: tuple[float, float] = (-1.0, 6.0)


def random_affine(rng: np.random.Generator, spread: WarpRange) -> Array:
    """Scanner mm to MNI mm as a 4x4 matrix: rotation, size, shear and shift about the brain."""
    angles = np.deg2rad(rng.normal(0.0, spread.rotation_deg, 3))
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    # the template is larger than most heads, hence the mean below one
    size = np.exp(rng.normal(-0.04, spread.size) + rng.normal(0.0, 0.7 * spread.size, 3))
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = rng.normal(0.0, spread.shear, 3)
    matrix = np.eye(4)
    matrix[:3, :3] = shear @ np.diag(1.0 / size) @ turn
    matrix[:3, 3] = CENTRE - matrix[:3, :3] @ rng.uniform(-spread.shift_mm, spread.shift_mm, 3)
    return matrix


def template_lattice(
    rng: np.random.Generator,
    atlas: Atlas,
    shape: Sequence[int],
    affine: Array,
    spread: WarpRange,
) -> Array:
    """MNI coordinates of a coarse lattice over the new head's grid.

    Parameters
    ----------
    rng : numpy.random.Generator
    atlas : Atlas
    shape : sequence of three int
        Grid of the new head.
    affine : ndarray [4, 4]
        Its voxel to scanner mm; scanner (0, 0, 0) is the middle of the brain before the shift.
    spread : WarpRange

    Returns
    -------
    ndarray, float32 [3, A, B, C]
        Corner nodes lie on the grid's corner voxels; use :func:`expand` for every voxel.
    """
    voxel = np.sqrt((affine[:3, :3] ** 2).sum(0))
    nodes = [
        max(4, round((size - 1) * mm / LATTICE_MM) + 1)
        for size, mm in zip(shape, voxel, strict=True)
    ]
    ticks = [np.linspace(0.0, size - 1.0, n) for size, n in zip(shape, nodes, strict=True)]
    index = np.stack(np.meshgrid(*ticks, indexing='ij')).reshape(3, -1)
    mapping = random_affine(rng, spread) @ affine
    where = (mapping[:3, :3] @ index + mapping[:3, 3:]).reshape(3, *nodes)
    node_mm = [(s - 1) * m / (n - 1) for s, m, n in zip(shape, voxel, nodes, strict=True)]
    for scale, deviation in spread.warp_mm:
        for axis in range(3):
            where[axis] += deviation * smooth_noise(rng, nodes, node_mm, scale)
    widen = rng.uniform(*spread.ventricle_mm)
    near: Any = (where - COARSE_ORIGIN.reshape(3, 1, 1, 1)) / COARSE_MM
    distance = ndimage.map_coordinates(atlas.ventricle, near, order=1, mode='nearest')
    pull = widen * np.exp(-np.abs(distance) / 14.0)
    # a little asymmetry: one side may be wider than the other
    pull *= 1.0 + rng.uniform(-0.3, 0.3) * np.tanh(where[0] / 10.0)
    for axis in range(3):
        slope = ndimage.map_coordinates(atlas.ventricle_slope[axis], near, order=1, mode='nearest')
        where[axis] -= pull * slope
    return np.asarray(where, np.float32)
