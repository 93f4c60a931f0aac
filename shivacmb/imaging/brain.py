"""Brain masks: one that is given, brought onto the isotropic grid; and whether it can be one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
import numpy.typing as npt

from shivacmb.exceptions import DataError
from shivacmb.imaging.reorient import reorient_to_std
from shivacmb.imaging.resample import resample_isotropic
from shivacmb.imaging.same import same_grid
from shivacmb.imaging.source import reading_problem

MIN_BRAIN_ML = 100.0
_Read = TypeVar('_Read')


def read_mask(path: Path) -> Any:
    """Read a mask file.

    Returns
    -------
    Nifti1Image
        uint8: 1 where the file is above 0. nibabel takes no array of 64-bit integers, which many
        programs write.

    Raises
    ------
    DataError
        If it cannot be read, or is not one 3-D volume of numbers.
    TemporaryError
        If its file server fails.
    """
    image, values = _opened(path, lambda image: np.asarray(image.dataobj))
    inside = (values.reshape(values.shape[:3]) > 0).astype(np.uint8)
    return nib.Nifti1Image(inside, image.affine)


def check_mask_header(path: Path, scan: Any) -> None:
    """Refuse a mask of which its header tells that it is not one of the scan.

    Parameters
    ----------
    path : Path
        The mask; its voxels are not read.
    scan : Nifti1Image
        The scan it is given for; its voxels are not looked at.

    Raises
    ------
    DataError
        If the header cannot be read, or tells of several volumes or of another grid.
    TemporaryError
        If the file server fails.
    """
    mask, _ = _opened(path, lambda image: image)
    _check_same(mask, scan, f'<{path}>')


def _opened(path: Path, read: Callable[[Any], _Read]) -> tuple[Any, _Read]:
    """Open a mask and read something of one volume from it, or say why that cannot be."""
    try:
        # Not mapped: a file that shrinks meanwhile would end the process without a word
        image: Any = nib.load(path, mmap=False)
        content = read(image)
        shape = tuple(int(size) for size in image.shape)  # a surface has none
    except MemoryError:
        raise
    except Exception as error:
        problem = reading_problem(path, error)
        if problem is not None:
            raise problem from error
        raise DataError(
            f'the brain mask <{path}> cannot be read ({error}); replace it or leave it out'
        ) from error
    if len(shape) < 3 or np.prod(shape) != np.prod(shape[:3]):
        raise DataError(
            f'the brain mask <{path}> is not one 3-D volume but {shape}; give one volume'
        )
    if image.get_data_dtype().kind not in 'biuf':
        raise DataError(
            f'the brain mask <{path}> holds colours or complex values; give one of plain numbers'
        )
    return image, content


def given_mask(mask: Any, scan: Any, voxel_mm: float, name: str) -> npt.NDArray[np.bool_]:
    """Bring a mask from the grid of the scan onto the isotropic grid, nearest neighbour.

    Parameters
    ----------
    mask : Nifti1Image
        Above 0 inside the brain.
    scan : Nifti1Image
        The scan it belongs to, on its own grid.
    voxel_mm : float
        Isotropic voxel size, mm.
    name : str
        What to call the mask in messages.

    Returns
    -------
    (X, Y, Z) bool ndarray
        On the grid of the reoriented, resampled scan.

    Raises
    ------
    DataError
        If the two have different grids.
    """
    _check_same(mask, scan, name)
    header = scan.header.copy()
    header.set_data_dtype(np.uint8)
    values = (np.asarray(mask.dataobj).reshape(scan.shape) > 0).astype(np.uint8)
    on_scan = nib.Nifti1Image(values, scan.affine, header)
    resampled = resample_isotropic(reorient_to_std(on_scan), voxel_mm, 'nearest')
    return np.asarray(resampled.dataobj) > 0


def _check_same(mask: Any, scan: Any, name: str) -> None:
    if not same_grid(mask, scan):
        raise DataError(
            f'the brain mask {name} has another grid than its scan: {mask.shape} voxels against '
            f'{scan.shape}, or another position in space; resample it to the scan'
        )


def check_brain(mask: npt.NDArray[np.bool_], voxel_mm: float, source: str) -> None:
    """Refuse a mask that cannot be a brain.

    Parameters
    ----------
    mask : (X, Y, Z) bool ndarray
        On an isotropic grid.
    voxel_mm : float
        Voxel size, mm.
    source : str
        Where the mask comes from, for the message.

    Raises
    ------
    DataError
        If it covers less than 100 mL; the smallest adult brains measure about 900 mL, and a slab
        that shows a ninth of one cannot be counted.
    """
    volume = float(np.count_nonzero(mask)) * voxel_mm**3 / 1e3
    if volume < MIN_BRAIN_ML:
        raise DataError(
            f'the brain mask ({source}) covers only {volume:.0f} mL; look at the scan, and give '
            'another mask (--help lists the options for masks)'
        )
