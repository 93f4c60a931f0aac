"""Headers as FSL reads and writes them: forms, handedness, types."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError

Affine = npt.NDArray[np.float64]

_MM_SEC = 10
_MASK_RANGE = 1.5
_WRITTEN_TYPES = {
    'uint8': np.uint8,
    'int8': np.uint8,
    'int16': np.int16,
    'int32': np.int32,
    'uint16': np.int32,
    'float64': np.float64,
}


def forms(image: nib.Nifti1Image) -> tuple[Affine | None, Affine | None]:
    """Return sform and qform, None for one whose code is not set."""
    header = image.header
    sform = header.get_sform() if int(header['sform_code']) > 0 else None
    qform = header.get_qform() if int(header['qform_code']) > 0 else None
    return sform, qform


def is_neurological(image: nib.Nifti1Image) -> bool:
    """Tell whether FSL reverses the first axis of this image before it works on it.

    Parameters
    ----------
    image : Nifti1Image
        The header alone is looked at.

    Returns
    -------
    bool
        From the sign of the sform's determinant if its code is set, else the qform's; an image
        without codes, or whose two forms disagree, counts as radiological.
    """
    signs = {bool(np.linalg.det(form[:3, :3]) > 0) for form in forms(image) if form is not None}
    return signs == {True}


def scaled_values(image: nib.Nifti1Image) -> npt.NDArray[np.floating]:
    """Return the values of a 3-D image, scaled in float32 (float64 for float64 files)."""
    raw = np.asanyarray(image.dataobj.get_unscaled() if _is_proxy(image) else image.dataobj)
    if raw.size != np.prod(raw.shape[:3]):
        raise DataError(f'expected one volume, got an image of {raw.shape}')
    raw = raw.reshape(raw.shape[:3])
    dtype = np.float64 if raw.dtype == np.float64 else np.float32
    values = raw.astype(dtype)
    if _is_proxy(image):
        slope, inter = image.dataobj.slope, image.dataobj.inter
        if slope != 1 or inter != 0:
            values = values * dtype(slope) + dtype(inter)
    return values


def _is_proxy(image: nib.Nifti1Image) -> bool:
    return bool(nib.is_proxy(image.dataobj))


def typed_image(
    values: npt.NDArray[np.floating], image: nib.Nifti1Image, voxel_map: Affine
) -> nib.Nifti1Image:
    """Wrap resampled values in the header and type that FSL 6.0.0 would write.

    Parameters
    ----------
    values : (X, Y, Z) ndarray
        Scaled values on the new grid.
    image : Nifti1Image
        Where they come from.
    voxel_map : (4, 4) ndarray
        Voxels of the new grid to voxels of ``image``.

    Returns
    -------
    Nifti1Image
        sform and qform are each carried over with their own code. Integers are made by a C cast
        (truncation, no rounding), and an integer image of range below 1.5 becomes float32: both
        are FSL's, and voxel-for-voxel agreement depends on them.
    """
    kind = image.get_data_dtype()
    dtype = np.dtype(_WRITTEN_TYPES.get(kind.name, np.float32))
    if (
        kind.kind != 'f'
        and values.size
        and float(values.max()) - float(values.min()) < _MASK_RANGE
    ):
        dtype = np.dtype(np.float32)
    if dtype.kind in 'iu':
        values = values.astype(np.int64)
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(values.shape)
    old = image.header
    zooms = np.sqrt((voxel_map[:3, :3] ** 2 * np.array(old.get_zooms()[:3])[:, None] ** 2).sum(0))
    header.set_zooms(tuple(float(zoom) for zoom in zooms))
    sform, qform = forms(image)
    if qform is not None:
        header.set_qform(qform @ voxel_map, int(old['qform_code']), strip_shears=True)
    if sform is not None:
        header.set_sform(sform @ voxel_map, int(old['sform_code']))
    header['xyzt_units'] = _MM_SEC
    return nib.Nifti1Image(values.astype(dtype), None, header)
