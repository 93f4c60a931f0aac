"""What the scanner does to a simulated image: coil, signal loss, slices, noise, coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from shivacmb.simulate.anatomy_atlas import Array
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.anatomy_warp import expand, smooth_noise

if TYPE_CHECKING:
    from collections.abc import Sequence


def _coarse_share(inside: Array, step: Sequence[int]) -> Array:
    """Share of each block of ``step`` voxels that is inside; blocks may be cut at the high end."""
    pad = [(0, -size % s) for size, s in zip(inside.shape, step, strict=True)]
    full = np.pad(inside, pad).astype(np.float32)
    # strided sums, axis by axis: several times faster than one mean over three short axes
    for axis, s in enumerate(step):
        full = np.moveaxis(full, axis, 0)
        full = np.moveaxis(sum(full[start::s] for start in range(s)) / np.float32(s), 0, axis)
    return np.ascontiguousarray(full)


def receive(
    image: Array,
    labels: Array,
    rng: np.random.Generator,
    *,
    voxel_mm: Sequence[float] | Array,
    strong: bool = False,
) -> Array:
    """Apply coil sensitivity and the signal loss around air inside the head.

    Parameters
    ----------
    image : ndarray, float32 [X, Y, Z]
    labels : ndarray, uint8 [X, Y, Z]
        Where CAVITY is, the field is disturbed (frontal base, temporal poles, mastoid).
    rng : numpy.random.Generator
    voxel_mm : sequence of three float
    strong : bool
        Long echo time: more loss.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
    """
    field = rng.uniform(0.05, 0.4) * smooth_noise(rng, image.shape, voxel_mm, 90.0)
    out = image * np.exp(field)
    step = [max(1, round(4.0 / mm)) for mm in voxel_mm]
    share = _coarse_share(labels == Tissue.CAVITY, step)
    reach = rng.uniform(5.0, 12.0) / (np.array(step) * np.asarray(voxel_mm))
    loss = ndimage.gaussian_filter(share, reach, truncate=3.0)
    top = float(loss.max())
    if top > 0:
        depth = rng.uniform(0.0, 3.0) * (1.5 if strong else 1.0)
        out *= np.exp(-depth * expand(loss / top, image.shape))
    return np.asarray(out, np.float32)


def acquire(
    image: Array,
    rng: np.random.Generator,
    *,
    voxel_mm: Sequence[float] | Array,
    slice_mm: float,
    axis: int = 2,
    noise: float = 0.0,
) -> Array:
    """Average over thick slices, add Rician noise there, interpolate back linearly.

    Parameters
    ----------
    image : ndarray, float32 [X, Y, Z]
    rng : numpy.random.Generator
    voxel_mm : sequence of three float
    slice_mm : float
        Slice thickness and distance; no averaging where it does not exceed the voxel.
    axis : int
        Slice axis.
    noise : float
        Standard deviation of the real and the imaginary noise.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        On the grid of ``image``.
    """
    step = slice_mm / float(voxel_mm[axis])
    size = image.shape[axis]
    thick = step > 1.0
    if thick:
        centres = np.arange(rng.uniform(0.0, step), size, step)
        image = np.asarray(np.tensordot(_slice_weights(size, centres, step), image, (1, axis)))
    if noise > 0:
        real = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
        image = np.hypot(real, noise * rng.standard_normal(image.shape, dtype=np.float32))
    if thick:
        back = _linear_weights(size, centres)
        image = np.moveaxis(np.tensordot(back, image, axes=(1, 0)), 0, axis)
    return np.ascontiguousarray(image, np.float32)


def _slice_weights(size: int, centres: Array, step: float) -> Array:
    """Rows: the share of every voxel in a box-shaped slice; each row sums to 1."""
    edges = np.arange(size)[None]
    low, high = centres[:, None] - step / 2, centres[:, None] + step / 2
    share = np.clip(np.minimum(edges + 0.5, high) - np.maximum(edges - 0.5, low), 0.0, 1.0)
    return np.asarray(share / share.sum(1, keepdims=True), np.float32)


def _linear_weights(size: int, centres: Array) -> Array:
    """Rows: linear interpolation of slice values at every voxel, the end slices repeated."""
    unit = np.eye(len(centres))
    where = np.arange(size)
    return np.stack([np.interp(where, centres, row) for row in unit], axis=1).astype(np.float32)


def cover(image: Array, rng: np.random.Generator) -> Array:
    """Leave slices or sides out, as a field of view that is too small does; in a copy.

    Parameters
    ----------
    image : ndarray, float32 [X, Y, Z]
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        0 where nothing was acquired. At least half of each axis stays.
    """
    out: Array = image.copy()
    # feet, head, then the four sides; a scan mostly lacks slices
    for axis, end, chance in ((2, 0, 0.5), (2, 1, 0.5), (0, 0, 0.1), (0, 1, 0.1), (1, 1, 0.15)):
        if rng.random() < chance:
            cut = int(out.shape[axis] * rng.uniform(0.02, 0.25))
            lost: list[slice] = [slice(None)] * 3
            lost[axis] = slice(0, cut) if end == 0 else slice(out.shape[axis] - cut, None)
            out[tuple(lost)] = 0.0
    return out


def strip_skull(
    image: Array,
    labels: Array,
    rng: np.random.Generator,
    *,
    voxel_mm: Sequence[float] | Array,
    brain: Array | None = None,
) -> Array:
    """Cut the skull away sharply, as brain-extraction tools do, not quite at the right place.

    Parameters
    ----------
    image : ndarray, float32 [X, Y, Z]
    labels : ndarray, uint8 [X, Y, Z]
    rng : numpy.random.Generator
    voxel_mm : sequence of three float
    brain : ndarray of bool [X, Y, Z], optional
        True mask; by default every brain tissue with the fluid next to it.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        0 outside the cut.
    """
    if brain is None:
        brain = (labels >= Tissue.CORTEX) & (labels <= Tissue.VENTRICLE)
    size = np.asarray(voxel_mm)
    share = ndimage.gaussian_filter(brain.astype(np.float32), 2.0 / size, truncate=2.5)
    # 2 mm of blur turn a threshold of 0.3 or 0.7 into an edge about 1 mm out or in
    edge = rng.uniform(0.25, 0.7) + 0.08 * smooth_noise(rng, labels.shape, size, 30.0)
    return np.asarray(np.where(share > edge, image, 0.0), np.float32)
