"""Open the files of a pair and turn both sides into lesions on one grid."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage

from shivacmb.bids.channels import bare_name
from shivacmb.evaluate.lists import (
    NAME_COLUMNS,
    NOT_HERE,
    Listed,
    in_folder,
    read_points,
    read_rows,
    zone_of,
)
from shivacmb.evaluate.objects import (
    Objects,
    close_together,
    from_labels,
    from_mask,
    from_points,
    from_probability,
    voxel_mm3,
)
from shivacmb.evaluate.pairs import Pair, Source
from shivacmb.evaluate.unfound import option
from shivacmb.exceptions import DataError
from shivacmb.imaging import same_grid

Array = npt.NDArray[Any]
_COMPONENTS = ('mask', 'probability')
_LEAST_MM3 = 1e-6


@dataclass(frozen=True)
class HowToRead:
    """Choices of reading.

    Attributes
    ----------
    class_value : int or None
        Voxels of this value make the class; its lesions are connected components.
    connectivity : {6, 18, 26}
        Of components.
    merge : bool
        Ignore the values of a label map and take connected components.
    threshold, min_voxels : float, int
        For probability maps.
    resample : {'none', 'truth', 'predictions'}
        Which side may be brought to the other's grid when they differ.
    point_radius_mm : float or None
        Of points whose table has no radius.
    """

    class_value: int | None = None
    connectivity: int = 26
    merge: bool = False
    threshold: float = 0.4
    min_voxels: int = 1
    resample: str = 'none'
    point_radius_mm: float | None = None


@dataclass(frozen=True)
class Sides:
    """Both sides of a scan, ready to be matched.

    Attributes
    ----------
    pred, truth : Objects or None
        On one grid; None where only the number is known.
    n_pred, n_truth : int
        Numbers of lesions.
    pred_zones, truth_zones : tuple of str
        One per lesion, ``n/a`` where not known.
    notes : tuple of str
        What a reader should know.
    """

    pred: Objects | None
    truth: Objects | None
    n_pred: int
    n_truth: int
    pred_zones: tuple[str, ...] = ()
    truth_zones: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def open_image(path: Path, side: str) -> Any:
    """Open a 3-D image without reading its voxels.

    Raises
    ------
    DataError
        If it is not here or cannot be opened, holds colours or complex numbers, has more than one
        volume, or its header does not say where its voxels lie.
    """
    if path.is_symlink() and not path.exists():
        raise DataError(f'<{path}> ({side}) {NOT_HERE}')
    try:
        image: Any = nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f'<{path}> ({side}) is no NIfTI image that can be read ({error})'
        ) from error
    if image.get_data_dtype().kind not in 'biuf':
        raise DataError(
            f'<{path}> ({side}) holds colours or complex numbers; save the label map itself, with '
            'one number per voxel, not a picture of it'
        )
    if not np.isfinite(image.affine).all() or voxel_mm3(image.affine) < _LEAST_MM3:
        raise DataError(
            f'<{path}> ({side}) has an affine under which voxels have no volume; its header is '
            'broken: convert the image again, or copy the header of the scan that it was made on'
        )
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise DataError(
            f'<{path}> ({side}) has the shape {"x".join(map(str, image.shape))}; one 3-D volume '
            'is needed: write the volume of this class to a file of its own'
        )
    return image


def values_of(image: Any, path: Path, side: str) -> Array:
    """Read the voxels of a 3-D image.

    Raises
    ------
    DataError
        If the file is damaged or holds values that are not numbers.
    """
    try:
        _check_sum(path)
        values: Array = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f'<{path}> ({side}) is damaged ({error}); copy it again') from error
    values = values.reshape(values.shape[:3], order='F')
    if values.dtype.kind == 'f' and not np.isfinite(values).all():
        raise DataError(f'<{path}> ({side}) holds values that are not numbers (NaN or infinity)')
    return values


def _check_sum(path: Path) -> None:
    """Read a compressed file to the checksum at its end: nibabel stops at the last voxel."""
    with path.open('rb') as stream:
        if stream.read(2) != b'\x1f\x8b':
            return
    with gzip.open(path) as unpacked:
        try:
            while unpacked.read(1 << 20):
                pass
        except gzip.BadGzipFile as error:
            # other bytes after a checksum that was right, as transfers leave them: no damage
            if not str(error).startswith('Not a gzipped file'):
                raise


def _objects(source: Source, image: Any, side: str, how: HowToRead, notes: list[str]) -> Objects:
    """Lesions of an image on its own grid."""
    values = values_of(image, source.path, side)
    affine = np.asarray(image.affine, np.float64)
    if source.kind == 'probability':
        _check_probability(values, source.path)
        return from_probability(
            values, affine, threshold=how.threshold, min_voxels=how.min_voxels,
            connectivity=how.connectivity,
        )  # fmt: skip
    if values.dtype.kind == 'f':
        if not np.array_equal(values, np.rint(values)):
            raise DataError(
                f'<{source.path}> ({side}) holds numbers that are not whole, so it is no label '
                f'map; if it holds probabilities, say --{option(side)}-kind probability and '
                '--threshold'
            )
        values = values.astype(np.int32)
    if values.size and values.min() < 0:
        raise DataError(f'<{source.path}> ({side}) holds negative numbers; a label map has none')
    if how.class_value is not None:
        return from_mask(values == how.class_value, affine, how.connectivity)
    value = int(values.max(initial=0))
    components = source.kind == 'mask' or how.merge
    if not components and (source.kind != 'auto' or _several(values, value)):
        return from_labels(values, affine)
    found = from_mask(values, affine, how.connectivity)
    if components or (len(found) > 1 and not _parts_of_one(source, found, value, side, notes)):
        return replace(found, cut=len(found) > 1)
    return from_labels(values, affine)


def _several(values: Array, largest: int) -> bool:
    """Whether a map has more than one value beside 0, so that its values tell lesions apart."""
    return largest > 1 and bool(((values != 0) & (values != largest)).any())


def _parts_of_one(source: Source, parts: Objects, value: int, side: str, notes: list[str]) -> bool:
    """Whether the parts of a map of one value are one lesion, by the table beside it.

    A reader who adds lesions to the map of a scan with one, in the same value, leaves its table
    as it was: parts that lie far from one another are no longer the lesion that it knows.
    """
    if not _is_lesion(source.path, value):
        return False
    one = close_together(parts)
    notes.append(
        f'{side}: {len(parts)} parts count as one lesion, the only one that the table beside '
        f'<{source.path.name}> knows'
        if one
        else f'{side}: the table beside <{source.path.name}> knows one lesion, but the '
        f'{len(parts)} parts of the map lie too far apart for that and count as one each; give '
        'each lesion a value of its own if that is not right'
    )
    return one


def _check_probability(values: Array, path: Path) -> None:
    if values.min(initial=0) < -1e-6 or values.max(initial=0) > 1 + 1e-6:
        raise DataError(f'<{path}> holds values outside 0 to 1, so it is no probability map')


def read_sides(pair: Pair, how: HowToRead) -> Sides:
    """Read both sides of a scan.

    Raises
    ------
    DataError
        If a file is broken or unsuitable, or the grids differ and no side may be resampled.
    """
    lists = [_listed(pair.pred), _listed(pair.truth)]
    numbers_only = [source.kind == 'counts' for source in (pair.pred, pair.truth)]
    images = [
        None if listed is not None else open_image(source.path, side)
        for source, side, listed in zip(
            (pair.pred, pair.truth), ('predictions', 'truth'), lists, strict=True
        )
    ]
    if any(numbers_only):
        notes: list[str] = []
        counts = [
            listed.count if listed is not None
            else len(_objects(source, image, side, how, notes))
            for listed, image, source, side in zip(
                lists, images, (pair.pred, pair.truth), ('predictions', 'truth'), strict=True
            )
        ]  # fmt: skip
        return Sides(None, None, counts[0], counts[1], notes=tuple(notes))
    pred, truth, notes = _on_one_grid(pair, lists, images, how)
    pred_zones, scores = _beside(pair.pred, pred, lists[0], how)
    truth_zones, _ = _beside(pair.truth, truth, lists[1], how)
    if scores is not None:
        pred = replace(pred, scores=scores)
    return Sides(pred, truth, len(pred), len(truth), pred_zones, truth_zones, tuple(notes))


def _listed(source: Source) -> Listed | None:
    if source.listed is not None:
        return source.listed
    return read_points(source.path) if source.kind == 'points' else None


def _on_one_grid(
    pair: Pair, lists: list[Listed | None], images: list[Any], how: HowToRead
) -> tuple[Objects, Objects, list[str]]:
    notes: list[str] = []
    first, second = images
    if first is not None and second is not None:
        if same_grid(first, second):
            return (
                _objects(pair.pred, first, 'predictions', how, notes),
                _objects(pair.truth, second, 'truth', how, notes),
                notes,
            )
        _refuse_grids(pair, first, second, how)
        pred = _objects(pair.pred, first, 'predictions', how, notes)
        truth = _objects(pair.truth, second, 'truth', how, notes)
        was = 'was' if how.resample == 'truth' else 'were'
        notes.append(f'the {how.resample} {was} resampled to the other grid, nearest neighbour')
        fixed, moving = (pred, truth) if how.resample == 'truth' else (truth, pred)
        moved = to_grid(moving, fixed.shape, fixed.affine)
        if len(moved) < len(moving):
            notes.append(f'{len(moving) - len(moved)} of them lie outside it and are gone')
        return (pred, moved, notes) if how.resample == 'truth' else (moved, truth, notes)
    if first is not None:
        pred = _objects(pair.pred, first, 'predictions', how, notes)
        return pred, _points(lists[1], pred.shape, pred.affine, how, notes), notes
    if second is not None:
        truth = _objects(pair.truth, second, 'truth', how, notes)
        return _points(lists[0], truth.shape, truth.affine, how, notes), truth, notes
    shape, affine = _grid_around(lists)
    notes.append('both sides are points: a grid of 1 mm was laid around them')
    return (
        _points(lists[0], shape, affine, how, notes),
        _points(lists[1], shape, affine, how, notes),
        notes,
    )


def _refuse_grids(pair: Pair, first: Any, second: Any, how: HowToRead) -> None:
    if how.resample != 'none':
        return
    sizes = [
        f'{"x".join(map(str, image.shape))} voxels of '
        f'{"x".join(f"{size:.3g}" for size in image.header.get_zooms()[:3])} mm'
        for image in (first, second)
    ]
    raise DataError(
        f'The grids differ: <{pair.pred.path}> has {sizes[0]}, <{pair.truth.path}> has {sizes[1]}'
        ', or they lie elsewhere in space. Give both on one grid, or allow --resample truth or '
        '--resample predictions'
    )


def _points(
    listed: Listed | None, shape: Any, affine: Array, how: HowToRead, notes: list[str]
) -> Objects:
    assert listed is not None  # noqa: S101 - one of image and list is always there
    radii = np.array(listed.radii)
    if how.point_radius_mm is not None:
        radii = np.where(radii > 0, radii, how.point_radius_mm)
    found = from_points(np.array(listed.points).reshape(-1, 3), shape, affine, radii)
    outside = len(found) - len(np.unique(found.owners))
    if outside:
        notes.append(f'{outside} point(s) have no voxel of the grid to themselves')
    return replace(found, names=np.array(listed.names, np.int64))


def _grid_around(lists: list[Listed | None]) -> tuple[tuple[int, int, int], Array]:
    points = np.array([point for item in lists if item for point in item.points]).reshape(-1, 3)
    low = np.floor(points.min(axis=0)) - 12 if len(points) else np.zeros(3)
    high = np.ceil(points.max(axis=0)) + 12 if len(points) else np.ones(3)
    affine = np.eye(4)
    affine[:3, 3] = low
    size = (high - low).astype(int) + 1
    return (int(size[0]), int(size[1]), int(size[2])), affine


def to_grid(objects: Objects, shape: tuple[int, int, int], affine: Array) -> Objects:
    """Bring lesions to another grid, nearest neighbour.

    Parameters
    ----------
    objects : Objects
        On their own grid.
    shape, affine
        The other grid.

    Returns
    -------
    Objects
        Every lesion whose centre lies on the grid keeps at least one voxel, also on thick slices:
        the nearest to its centre that is not another's last. One outside the grid is gone. Voxels
        and centres are those of the other grid, volumes those that the lesions had: a small one
        would grow to a whole voxel of thick slices, and rules that leave out small ones count it.
    """
    labels: Array = np.zeros(int(np.prod(objects.shape)), np.int32)
    labels[objects.voxels] = objects.owners + 1
    labels = labels.reshape(objects.shape, order='F')
    there = np.linalg.inv(objects.affine) @ np.asarray(affine, np.float64)
    moved = np.asarray(
        ndimage.affine_transform(
            labels, there[:3, :3], there[:3, 3], output_shape=shape, order=0, mode='constant'
        )
    )
    back = np.linalg.inv(there)
    sizes = np.bincount(moved[moved > 0], minlength=len(objects) + 1)
    for number in np.flatnonzero(sizes[1:] == 0) + 1:
        centre = back[:3, :3] @ objects.centres[number - 1] + back[:3, 3]
        place = _free_voxel(moved, sizes, centre, affine)
        if place is not None:
            sizes[moved[place]] -= 1
            moved[place] = number
            sizes[number] = 1
    found = from_labels(moved, affine)
    old = found.names - 1
    return replace(
        found, names=objects.names[old], scores=objects.scores[old], cut=objects.cut,
        volumes_mm3=objects.volumes_mm3[old], amounts_mm3=objects.amounts_mm3[old],
    )  # fmt: skip


def _free_voxel(
    labels: Array, sizes: Array, centre: Array, affine: Array
) -> tuple[int, int, int] | None:
    """Nearest voxel to a point that is empty or not the last of another lesion."""
    nearest = np.floor(centre + 0.5).astype(int)
    if ((nearest < 0) | (nearest >= np.array(labels.shape))).any():
        return None
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing='ij'), axis=-1).reshape(-1, 3)
    around = nearest + steps
    around = around[((around >= 0) & (around < np.array(labels.shape))).all(axis=1)]
    away = np.linalg.norm((around - centre) @ np.asarray(affine)[:3, :3].T, axis=1)
    for i, j, k in around[np.argsort(away, kind='stable')].tolist():
        if labels[i, j, k] == 0 or sizes[labels[i, j, k]] > 1:
            return i, j, k
    return None


def _beside(
    source: Source, objects: Objects, listed: Listed | None, how: HowToRead
) -> tuple[tuple[str, ...], Array | None]:
    """Zones and probabilities of the table beside a label map."""
    unknown = ('n/a',) * len(objects)
    if listed is not None:
        return listed.zones or unknown, None
    components = how.merge or how.class_value is not None or source.kind in _COMPONENTS
    if components or objects.cut:
        return unknown, None  # components have no number that a table could know
    by_name = _rows_by_name(source.path)
    if not by_name:
        return unknown, None
    mine = [by_name.get(int(value), {}) for value in objects.names]
    zones = tuple(zone_of(row) for row in mine)
    if not any('p_max' in row for row in mine) or not np.isnan(objects.scores).all():
        return zones, None
    return zones, np.array([_float(row.get('p_max', '')) for row in mine])


def _rows_by_name(path: Path) -> dict[int, dict[str, str]]:
    """Rows of the table beside a label map by the value that each is about; none without one."""
    table = path.with_name(f'{bare_name(path)}.tsv')
    if not in_folder(table):
        return {}
    header, rows = read_rows(table)
    name = next((column for column in NAME_COLUMNS if column in header), None)
    if name is None:
        return {}
    numbered = ((_float(row[name]), row) for row in rows)  # 1, 01, or 1.0 as pandas writes it
    return {int(number): row for number, row in numbered if number.is_integer()}


def _is_lesion(path: Path, value: int) -> bool:
    """Tell whether the table beside a map of one value is about lesions and knows that value.

    Of the value 1 it has to know nothing else: a map of ones is mostly all lesions together.
    Simulated truth also lists lesions that cannot be seen and are in no map. A table without
    places is none of lesions: the look-up table of BIDS names a value, which all lesions together
    may have.
    """
    rows = {
        name: row for name, row in _rows_by_name(path).items() if row.get('visible') != 'false'
    }
    mine = rows.get(value, {})
    return {'x', 'y', 'z'} <= mine.keys() and (value > 1 or len(rows) == 1)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float('nan')


def read_probability(path: Path, like: Objects, how: HowToRead) -> Array:
    """Read a probability map on the grid of the truth, linear when it must be resampled.

    Raises
    ------
    DataError
        If it is broken, or its grid differs and no side may be resampled.
    """
    image = open_image(path, 'predictions')
    values = np.asarray(values_of(image, path, 'predictions'), np.float32)
    _check_probability(values, path)
    target = nib.Nifti1Image(np.zeros(like.shape, np.uint8), like.affine)
    if same_grid(image, target):
        return values
    if how.resample == 'none':
        raise DataError(
            f'The grid of <{path}> differs from that of the truth. Give both on one grid, or '
            'allow --resample truth or --resample predictions'
        )
    there = np.linalg.inv(image.affine) @ like.affine
    return np.asarray(
        ndimage.affine_transform(
            values, there[:3, :3], there[:3, 3], output_shape=like.shape, order=1
        )
    )
