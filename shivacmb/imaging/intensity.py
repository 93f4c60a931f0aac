"""Intensity scaling for the network, and scans that come without a skull."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shivacmb.exceptions import DataError

# A scan may be skull-stripped when its background is one value over this share of the
# field of view and what is left is one piece of a brain's volume (with margin, in ml).
STRIPPED_MIN_BACKGROUND = 0.4
STRIPPED_VOLUME_ML = (300.0, 2200.0)
STRIPPED_MIN_LARGEST = 0.95


def scale_intensity(
    array: npt.NDArray[Any],
    mask: npt.NDArray[Any],
    percentile: float = 99.0,
    clip: float = 1.0,
    divide: float = 1.0,
    *,
    masked: bool = False,
) -> npt.NDArray[np.float32]:
    """Scale so that a percentile inside the mask becomes 1, then clip and divide.

    ``clip(array / percentile, 0, clip) / divide``. The SHIVA-CMB paper clips at 1; SHiVAi 0.5.9
    clips at 1.3 and divides by 1.3.

    Parameters
    ----------
    array : (X, Y, Z) ndarray
        Magnitude image, any unit.
    mask : (X, Y, Z) ndarray
        Brain: voxels above 0. The percentile is taken over all of them, in float64, linear
        between ranks.
    percentile : float
        In 0..100.
    clip, divide : float
        Upper limit after scaling, and the number the clipped image is divided by.
    masked : bool
        Set voxels outside the mask to 0.

    Returns
    -------
    (X, Y, Z) float32 ndarray
        Values in 0..clip/divide.

    Raises
    ------
    DataError
        If the mask is empty, holds a non-finite value, or its percentile is not above 0.
    """
    inside = np.asarray(mask) > 0
    values = np.asarray(array)[inside].astype(np.float64)
    if values.size == 0:
        msg = 'The brain mask is empty, so intensities cannot be scaled; check the mask'
        raise DataError(msg)
    top = float(np.percentile(values, percentile))
    if not np.isfinite(top):
        msg = 'The image holds NaN or infinite values inside the brain mask; repair the image'
        raise DataError(msg)
    if top <= 0:
        msg = (
            f'The {percentile:g}th percentile inside the brain mask is {top:g}, not above 0; '
            'the mask may lie outside the head, or the image may not be a magnitude image'
        )
        raise DataError(msg)
    out = np.asarray(array, dtype=np.float32) * np.float32(1.0 / top)
    np.clip(out, 0.0, np.float32(clip), out=out)
    if divide != 1.0:
        out /= np.float32(divide)
    if masked:
        out[~inside] = 0.0
    return np.ascontiguousarray(out)


def is_skull_stripped(
    array: npt.NDArray[Any], voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> bool:
    """Tell whether a scan may be skull-stripped, its background set to one value.

    True when the most frequent rim value fills at least 40 % of the image, and the rest is one
    piece (95 % of it connected) of 300 to 2200 ml once its holes are filled. Scanner noise leaves
    no constant background; a head in air that was set to 0 does, and may have such a volume:
    :func:`shivacmb.models.brain_mask.find_mask` tells it from a brain.

    Parameters
    ----------
    array : (X, Y, Z) ndarray
        Image values.
    voxel_mm : tuple of float
        Voxel sizes in mm.
    """
    other = np.asarray(array) != _rim_value(array)
    count = int(np.count_nonzero(other))
    if count == 0 or count > (1 - STRIPPED_MIN_BACKGROUND) * other.size:
        return False
    piece = _largest_piece(other)
    if np.count_nonzero(piece) < STRIPPED_MIN_LARGEST * count:
        return False
    filled = _fill_holes(piece)
    volume_ml = float(np.count_nonzero(filled)) * float(np.prod(voxel_mm)) / 1000.0
    return STRIPPED_VOLUME_ML[0] <= volume_ml <= STRIPPED_VOLUME_ML[1]


def background_mask(img: Any) -> npt.NDArray[np.bool_]:
    """Return the brain of a skull-stripped scan: what is not background, holes filled.

    Parameters
    ----------
    img : Nifti1Image or (X, Y, Z) ndarray
        A scan whose background is one value (see `is_skull_stripped`).

    Returns
    -------
    (X, Y, Z) bool ndarray
        The largest 6-connected piece, holes filled, on the grid of ``img``.

    Raises
    ------
    DataError
        If the image has one value only.
    """
    array = np.asarray(getattr(img, 'dataobj', img))
    other = array != _rim_value(array)
    if not other.any():
        msg = 'The image holds one value only, so no brain can be told from its background'
        raise DataError(msg)
    return _fill_holes(_largest_piece(other))


def _rim_value(array: npt.NDArray[Any]) -> Any:
    """Most frequent value on the six faces; the smallest of equally frequent ones."""
    array = np.asarray(array)
    faces = [array.take(end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    return values[np.argmax(counts)]


def _largest_piece(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Largest 6-connected piece; the first in C order of equally large ones."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    piece: npt.NDArray[np.bool_] = labels == np.argmax(sizes)
    return piece


def _fill_holes(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Add every piece of background that does not reach a face of the image."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            outside[labels.take(end, axis=axis)] = True
    outside[0] = False
    filled: npt.NDArray[np.bool_] = ~outside[labels]
    return filled
