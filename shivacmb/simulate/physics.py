"""From susceptibility to the complex gradient-echo signal of voxels.

Field by the dipole kernel in k-space (Salomir 2003, Marques and Bowtell 2005), phase at the echo
time, and the mean of the complex signal over each voxel, which is where the loss of magnitude
comes from. Susceptibilities and field shifts are in ppm (1e-6), frequencies in Hz, phases in rad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from shivacmb.simulate.lesions import GAMMA_HZ_PER_T

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[Any]


def dipole_kernel(shape: Sequence[int], voxel_mm: Sequence[float], b0: Sequence[float]) -> Array:
    """Transfer function from susceptibility to relative field shift, for ``scipy.fft.rfftn``.

    ``1/3 - (k.b0)^2 / |k|^2``, 0 at the origin: the mean field is not defined by a periodic map.

    Parameters
    ----------
    shape : sequence of three int
        Of the map in space.
    voxel_mm : sequence of three float
        Voxel size.
    b0 : sequence of three float
        Unit vector of the main field along the map's axes.

    Returns
    -------
    ndarray, float32 [X, Y, Z // 2 + 1]
    """
    lines = [
        fft.fftfreq(shape[0], voxel_mm[0]),
        fft.fftfreq(shape[1], voxel_mm[1]),
        fft.rfftfreq(shape[2], voxel_mm[2]),
    ]
    x, y, z = (
        line.astype(np.float32).reshape([-1 if axis == other else 1 for other in range(3)])
        for axis, line in enumerate(lines)
    )
    square = x * x + y * y + z * z
    square[0, 0, 0] = 1.0
    along = np.float32(b0[0]) * x + np.float32(b0[1]) * y + np.float32(b0[2]) * z
    kernel = np.float32(1 / 3) - along * along / square
    kernel[0, 0, 0] = 0.0
    return np.asarray(kernel)


def field_shift(
    chi: Array,
    voxel_mm: Sequence[float],
    b0: Sequence[float] = (0.0, 0.0, 1.0),
    *,
    margin: float = 1.0,
    workers: int | None = None,
) -> Array:
    """Relative field shift of a susceptibility map, Lorentz correction included.

    Parameters
    ----------
    chi : ndarray, float [X, Y, Z]
        In ppm relative to what surrounds the map.
    voxel_mm : sequence of three float
        Voxel size.
    b0 : sequence of three float
        Unit vector of the main field along the map's axes.
    margin : float
        Zeros added to each axis as a share of its length: the transform repeats the map
        endlessly, and the copies must be far.
    workers : int, optional
        Threads of the transform.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        In ppm of the main field.
    """
    wide = [fft.next_fast_len(int(np.ceil(n * (1 + margin))), real=True) for n in chi.shape]
    space = fft.rfftn(np.asarray(chi, np.float32), wide, workers=workers)
    space *= dipole_kernel(wide, voxel_mm, b0)
    field = fft.irfftn(space, wide, workers=workers, overwrite_x=True)
    return np.ascontiguousarray(field[tuple(slice(n) for n in chi.shape)], np.float32)


def frequency(shift: Array, field_t: float) -> Array:
    """Frequency in Hz of a field shift in ppm at ``field_t`` tesla."""
    return np.asarray(shift * np.float32(GAMMA_HZ_PER_T * field_t * 1e-6))


def shim(field: Array, mask: Array, order: int = 2) -> Array:
    """Remove from a field the polynomial that fits it best within a mask, as shim coils do.

    Parameters
    ----------
    field : ndarray, float32 [X, Y, Z]
        Any unit.
    mask : ndarray, bool [X, Y, Z]
        Where the field is to be even.
    order : int
        Total order of the polynomial.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        ``field`` itself where the mask has fewer voxels than the polynomial has terms.
    """
    powers = [
        (i, j, k)
        for i in range(order + 1)
        for j in range(order + 1 - i)
        for k in range(order + 1 - i - j)
    ]
    where = np.argwhere(mask)
    where = where[:: max(1, len(where) // 50_000)]
    if len(where) < len(powers):
        return field
    half = np.maximum(np.array(field.shape) - 1, 1) / 2
    points = where / half - 1
    terms = np.stack([np.prod(points**power, axis=1) for power in powers], axis=1)
    weights = np.linalg.lstsq(terms, field[tuple(where.T)].astype(float), rcond=None)[0]
    x, y, z = (
        (np.arange(n) / h - 1).astype(np.float32).reshape([-1 if a == b else 1 for b in range(3)])
        for a, (n, h) in enumerate(zip(field.shape, half, strict=True))
    )
    fit = np.zeros(field.shape, np.float32)
    for i in range(order + 1):
        plane = np.zeros((1, *field.shape[1:]), np.float32)
        for weight, power in zip(weights, powers, strict=True):
            if power[0] == i:
                plane += np.float32(weight) * y ** power[1] * z ** power[2]
        fit += x**i * plane
    return np.asarray(field - fit)


def dephasing(
    frequency_hz: Array, voxel_mm: Sequence[float], size_mm: Sequence[float], echo_s: float
) -> Array:
    """Share of the signal left in a voxel over which the frequency changes linearly.

    Parameters
    ----------
    frequency_hz : ndarray, float32 [X, Y, Z]
        On a grid finer than, or as fine as, the voxels in question.
    voxel_mm : sequence of three float
        Of that grid.
    size_mm : sequence of three float
        Of the voxels in question.
    echo_s : float
        Echo time.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        Product over the axes of ``|sin(pi n) / (pi n)|``, ``n`` being the turns from one face of
        the voxel to the other.
    """
    left = np.ones(frequency_hz.shape, np.float32)
    for axis in range(3):
        if frequency_hz.shape[axis] < 2:
            continue
        slope = np.gradient(frequency_hz, axis=axis)
        left *= np.sinc(slope * np.float32(size_mm[axis] / voxel_mm[axis] * echo_s))
    return np.abs(left)


def complex_signal(amplitude: Array, phase: Array) -> Array:
    """``amplitude * exp(i phase)`` as complex64; five times faster than ``numpy.exp``."""
    signal = np.empty(np.broadcast_shapes(amplitude.shape, phase.shape), np.complex64)
    np.multiply(amplitude, np.cos(phase), out=signal.real)
    np.multiply(amplitude, np.sin(phase), out=signal.imag)
    return signal


def block_mean(volume: Array, parts: Sequence[int]) -> Array:
    """Mean over blocks of ``parts`` voxels: from sub-voxels to voxels.

    Parameters
    ----------
    volume : ndarray [A * X, B * Y, C * Z]
        Sub-voxels.
    parts : sequence of three int
        A, B, C.

    Returns
    -------
    ndarray [X, Y, Z]
        Same type.
    """
    out = volume
    # strided sums axis by axis: several times faster than one mean over three short axes
    for axis, part in enumerate(parts):
        if part > 1:
            moved = np.moveaxis(out, axis, 0)
            total = moved[0::part].copy()
            for start in range(1, part):
                total += moved[start::part]
            out = np.moveaxis(total * np.float32(1 / part), 0, axis)
    return np.ascontiguousarray(out)


def interpolate(volume: Array, points: Sequence[Array]) -> Array:
    """Linear interpolation on a grid whose axes are those of the volume.

    Parameters
    ----------
    volume : ndarray, float32 [X, Y, Z]
    points : sequence of three ndarray, float
        Coordinates in voxels along each axis; the rim is repeated outside.

    Returns
    -------
    ndarray, float32 [len(points[0]), len(points[1]), len(points[2])]
    """
    out = np.asarray(volume, np.float32)
    for axis in np.argsort([len(p) / n for p, n in zip(points, volume.shape, strict=True)]):
        where = np.clip(points[axis], 0, volume.shape[axis] - 1)
        low = np.floor(where).astype(np.intp)
        rest = (where - low).astype(np.float32)
        lower = np.take(out, low, axis=axis)
        if rest.any():
            upper = np.take(out, np.minimum(low + 1, volume.shape[axis] - 1), axis=axis)
            upper -= lower
            upper *= rest.reshape([-1 if axis == other else 1 for other in range(3)])
            lower += upper
        out = lower
    return np.ascontiguousarray(out)
