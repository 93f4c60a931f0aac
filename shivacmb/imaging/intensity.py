"""Step 7: the scale of intensities that the network expects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError


def scale_intensity(
    array: npt.NDArray[np.floating],
    mask: npt.NDArray[np.generic],
    *,
    percentile: float = 99.0,
    clip: float = 1.0,
    divide: float = 1.0,
    masked: bool = False,
) -> npt.NDArray[np.float32]:
    """Set a percentile of the brain to 1, cut what is higher or negative.

    Two recipes exist for the same family of networks: Tsuchida 2024 clips at 1 (``clip=1,
    divide=1``); SHiVAi clips at 1.3 times the percentile and divides by 1.3.

    Parameters
    ----------
    array : (X, Y, Z) ndarray of float
        The image.
    mask : (X, Y, Z) ndarray
        Non-zero inside the brain.
    percentile : float
        Of the values inside the mask, linear between ranks.
    clip : float
        Highest value kept, in units of the percentile.
    divide : float
        Divisor after the clip.
    masked : bool
        Set voxels outside the mask to zero.

    Returns
    -------
    (X, Y, Z) ndarray of float32
        Between 0 and ``clip / divide``.

    Raises
    ------
    DataError
        If the mask is empty or the percentile is not above zero.
    """
    brain = mask != 0
    values = array[brain]
    if values.size == 0:
        raise DataError('the brain mask is empty; look at the scan or give another mask')
    top = float(np.percentile(values, percentile))
    if not top > 0:
        raise DataError(
            f'the {percentile:g}th percentile of the brain is {top:g}: the image is empty or '
            'negative there; is it a phase image, or is the mask in the wrong place?'
        )
    scaled = np.clip(array / np.float32(top), 0, clip).astype(np.float32, copy=False)
    if divide != 1:
        scaled /= np.float32(divide)
    if masked:
        scaled *= brain
    return scaled
