"""Files of simulated datasets: images, tables and sidecars with the same bytes every time."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import write_text
from shivacmb.exceptions import OutputError
from shivacmb.processes import left_behind, temporary_name

Array = NDArray[Any]


def write_image(
    path: Path,
    array: Array,
    affine: Array,
    *,
    slope: float = 1.0,
    axes: str | None = None,
    level: int = 4,
) -> None:
    """Write a compressed NIfTI image with fixed bytes: no time and no name in its gzip header.

    Parameters
    ----------
    path : Path
        Ends in ``.nii.gz``; the folder exists.
    array : ndarray, integer [X, Y, Z]
        Stored values.
    affine : ndarray, float64 [4, 4]
        Voxel to scanner RAS mm.
    slope : float
        Value of one stored unit.
    axes : str, optional
        Turn the voxel axes to these, such as ``'LAS'``, before writing.
    level : int
        Effort of the compression, 1 to 9; noise does not get smaller with more than 4.
    """
    if axes is not None:
        array, affine = reorient(array, affine, axes)
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_zooms(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header.set_xyzt_units('mm', 'sec')
    header['magic'], header['vox_offset'] = b'n+1', 352
    header['scl_slope'], header['scl_inter'] = slope, 0
    content = header.binaryblock + bytes(4) + array.tobytes(order='F')
    path.write_bytes(gzip.compress(content, level, mtime=0))


def reorient(array: Array, affine: Array, axes: str) -> tuple[Array, Array]:
    """Turn the voxel axes of an image to the given ones; the affine follows.

    Parameters
    ----------
    array : ndarray [X, Y, Z]
    affine : ndarray, float64 [4, 4]
        Voxel to scanner RAS mm.
    axes : str
        Such as ``'LAS'``: where each axis points.

    Returns
    -------
    array : ndarray
        The same voxels.
    affine : ndarray, float64 [4, 4]
    """
    change = _change(affine, axes)
    back = nib.orientations.inv_ornt_aff(change, array.shape)
    return nib.orientations.apply_orientation(array, change), affine @ back


def reorient_vector(vector: Sequence[float], affine: Array, axes: str) -> list[float]:
    """Turn a vector along the voxel axes of an image as :func:`reorient` turns the image.

    Parameters
    ----------
    vector : sequence of three float
    affine, axes
        As there.

    Returns
    -------
    list of float
        Along the axes of the turned image.
    """
    turned = [0.0] * 3
    for value, (axis, sign) in zip(vector, _change(affine, axes), strict=True):
        turned[int(axis)] = float(sign * value)
    return turned


def _change(affine: Array, axes: str) -> Array:
    return np.asarray(
        nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes))
        )
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a sidecar, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a tab-separated table, whole or not at all; NaN and None become ``n/a``."""
    lines = ['\t'.join(columns), *('\t'.join(cell(value) for value in row) for row in rows)]
    write_text(path, '\n'.join(lines) + '\n')


def cell(value: Any) -> str:
    """One cell of a BIDS table."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return 'n/a'
    if isinstance(value, (bool, np.bool_)):
        return 'true' if value else 'false'
    return str(value)


@contextlib.contextmanager
def staging(folder: Path, name: str) -> Iterator[Path]:
    """Give an empty folder ``.tmp-...`` within ``folder`` that is gone afterwards.

    Raises
    ------
    OutputError
        When something in it cannot be written.
    """
    stage = folder / temporary_name(name)
    try:
        stage.mkdir(parents=True)
        yield stage
    except OSError as error:
        raise OutputError(
            f'cannot write <{error.filename or folder}> ({error.strerror or error}): free space, '
            'or give an output folder that you may write to'
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def remove_stale_stages(folder: Path) -> None:
    """Remove what a killed run of this machine left in ``folder``."""
    for path in left_behind(folder):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def settle(stage: Path, target: Path) -> None:
    """Rename a finished folder to its place; what lay there of an unfinished run goes."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    stage.replace(target)
