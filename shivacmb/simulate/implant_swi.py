"""What a lesion's phase takes from a susceptibility-weighted image, besides its magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.imaging.swi import POWER, homodyne_phase, phase_mask
from shivacmb.simulate.subject import SWI_LINES

Array = NDArray[Any]


def slice_axis(voxel_mm: Sequence[float], b0: Sequence[float]) -> int:
    """The axis across the slices: that of the largest voxel side.

    Parameters
    ----------
    voxel_mm : sequence of three float
        Voxel size in mm.
    b0 : sequence of three float
        Main field along the voxel axes: of equal sides the one nearest to it counts, as most
        scans are axial.

    Returns
    -------
    int
    """
    size = np.asarray(voxel_mm, float)
    thick = size > 0.98 * size.max()
    return int(np.argmax(np.where(thick, np.abs(np.asarray(b0, float)), -1.0)))


def weighting(signal: Array, shape: Sequence[int], across: int) -> Array:
    """Share that the phase mask of an SWI leaves of the magnitude around a lesion.

    The high-pass phase is that of the lesion alone: the scan's own phase is in the SWI already.

    Parameters
    ----------
    signal : ndarray, complex [X, Y, Z]
        See :func:`shivacmb.simulate.lesions.lesion_signal`; a positive phase where the field is
        raised, which is what darkens.
    shape : sequence of three int
        Of the whole scan: how much of k-space the low-pass image has follows from it.
    across : int
        From :func:`slice_axis`.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        1 where nothing is lost.
    """
    if not signal.size:
        return np.ones(signal.shape, np.float32)
    window = min(1.0, SWI_LINES / max(n for axis, n in enumerate(shape) if axis != across))
    # the blurred copy must not reach round from the other side of the box
    rim = int(np.ceil(2 / window))
    rims = [0 if axis == across else rim for axis in range(3)]
    wide = np.pad(signal, [(n, n) for n in rims], constant_values=1.0)
    high_pass = homodyne_phase(np.abs(wide), np.angle(wide), window=window, slice_axis=across)
    inner = tuple(slice(n, n + size) for n, size in zip(rims, signal.shape, strict=True))
    return np.asarray(phase_mask(high_pass[inner]) ** POWER, np.float32)
