"""Where voxels are: FSL's rules for handedness, reorientation and isotropic grids.

The rules were measured on FSL 6.0.0 and are told in
``docs/decisions/0010-native-toolkit-follows-fsl.md``. Maps are 4x4 matrices between voxel
coordinates, so that they hold whichever of sform and qform is the right one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from shivacmb.exceptions import DataError

Affine = npt.NDArray[np.float64]
Shape3 = tuple[int, int, int]

FSL_DESCRIP = b'6.0.0'  # what the FSL release that is reproduced writes into descrip
UNITS_MM_SEC = 10


def image_name(img: Any) -> str:
    """Name an image for a message: its file in ``<>``, or ``image in memory``."""
    name = img.get_filename()
    return f'<{name}>' if name else '<image in memory>'


def sform_of(header: Any) -> Affine:
    """Return the sform as (4, 4) float64 whatever its code."""
    return np.asarray(header.get_sform(), dtype=np.float64)


def qform_of(header: Any) -> Affine:
    """Return the qform as (4, 4) float64 whatever its code.

    Raises
    ------
    DataError
        If the quaternion in the header is no rotation.
    """
    if header['pixdim'][0] == 0:
        # the standard: "should not occur", and counts as 1; nibabel takes 1 and -1 alone
        header = header.copy()
        header['pixdim'][0] = 1.0
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError) as error:
        msg = 'The qform quaternion in the header is not a rotation; fix it or set qform_code to 0'
        raise DataError(msg) from error


def coded_forms(header: Any) -> dict[str, Affine]:
    """Return the forms whose code is above 0: keys among ``sform``, ``qform``, in that order."""
    forms = {}
    if int(header['sform_code']) > 0:
        forms['sform'] = sform_of(header)
    if int(header['qform_code']) > 0:
        forms['qform'] = qform_of(header)
    return forms


def is_neurological(header: Any) -> bool:
    """Say whether FSL reverses the first voxel axis of this image before it works on it.

    True for a positive determinant of the form in use (sform before qform). Without codes FSL
    assumes radiological; with two forms of opposite handedness it does not flip either.
    """
    signs = [np.linalg.det(form[:3, :3]) > 0 for form in coded_forms(header).values()]
    return bool(signs) and all(bool(sign) for sign in signs)


def voxel_sizes(header: Any) -> npt.NDArray[np.float32]:
    """Return the three voxel sizes in mm, absolute values, as the float32 of the header."""
    sizes: npt.NDArray[np.float32] = np.abs(header['pixdim'][1:4]).astype(np.float32)
    return sizes


def spatial_shape(img: Any) -> Shape3:
    """Return the shape of the one volume of ``img``, or raise DataError if it has several."""
    shape = tuple(int(n) for n in img.shape)
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        msg = f'{image_name(img)} has shape {shape}; one 3-D volume is needed'
        raise DataError(msg)
    return shape[0], shape[1], shape[2]


def std_to_input_map(img: Any) -> Affine:
    """Map voxels of the reoriented image to voxels of ``img``.

    Parameters
    ----------
    img : Nifti1Image
        The image as it came.

    Returns
    -------
    (4, 4) float64 ndarray
        A permutation and reversal of axes: reoriented voxel -> input voxel.

    Raises
    ------
    DataError
        If neither form has a code, or the form in use is singular.
    """
    return inv_ornt_aff(_std_ornt(img), spatial_shape(img))  # type: ignore[no-any-return]


def _std_ornt(img: Any) -> npt.NDArray[np.float64]:
    """Orientation transform (nibabel's convention) from ``img`` to LAS or RAS."""
    forms = coded_forms(img.header)
    if not forms:
        msg = (
            f'{image_name(img)} has sform and qform codes 0, so its orientation is unknown; '
            'convert it again from DICOM, or set a code once you know which side is left'
        )
        raise DataError(msg)
    affine = next(iter(forms.values()))
    det = np.linalg.det(affine[:3, :3])
    ornt = io_orientation(affine) if np.isfinite(det) and det != 0 else np.full((3, 2), np.nan)
    if not np.all(np.isfinite(ornt)):
        msg = (
            f'{image_name(img)} has a singular affine (determinant 0), so its axes cannot be '
            'told apart; convert it again from DICOM'
        )
        raise DataError(msg)
    target = axcodes2ornt('RAS' if det > 0 else 'LAS')
    return ornt_transform(ornt, target)  # type: ignore[no-any-return]


def isotropic_to_std_map(img: Any, voxel_mm: float = 1.0) -> tuple[Shape3, Affine]:
    """Lay FLIRT's isotropic grid over ``img``.

    The size is computed in float32 (``trunc(n / (s / d))``), and the centre of the first voxel
    of the radiological array stays where it is.

    Parameters
    ----------
    img : Nifti1Image
        The reoriented image.
    voxel_mm : float
        Target voxel size in mm.

    Returns
    -------
    shape : tuple of int
        Shape of the isotropic grid.
    to_std : (4, 4) float64 ndarray
        Isotropic voxel -> voxel of ``img``.
    """
    shape = spatial_shape(img)
    steps = np.float32(voxel_mm) / voxel_sizes(img.header)
    sizes = np.array(shape, dtype=np.float32) / steps
    new = [max(1, int(size)) for size in sizes]
    to_std = np.diag([*steps.astype(np.float64), 1.0])
    if is_neurological(img.header):
        to_std[0, 3] = (shape[0] - 1) - float(steps[0]) * (new[0] - 1)
    return (new[0], new[1], new[2]), to_std


def move_forms(header: Any, to_old: Affine, zooms: npt.ArrayLike) -> None:
    """Give ``header`` the forms of a grid whose voxels ``to_old`` maps to the present one.

    Each form keeps its own code; a form with code 0 keeps its numbers.
    """
    forms = coded_forms(header)
    if 'sform' in forms:
        code = int(header['sform_code'])
        header.set_sform(forms['sform'] @ to_old, code=1)
        header['sform_code'] = code  # also one that nibabel has no name for
    if 'qform' in forms:
        code = int(header['qform_code'])
        header.set_qform(forms['qform'] @ to_old, code=1)
        header['qform_code'] = code
    header['pixdim'][1:4] = zooms


def fsl_header(header: Any, shape: Shape3, dtype: npt.DTypeLike, *, like_flirt: bool) -> Any:
    """Copy ``header`` as a program of FSL 6.0.0 does when it writes a new image.

    ``flirt`` also drops the display range; ``fslreorient2std`` keeps it.
    """
    new = header.copy()
    new.extensions.clear()
    new.set_data_shape(shape)
    new.set_data_dtype(dtype)
    new['scl_slope'], new['scl_inter'] = 1, 0
    new['xyzt_units'] = UNITS_MM_SEC
    new['descrip'] = FSL_DESCRIP
    new['intent_name'] = b''
    for field in ('dim_info', 'slice_start', 'slice_end', 'slice_code', 'slice_duration'):
        new[field] = 0
    new['toffset'] = 0
    if like_flirt:
        new['cal_min'] = new['cal_max'] = 0
    return new
