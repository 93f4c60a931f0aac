"""Several images of one acquisition as the channels of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError
from shivacmb.imaging.box import Box, crop
from shivacmb.imaging.intensity import scale_intensity
from shivacmb.imaging.same import same_grid


def on_grid_of(
    image: nib.Nifti1Image, scan: nib.Nifti1Image, name: str, scan_name: str
) -> nib.Nifti1Image:
    """Give an image the header of the scan whose grid it lies on.

    Rounding of the affine would otherwise shift one channel against another.

    Parameters
    ----------
    image, scan : Nifti1Image
        3-D.
    name, scan_name : str
        For the message.

    Raises
    ------
    DataError
        If the grids differ.
    """
    if not same_grid(image, scan):
        raise DataError(
            f'{name} has another grid than {scan_name}: {image.shape} voxels against '
            f'{scan.shape}, or another position in space; resample it to that image'
        )
    return nib.Nifti1Image(np.asarray(image.dataobj), scan.affine, scan.header)


def scale_channels(
    images: Sequence[Any],
    mask: npt.NDArray[Any],
    box: Box,
    *,
    names: Sequence[str] = (),
    **how: Any,
) -> npt.NDArray[np.float32]:
    """Scale each image by its own percentile in the brain, crop and stack.

    Parameters
    ----------
    images : sequence of (X, Y, Z) array
        On the isotropic grid.
    mask : (X, Y, Z) ndarray
        Brain.
    box : Box
        Of the network.
    names : sequence of str, optional
        What to call the images in messages.
    **how
        For :func:`shivacmb.imaging.scale_intensity`.

    Returns
    -------
    (X, Y, Z, C) float32 ndarray
        In the box.

    Raises
    ------
    DataError
        If an image cannot be scaled.
    """
    scaled = []
    for number, image in enumerate(images):
        try:
            whole = scale_intensity(np.asarray(image, np.float32), mask, **how)
        except DataError as error:
            if not names:
                raise
            raise DataError(f'{names[number]}: {error}') from error
        scaled.append(crop(whole, box))
    return np.stack(scaled, axis=-1)
