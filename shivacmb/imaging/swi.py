"""Susceptibility-weighted images from magnitude and phase (Haacke 2004).

Homodyne high-pass phase, a mask between 0 and 1 made of it, and its fourth power times the
magnitude.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import fft

from shivacmb.exceptions import DataError

Array = npt.NDArray[Any]
#: How often the mask is applied (Haacke 2004).
POWER = 4


def homodyne_phase(
    magnitude: Array, phase: Array, *, window: float = 0.125, slice_axis: int = 2
) -> Array:
    """High-pass phase: that of the signal divided by its own blurred copy, slice by slice.

    Parameters
    ----------
    magnitude : ndarray, float [X, Y, Z]
        Any unit.
    phase : ndarray, float [X, Y, Z]
        In rad, wrapped or not.
    window : float
        Share of k-space that makes the blurred copy, under a Hann window; 64 lines of 512.
    slice_axis : int
        The axis across the slices.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        In rad, -pi to pi; the sign of ``phase`` is kept.

    Raises
    ------
    DataError
        When the shapes differ, the phase is not in rad, or the window is no share.
    """
    _check(magnitude, phase, window)
    signal = np.empty(magnitude.shape, np.complex64)
    np.multiply(magnitude, np.cos(phase), out=signal.real, casting='unsafe')
    np.multiply(magnitude, np.sin(phase), out=signal.imag, casting='unsafe')
    plane = [axis for axis in range(3) if axis != slice_axis]
    space = fft.fftn(signal, axes=plane)
    for axis in plane:
        offset = fft.fftfreq(signal.shape[axis])
        taper = np.where(
            np.abs(offset) < window / 2, 0.5 + 0.5 * np.cos(2 * np.pi * offset / window), 0.0
        ).astype(np.float32)
        space *= taper.reshape([-1 if axis == other else 1 for other in range(3)])
    space = fft.ifftn(space, axes=plane, overwrite_x=True)
    signal *= np.conj(space, out=space)
    return np.angle(signal)


def phase_mask(high_pass: Array, *, sign: Literal[-1, 1] = 1) -> Array:
    """Darken what has the phase of paramagnetic tissue.

    Parameters
    ----------
    high_pass : ndarray, float
        In rad, -pi to pi.
    sign : {1, -1}
        Sign of the phase where the field is raised, as in veins along the main field; it
        depends on the vendor.

    Returns
    -------
    ndarray, float32
        1 where the phase has the other sign, else falling linearly to 0 at ``sign * pi``.
    """
    return np.asarray(np.clip(1.0 - sign * high_pass / np.pi, 0.0, 1.0), np.float32)


def susceptibility_weighted(
    magnitude: Array,
    phase: Array,
    *,
    sign: Literal[-1, 1] = 1,
    power: int = POWER,
    window: float = 0.125,
    slice_axis: int = 2,
) -> Array:
    """Susceptibility-weighted image.

    Parameters
    ----------
    magnitude, phase : ndarray, float [X, Y, Z]
        Of one echo; phase in rad.
    sign : {1, -1}
        See :func:`phase_mask`.
    power : int
        How often the mask is applied; 0 returns the magnitude.
    window, slice_axis
        See :func:`homodyne_phase`.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        In the unit of ``magnitude``.

    Raises
    ------
    DataError
        See :func:`homodyne_phase`.
    """
    high_pass = homodyne_phase(magnitude, phase, window=window, slice_axis=slice_axis)
    return np.asarray(magnitude * phase_mask(high_pass, sign=sign) ** power, np.float32)


def _check(magnitude: Array, phase: Array, window: float) -> None:
    if magnitude.shape != phase.shape or magnitude.ndim != 3:
        raise DataError(
            f'magnitude and phase must be 3-D and of one shape, not {magnitude.shape} and '
            f'{phase.shape}; give both images of the same echo'
        )
    if not 0 < window <= 1:
        raise DataError(f'the window must be a share of k-space above 0 and up to 1, not {window}')
    span = float(phase.max()) - float(phase.min())
    if not np.isfinite(span) or span > 64 * np.pi:
        raise DataError(
            f'the phase spans {span:g}: it is not in rad; scale it first (for example 4096 to pi)'
        )
