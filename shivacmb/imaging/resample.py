"""Isotropic resampling that gives the voxels of ``flirt -applyisoxfm s -noresampblur``.

Written from measured behaviour of FSL 6.0.0 (see
``docs/decisions/0010-native-toolkit-follows-fsl.md``). The image is worked through plane by
plane, so memory beyond input and output is a few planes.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from shivacmb.exceptions import UsageError
from shivacmb.imaging.grid import (
    Shape3,
    fsl_header,
    is_neurological,
    isotropic_to_std_map,
    move_forms,
    voxel_sizes,
)
from shivacmb.imaging.reorient import c_cast, scaled_volume

Interpolation = Literal['trilinear', 'nearest', 'spline', 'sinc']
Floats = npt.NDArray[np.float32]

_RIM_LAYERS = 2
_SINC_HALF_WIDTH = 3
_SINC_TABLE = 1201


def resample_isotropic(
    img: Any, voxel_mm: float = 1.0, interpolation: Interpolation = 'trilinear'
) -> Any:
    """Resample to isotropic voxels as ``flirt -applyisoxfm voxel_mm -noresampblur`` (FSL 6.0.0).

    Trilinear and nearest give the same voxels as FLIRT, bit for bit; sinc and spline agree to
    float32 rounding. Samples outside the input take FLIRT's background value (the 10th
    percentile of the two outermost layers), which is not 0.

    Parameters
    ----------
    img : Nifti1Image
        One volume, usually from `reorient_to_std`.
    voxel_mm : float
        Voxel size of the result in mm.
    interpolation : {'trilinear', 'nearest', 'spline', 'sinc'}
        How values between voxels are made.

    Returns
    -------
    Nifti1Image
        The resampled image; its type and header follow FSL's rules (integers are truncated).

    Raises
    ------
    DataError
        If there are several volumes.
    UsageError
        If the voxel size is not positive or the interpolation is unknown.
    """
    if not voxel_mm > 0:
        msg = f'The voxel size must be above 0 mm, not {voxel_mm}'
        raise UsageError(msg)
    if interpolation not in ('trilinear', 'nearest', 'spline', 'sinc'):
        msg = f'Unknown interpolation {interpolation!r}; use trilinear, nearest, spline or sinc'
        raise UsageError(msg)
    shape, to_std = isotropic_to_std_map(img, voxel_mm)
    # Planes along z are contiguous in Fortran order, which is also how NIfTI files are read.
    volume = np.asfortranarray(scaled_volume(img))
    neurological = is_neurological(img.header)
    if neurological:
        volume = volume[::-1]
    positions = sample_positions(shape, voxel_sizes(img.header), voxel_mm)
    values = _sample(volume, positions, interpolation)
    if neurological:
        values = values[::-1]
    values = c_cast(values, img.get_data_dtype())
    header = fsl_header(img.header, shape, values.dtype, like_flirt=True)
    move_forms(header, to_std, np.float32(voxel_mm))
    return img.__class__(values, header.get_best_affine(), header)


def sample_positions(
    shape: Shape3, zooms: npt.NDArray[np.float32], voxel_mm: float
) -> tuple[Floats, Floats, Floats]:
    """Return where each output plane is sampled, in radiological input voxels, per axis.

    x and z are products, y is a running float32 sum: its drift decides whether a plane that
    falls on the last input plane counts as inside.
    """
    step = (1.0 / zooms.astype(np.float64) * float(np.float32(voxel_mm))).astype(np.float32)
    x = np.arange(shape[0], dtype=np.float32) * step[0]
    y = np.concatenate([[0], np.full(shape[1] - 1, step[1])]).astype(np.float32)
    z = np.arange(shape[2], dtype=np.float32) * step[2]
    return x, np.add.accumulate(y, dtype=np.float32), z


def rim_background(volume: npt.NDArray[Any]) -> float:
    """Return FLIRT's background: element floor(N/10) of the sorted outer two layers.

    The x faces are taken whole, then what is left of the y and of the z faces; each voxel
    counts once, except that the middle layer of a 3-voxel axis counts twice.
    """
    parts: list[npt.NDArray[np.float32]] = []
    core = volume
    for axis in range(3):
        size = core.shape[axis]
        layers = min(_RIM_LAYERS, size - 1)
        if layers == 0:
            continue
        for index in (slice(0, layers), slice(size - layers, size)):
            face = core[(slice(None),) * axis + (index,)]
            parts.append(np.asarray(face, dtype=np.float32).ravel(order='K'))
        core = core[(slice(None),) * axis + (slice(layers, max(size - layers, layers)),)]
    if not parts:
        return float(volume.flat[0])
    rim = np.concatenate(parts)
    place = rim.size // 10
    return float(np.partition(rim, place)[place])


def _sample(
    volume: npt.NDArray[Any], positions: tuple[Floats, Floats, Floats], how: Interpolation
) -> Floats:
    """Sample ``volume`` on the outer product of ``positions``; Fortran-ordered float32."""
    background = np.float32(rim_background(volume))
    ends = [np.float32(n - 1) for n in volume.shape]
    inside = [int(np.sum(o <= end)) for o, end in zip(positions, ends, strict=True)]
    shape = tuple(o.size for o in positions)
    out = np.full(shape, background, dtype=np.float32, order='F')
    if min(inside) == 0:
        return out
    x, y, z = (o[:n] for o, n in zip(positions, inside, strict=True))
    target = out[: x.size, : y.size]
    if how == 'nearest':
        ix, iy, iz = (np.trunc(o + np.float32(0.5)).astype(np.intp) for o in (x, y, z))
        for k, plane in enumerate(iz):
            target[:, :, k] = volume[:, :, plane].T[iy[:, None], ix].T
    elif how == 'trilinear':
        _linear(volume, (x, y, z), target)
    else:
        _weighted(volume, (x, y, z), target, how)
    return out


def _corners(
    position: Floats, size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Lower neighbour, upper neighbour (the last plane is its own) and weight per sample."""
    low = np.trunc(position).astype(np.intp)
    weight: Floats = position - low.astype(np.float32)
    return low, np.minimum(low + 1, size - 1), weight


def _linear(
    volume: npt.NDArray[Any], positions: tuple[Floats, Floats, Floats], out: Floats
) -> None:
    """Interpolate x, then y, then z, each as (b - a) * w + a in float32: FLIRT's order."""
    x0, x1, wx = _corners(positions[0], volume.shape[0])
    y0, y1, wy = _corners(positions[1], volume.shape[1])
    z0, z1, wz = _corners(positions[2], volume.shape[2])

    def plane(k: int) -> Floats:
        rows: Floats = volume[:, :, k].T.astype(np.float32)
        a = rows.take(x0, axis=1)
        b = rows.take(x1, axis=1)
        b -= a
        b *= wx
        b += a
        a = b.take(y0, axis=0)
        c = b.take(y1, axis=0)
        c -= a
        c *= wy[:, None]
        c += a
        return c

    cached: dict[int, Floats] = {}
    for k, (low, high, weight) in enumerate(zip(z0.tolist(), z1.tolist(), wz, strict=True)):
        cached = {i: cached[i] if i in cached else plane(i) for i in (low, high)}
        a, b = cached[low], cached[high]
        out[:, :, k] = ((b - a) * weight + a).T


def _weighted(
    volume: npt.NDArray[Any], positions: tuple[Floats, Floats, Floats], out: Floats, how: str
) -> None:
    """Apply separable sinc or B-spline weights, plane by plane along z."""
    if how == 'spline':
        source = np.asarray(volume, dtype=np.float32)
        # Coefficients are float32 between the axes too, as FSL keeps them.
        source = ndimage.spline_filter(source, order=3, output=np.float32, mode='mirror')
        volume = np.asfortranarray(source)
    rule = _spline_weights if how == 'spline' else _sinc_weights
    wx, wy, wz = (rule(o, n) for o, n in zip(positions, volume.shape, strict=True))
    cached: dict[int, npt.NDArray[np.float64]] = {}
    for k in range(wz.shape[0]):
        row = slice(wz.indptr[k], wz.indptr[k + 1])
        needed = wz.indices[row].tolist()
        cached = {
            i: cached[i] if i in cached else wy @ (wx @ volume[:, :, i].astype(np.float64)).T
            for i in needed
        }
        total = np.zeros((wy.shape[0], wx.shape[0]))
        for i, weight in zip(needed, wz.data[row].tolist(), strict=True):
            total += weight * cached[i]
        out[:, :, k] = total.T


def _sinc_weights(position: Floats, size: int) -> Any:
    """(samples, size) sparse weights of a 7-tap Hanning-windowed sinc, each row summing to 1."""
    half = float(_SINC_HALF_WIDTH)
    grid = np.linspace(-half, half, _SINC_TABLE)
    table = np.sinc(grid) * 0.5 * (1.0 + np.cos(np.pi * grid / half))
    taps = np.floor(position).astype(np.intp)[:, None] + np.arange(-3, 4)
    weights = np.interp(position[:, None].astype(np.float64) - taps, grid, table, 0.0, 0.0)
    weights[(taps < 0) | (taps >= size)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return _rows(taps, weights, size)


def _spline_weights(position: Floats, size: int) -> Any:
    """(samples, size) sparse weights of the cubic B-spline; indices clamped at the edges."""
    low = np.floor(position).astype(np.intp)
    taps = low[:, None] + np.arange(-1, 3)
    u = position.astype(np.float64) - low
    weights = np.stack(
        [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=1
    )
    return _rows(taps, weights / 6.0, size)


def _rows(taps: npt.NDArray[np.intp], weights: npt.NDArray[np.float64], size: int) -> Any:
    """Collect taps (samples, k) and their weights in a sparse (samples, size) matrix."""
    samples = np.repeat(np.arange(taps.shape[0]), taps.shape[1])
    columns = np.clip(taps, 0, size - 1).ravel()
    shape = (taps.shape[0], size)
    return sparse.csr_matrix((weights.ravel(), (samples, columns)), shape=shape)
