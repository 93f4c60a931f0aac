"""Reorientation to the axis order of the MNI template, as ``fslreorient2std`` does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation

from shivacmb.imaging.grid import (
    _std_ornt,
    fsl_header,
    move_forms,
    spatial_shape,
    std_to_input_map,
    voxel_sizes,
)

# Types that FSL 6.0.0 writes for each type it reads; all others become float32.
_WRITTEN: dict[str, type[np.generic]] = {
    'uint8': np.uint8,
    'int8': np.uint8,
    'int16': np.int16,
    'int32': np.int32,
    'uint16': np.int32,
    'float32': np.float32,
    'float64': np.float64,
}


def scaled_volume(img: Any) -> npt.NDArray[Any]:
    """Return the one volume of ``img`` as FSL reads it: raw values, or scaled float32.

    Scaling is done in float32 (in float64 for float64 data); a slope of 0 means none.
    """
    shape = spatial_shape(img)
    proxy = img.dataobj
    slope, inter = 1.0, 0.0
    raw: npt.NDArray[Any]
    if hasattr(proxy, 'get_unscaled'):
        raw, slope, inter = proxy.get_unscaled(), float(proxy.slope), float(proxy.inter)
    else:
        raw = np.asanyarray(proxy)
    raw = raw.reshape(shape, order='F') if raw.ndim > 3 else raw
    if (slope, inter) == (1.0, 0.0) or slope == 0.0 or not np.isfinite([slope, inter]).all():
        return raw
    kind = np.float64 if raw.dtype == np.float64 else np.float32
    values: npt.NDArray[Any] = raw.astype(kind)
    values *= kind(slope)
    values += kind(inter)
    return values


def written_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type FSL writes for an image of type ``dtype``."""
    return np.dtype(_WRITTEN.get(dtype.newbyteorder('=').name, np.float32))


def c_cast(values: npt.NDArray[Any], stored: np.dtype[Any]) -> npt.NDArray[Any]:
    """Cast as C does: integers are truncated toward zero and wrap around, never clipped.

    An integer image that spans less than 1.5 (a mask) becomes float32 instead.
    """
    target = written_dtype(stored)
    if target.kind == 'f':
        return values.astype(target, copy=False)
    if values.size and float(values.max()) - float(values.min()) < 1.5:
        return values.astype(np.float32)
    if values.dtype.kind == 'f':
        fits = np.iinfo(target)
        if fits.min <= values.min() and values.max() <= fits.max:
            return values.astype(target)
        values = values.astype(np.int64)
    return values.astype(target, copy=False)


def reorient_to_std(img: Any) -> Any:
    """Permute and reverse voxel axes to RAS or LAS, as ``fslreorient2std`` (FSL 6.0.0).

    Handedness is kept: a positive determinant becomes RAS, a negative one LAS. World
    positions stay the same. An image already in that order is returned as it is.

    Parameters
    ----------
    img : Nifti1Image
        One volume, any orientation.

    Returns
    -------
    Nifti1Image
        The reoriented image; type and header follow FSL's rules.

    Raises
    ------
    DataError
        If both codes are 0, the affine is singular, or there are several volumes.
    """
    to_input = std_to_input_map(img)
    if np.array_equal(to_input, np.eye(4)):
        return img
    values = apply_orientation(scaled_volume(img), _std_ornt(img))
    values = c_cast(values, img.get_data_dtype())
    header = fsl_header(img.header, values.shape, values.dtype, like_flirt=False)
    header.extensions.extend(img.header.extensions)
    order = np.argmax(np.abs(to_input[:3, :3]), axis=0)
    move_forms(header, to_input, voxel_sizes(img.header)[order])
    return img.__class__(values, header.get_best_affine(), header)
