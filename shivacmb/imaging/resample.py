"""Step 4: isotropic voxels, as ``flirt -applyisoxfm -noresampblur`` makes them.

The grid, the float32 arithmetic of the sample positions and the background value follow FSL
6.0.0 so closely that no voxel differs (docs/decisions/0010): plain float64 interpolation gives a
column too many for usual voxel sizes such as 0.9 mm, and a wrong last plane for others.
"""

from __future__ import annotations

from typing import Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shivacmb.imaging.header import Affine, is_neurological, scaled_values, typed_image

Floats = npt.NDArray[np.floating]
RIM_LAYERS = 2


def isotropic_to_std_map(
    image: nib.Nifti1Image, voxel_mm: float
) -> tuple[tuple[int, int, int], Affine]:
    """Return the isotropic grid of an image.

    Parameters
    ----------
    image : Nifti1Image
        The header alone is looked at.
    voxel_mm : float
        Voxel size of the grid, mm.

    Returns
    -------
    shape : tuple of three int
        ``trunc(n * d / voxel_mm)`` in float32: the last partial voxel is lost.
    voxel_map : (4, 4) ndarray
        Voxels of the grid to voxels of ``image``. Voxel 0 of the *radiological* array keeps its
        centre, so a neurological image loses its remainder at the low end of the first axis.
    """
    steps = np.float32(voxel_mm) / np.asarray(image.header.get_zooms()[:3], dtype=np.float32)
    sizes = np.asarray(image.shape[:3], dtype=np.float32)
    x, y, z = (max(1, int(size)) for size in sizes / steps)
    voxel_map = np.diag([*steps.astype(np.float64), 1.0])
    if is_neurological(image):
        voxel_map[0, 3] = (image.shape[0] - 1) - float(steps[0]) * (x - 1)
    return (x, y, z), voxel_map


def resample_isotropic(
    image: nib.Nifti1Image,
    voxel_mm: float = 1.0,
    interpolation: Literal['trilinear', 'nearest'] = 'trilinear',
) -> nib.Nifti1Image:
    """Resample to isotropic voxels.

    Parameters
    ----------
    image : Nifti1Image
        3-D, or 4-D with one volume.
    voxel_mm : float
        Voxel size, mm.
    interpolation : {'trilinear', 'nearest'}
        Nearest for masks and labels; a half goes up.

    Returns
    -------
    Nifti1Image
        The voxels of ``flirt -applyisoxfm VOXEL_MM -noresampblur`` with the identity. Beyond the
        last voxel's centre stands the 10th percentile of the image's rim.
    """
    shape, voxel_map = isotropic_to_std_map(image, voxel_mm)
    values = scaled_values(image)
    flipped = is_neurological(image)
    if flipped:
        values = values[::-1]
    background = rim_percentile(values)
    zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
    inside = []
    for axis in range(3):
        positions = _positions(shape[axis], zooms[axis], voxel_mm, running=axis == 1)
        last = values.shape[axis] - 1
        inside.append((positions >= 0) & (positions <= np.float32(last)))
        if interpolation == 'nearest':
            index = np.clip((positions + np.float32(0.5)).astype(np.intp), 0, last)
            values = np.take(values, index, axis=axis)
        else:
            values = _interpolate(values, positions, axis)
    for axis, valid in enumerate(inside):
        values[(slice(None),) * axis + (~valid,)] = background
    if flipped:
        values = values[::-1]
    return typed_image(values, image, voxel_map)


def _positions(
    size: int, zoom: float, voxel_mm: float, *, running: bool
) -> npt.NDArray[np.float32]:
    """Sample positions along one axis, in voxels.

    FSL's inner loop runs along y and adds the step up, with its rounding errors; x and z are
    multiplied. Which planes lie beyond the last centre depends on it.
    """
    step = np.float32(1.0 / zoom * voxel_mm)
    if running:
        steps = np.full(size, step, dtype=np.float32)
        steps[0] = 0
        return np.cumsum(steps, dtype=np.float32)
    return np.arange(size, dtype=np.float32) * step


def _interpolate(values: Floats, positions: npt.NDArray[np.float32], axis: int) -> Floats:
    """Interpolate linearly along one axis: ``(b - a) * w + a`` in the type of the values."""
    last = values.shape[axis] - 1
    low = np.clip(positions.astype(np.intp), 0, last)
    weight = (positions - low.astype(np.float32)).astype(values.dtype)
    start = np.take(values, low, axis=axis)
    result = np.take(values, np.minimum(low + 1, last), axis=axis)
    result -= start
    result *= weight.reshape([-1 if other == axis else 1 for other in range(3)])
    result += start
    return result


def rim_percentile(values: Floats) -> np.floating:
    """Background value of FSL: the 10th percentile of the outer two layers of all six faces."""
    parts = []
    rest = values
    for axis in (2, 1, 0):
        size = rest.shape[axis]
        layers = min(RIM_LAYERS, size - 1)
        parts.append(np.take(rest, range(layers), axis=axis).ravel())
        parts.append(np.take(rest, range(size - layers, size), axis=axis).ravel())
        inner = slice(layers, max(layers, size - layers))
        rest = rest[(slice(None),) * axis + (inner,)]
    rim = np.concatenate(parts)
    if rim.size == 0:
        return np.float32(0)
    rank = rim.size // 10
    return np.partition(rim, rank)[rank]  # type: ignore[no-any-return]
