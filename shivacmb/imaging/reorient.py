"""Step 3: voxel axes in the MNI order, as ``fslreorient2std`` puts them."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from shivacmb.exceptions import DataError
from shivacmb.imaging.header import Affine, forms, scaled_values, typed_image


def _transform(image: nib.Nifti1Image) -> npt.NDArray[np.float64]:
    """Orientation transform that orders the axes and keeps the handedness."""
    sform, qform = forms(image)
    form = sform if sform is not None else qform
    if form is None:
        raise DataError(
            f'<{image.get_filename() or "image"}> has neither an sform nor a qform code: left and '
            'right are unknown; check its orientation and set a code, for example with '
            'fslorient -setsformcode 1'
        )
    target = 'RAS' if np.linalg.det(form[:3, :3]) > 0 else 'LAS'
    transform = ornt_transform(io_orientation(form), axcodes2ornt(tuple(target)))
    return np.asarray(transform, dtype=np.float64)


def std_to_input_map(image: nib.Nifti1Image) -> Affine:
    """Map voxels of the reoriented image to voxels of the image itself.

    Parameters
    ----------
    image : Nifti1Image
        The header alone is looked at.

    Returns
    -------
    (4, 4) ndarray
        A permutation with reversals; the identity when the axes are in order.

    Raises
    ------
    DataError
        If neither the sform nor the qform code is set.
    """
    return np.asarray(inv_ornt_aff(_transform(image), image.shape[:3]), dtype=np.float64)


def reorient_to_std(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Put the voxel axes in the MNI order, keeping the handedness.

    The voxels are those of ``fslreorient2std`` in FSL 6.0.0: LPS becomes RAS, LPI becomes LAS,
    and an image whose axes are in order is returned as it is.

    Parameters
    ----------
    image : Nifti1Image
        3-D, or 4-D with one volume.

    Returns
    -------
    Nifti1Image
        World positions are unchanged.

    Raises
    ------
    DataError
        If neither the sform nor the qform code is set.
    """
    voxel_map = std_to_input_map(image)
    if np.array_equal(voxel_map, np.eye(4)):
        return image
    values = apply_orientation(scaled_values(image), _transform(image))
    return typed_image(values, image, voxel_map)
