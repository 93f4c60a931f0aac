"""Label maps on the grid of the network, without losing a lesion on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import DataError
from shivacmb.imaging import (
    Box,
    SpatialChain,
    crop,
    reading_problem,
    reorient_to_std,
    resample_isotropic,
    same_grid,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shivacmb.train.dataset import LabelClass

Array = NDArray[Any]

#: Value of voxels that count neither as a lesion nor as background.
IGNORED = 255
#: Largest value of a label map; in floating point larger ones would turn negative as integers.
LARGEST = 2**31 - 1


def read_labels(path: Path, scan: Any) -> Array:
    """Read a label map of a scan.

    Parameters
    ----------
    path : Path
        NIfTI with whole, non-negative numbers.
    scan : Nifti1Image
        The scan.

    Returns
    -------
    ndarray, int64 [I, J, K]
        On the grid of the scan.

    Raises
    ------
    DataError
        It cannot be read, is not one volume, has another grid, or holds something else than
        labels.
    TemporaryError
        Its file server fails.
    """
    try:
        # not mapped: a file that shrinks meanwhile would end the process without a word
        image: Any = nib.load(path, mmap=False)
        values = np.asarray(image.dataobj)
    except MemoryError:
        raise
    except Exception as error:
        problem = reading_problem(path, error)
        if problem is not None:
            raise problem from error
        raise DataError(
            f'the label map <{path}> cannot be read ({error}); replace it, or leave its scan out'
        ) from error
    if values.ndim < 3 or values.size != np.prod(values.shape[:3]):
        raise DataError(
            f'the label map <{path}> is not one 3-D volume but {values.shape}; give one volume'
        )
    if not same_grid(image, scan):
        raise DataError(
            f'the label map <{path}> has another grid than its scan: {image.shape} voxels against '
            f'{scan.shape}, or another position in space; resample it to the scan (nearest '
            'neighbour)'
        )
    if not _are_labels(values):
        raise DataError(
            f'the label map <{path}> holds values that are no labels (negative, fractions, NaN, '
            f'colours or above {LARGEST}); give whole numbers, 0 for background'
        )
    return np.asarray(np.rint(values.reshape(scan.shape)), np.int64)


def _are_labels(values: Array) -> bool:
    if values.dtype.kind not in 'biuf' or not np.isfinite(values).all():
        return False
    whole = np.rint(values)
    near = np.abs(values - whole) <= 1e-3
    return bool(near.all() and float(whole.min()) >= 0 and float(whole.max()) <= LARGEST)


def class_map(
    maps: Sequence[Array],
    classes: Sequence[LabelClass],
    ignore: Sequence[int],
    paths: Sequence[Path],
) -> Array:
    """Combine label maps to one map of classes.

    Parameters
    ----------
    maps : sequence of ndarray, int
        A map for each class.
    classes : sequence of LabelClass
        Names and values.
    ignore : sequence of int
        Values that mean neither.
    paths : sequence of Path
        Of the maps, for messages.

    Returns
    -------
    ndarray, uint8
        1 for the first class, 2 for the second; 255 where ignored. Where maps differ the first
        one that marks or ignores a voxel wins.

    Raises
    ------
    DataError
        A map holds a value that no class names.
    """
    out = np.zeros(maps[0].shape, np.uint8)
    for number in range(len(classes), 0, -1):
        item, values = classes[number - 1], maps[number - 1]
        skip = np.isin(values, ignore) if len(ignore) else np.zeros(values.shape, bool)
        inside = np.isin(values, item.values) if item.values else (values > 0) & ~skip
        if item.values:
            shared = [p for p, path in enumerate(paths) if path == paths[number - 1]]
            known = {0, *ignore, *(v for p in shared for v in classes[p].values)}
            unknown = sorted(set(np.unique(values).tolist()) - known)
            if unknown:
                listed = ', '.join(f'{c.name}={",".join(map(str, c.values))}' for c in classes)
                raise DataError(
                    f'the class list does not match: <{paths[number - 1]}> holds the value '
                    f'{unknown[0]}, and the classes are {listed}; name it with --class or --ignore'
                )
        # of no class at all: as background of this one it would count against a right answer
        out[skip] = IGNORED
        out[inside] = number
    return out


def to_grid(labels: Array, scan: Any, chain: SpatialChain) -> Array:
    """Bring a map of classes from the scan's grid to that of the network, before its box.

    Nearest neighbour; a lesion (26-connected) that falls between the voxels keeps the one nearest
    to its centre, as on the way back (``docs/decisions/0012``).

    Parameters
    ----------
    labels : ndarray, uint8 [I, J, K]
        On the grid of ``scan``.
    scan : Nifti1Image
        The scan.
    chain : SpatialChain
        The way there.

    Returns
    -------
    ndarray, uint8 [X, Y, Z]
        On the isotropic grid.
    """
    header = scan.header.copy()
    header.set_data_dtype(np.uint8)
    image = nib.Nifti1Image(labels.astype(np.uint8), scan.affine, header)
    resampled = resample_isotropic(reorient_to_std(image), chain.voxel_mm, 'nearest')
    out = np.asarray(resampled.dataobj).astype(np.uint8)
    to_iso = np.linalg.inv(chain.iso_to_input)
    lesions = (labels > 0) & (labels != IGNORED)
    for number in np.unique(labels[lesions]).tolist():
        # where each voxel of the network's grid comes from tells which lesions arrived
        parts, count = components(labels == number)
        if not count:
            continue
        moved = nib.Nifti1Image(parts.astype(np.int32), scan.affine, header)
        moved.header.set_data_dtype(np.int32)
        iso = resample_isotropic(reorient_to_std(moved), chain.voxel_mm, 'nearest')
        arrived = set(np.unique(np.asarray(iso.dataobj)).astype(int).tolist())
        for part in sorted(set(range(1, count + 1)) - arrived):
            centre = np.argwhere(parts == part).mean(axis=0)
            voxel = np.rint(to_iso[:3, :3] @ centre + to_iso[:3, 3]).astype(int)
            voxel = np.clip(voxel, 0, np.array(out.shape) - 1)
            out[tuple(voxel)] = number
    return out


def lost(labels: Array, box: Box, number: int) -> int:
    """Count the lesions of a class, on the isotropic grid, of which the box holds nothing."""
    parts, count = components(labels == number)
    return count - int(np.count_nonzero(np.unique(crop(parts, box))))


def components(mask: Array) -> tuple[Array, int]:
    """26-connected components of a mask: labels from 1, and their number."""
    import cc3d

    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    return np.asarray(labels), int(count)
