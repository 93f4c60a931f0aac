"""Scans whose skull was removed before they came here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

MIN_ZERO_SHARE = 0.2


def is_skull_stripped(array: npt.NDArray[np.floating]) -> bool:
    """Tell whether everything outside the brain is one constant value.

    Parameters
    ----------
    array : (X, Y, Z) ndarray
        The image.

    Returns
    -------
    bool
        True if at least a fifth of the voxels equal the value of the corners: the air of a head
        that was not stripped carries noise.
    """
    return bool(np.mean(array == _background(array)) >= MIN_ZERO_SHARE)


def background_mask(array: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Mask the brain of a skull-stripped scan.

    Parameters
    ----------
    array : (X, Y, Z) ndarray
        The image.

    Returns
    -------
    (X, Y, Z) ndarray of bool
        The largest connected part that differs from the background, holes filled: a microbleed
        may be as dark as the background.
    """
    labels, count = ndimage.label(array != _background(array))
    if count == 0:
        return np.zeros(array.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == int(sizes.argmax())), dtype=bool)


def _background(array: npt.NDArray[np.floating]) -> float:
    return float(np.median(array[:: max(1, array.shape[0] - 1), :: max(1, array.shape[1] - 1)]))
