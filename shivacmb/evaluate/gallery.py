"""Pictures of what was missed and of what was found where nothing is."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from shivacmb.evaluate.evaluation import Result, ScanResult
from shivacmb.evaluate.objects import Objects
from shivacmb.evaluate.reading import to_grid
from shivacmb.exceptions import DataError
from shivacmb.reports import canvas as c
from shivacmb.reports.canvas import Canvas
from shivacmb.reports.files import write_whole
from shivacmb.reports.views import AXIAL, CORONAL, LETTERS, Volumes, signed, turn_to_ras

Array = npt.NDArray[Any]
TILE, GAP, EDGE, COLUMNS, FIELD_MM, CAPTION = 132, 3, 12, 3, 30.0, 34
MOST = 12
TRUTH, PREDICTION = c.LESION, c.MASK


@dataclass(frozen=True)
class Case:
    """One lesion or prediction to show."""

    scan: ScanResult
    centre_mm: Array
    volume_mm3: float
    score: float
    index: int


def cases(result: Result, kind: str) -> list[Case]:
    """Choose the misses (largest first) or the false positives (most probable, then largest).

    Parameters
    ----------
    result : Result
        One class.
    kind : {'misses', 'false-positives'}
        Which.

    Returns
    -------
    list of Case
        All under the main rule, of scans whose image is known; the picture shows the first.
    """
    rule = result.plan.main_rule
    found: list[Case] = []
    for scan in result.scans:
        if rule is None or not scan.scores or scan.facts.image is None:
            continue
        score = scan.scores[rule.name]
        if kind == 'misses':
            objects, used, hits = scan.sides.truth, score.truth_used, score.match.truth_hit
        else:
            objects, used, hits = scan.sides.pred, score.pred_used, score.match.pred_hit
        if objects is None:
            continue
        for number in np.flatnonzero(used)[~hits]:
            found.append(  # noqa: PERF401 - a comprehension over both loops would be longer
                Case(
                    scan, objects.centres_mm[number], float(objects.volumes_mm3[number]),
                    float(objects.scores[number]), int(objects.names[number]),
                )
            )  # fmt: skip
    return sorted(
        found,
        key=lambda case: (
            -np.nan_to_num(case.score) if kind != 'misses' else 0,
            -np.nan_to_num(case.volume_mm3),
            case.scan.scan,
            case.index,
        ),
    )


def drop_unreadable(found: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """Leave out the cases whose image cannot be shown, as far as the picture goes.

    Parameters
    ----------
    found : sequence of Case
        Of :func:`cases`.

    Returns
    -------
    list of Case, list of str
        What is left, and what is wrong with the images of the others, once each.
    """
    problems: dict[str, str | None] = {}
    good = 0
    for case in found:
        name = case.scan.scan
        if name not in problems:
            try:
                _read(Path(str(case.scan.facts.image)))
                problems[name] = None
            except DataError as error:
                problems[name] = f'{name}: no pictures, {error}'
        good += problems[name] is None
        if good == MOST:
            break
    left = [case for case in found if problems.get(case.scan.scan) is None]
    return left, [said for said in problems.values() if said]


def draw_gallery(found: Sequence[Case], title: str, path: Path) -> Path:
    """Draw cards of axial, coronal and outlined axial views.

    Parameters
    ----------
    found : sequence of Case
        At least one; the first dozen are shown.
    title : str
        Heading.
    path : Path
        PNG to write.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    shown = list(found[:MOST])
    card = 3 * TILE + 2 * GAP
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width = max(2 * EDGE + columns * card + (columns - 1) * 24, 720)
    picture = Canvas(72 + rows * (TILE + CAPTION + 10) + EDGE, width)
    picture.write(EDGE, 26, title, fontsize=13, weight='bold')
    picture.write(EDGE, 46, f'{FIELD_MM:.0f} mm wide: axial, coronal, axial with outlines. '
                  'Radiological convention, positions in scanner mm.', color=c.QUIET)  # fmt: skip
    picture.write(EDGE, 62, 'truth', color=TRUTH, weight='bold')
    picture.write(EDGE + 42, 62, 'prediction', color=PREDICTION, weight='bold')
    if len(found) > len(shown):
        picture.write(EDGE + 120, 62, f'{len(shown)} of {len(found)} shown', color=c.QUIET)
    opened: dict[str, tuple[Volumes, Array, Array]] = {}
    for name in dict.fromkeys(case.scan.scan for case in shown):
        mine = [(n, case) for n, case in enumerate(shown) if case.scan.scan == name]
        opened = {name: _open(mine[0][1].scan)}  # one scan in memory at a time
        for number, case in mine:
            row, column = divmod(number, columns)
            left = EDGE + column * (card + 24)
            top = 72 + row * (TILE + CAPTION + 10)
            _draw_card(picture, case, opened[name], top, left)
    return _with_palette(picture.save(path))


def _with_palette(path: Path) -> Path:
    """Store 256 colours instead of all: the greys have 64 steps, and the file is a third."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    with Image.open(path) as image:
        fewer = image.convert('RGB').quantize(256, dither=Image.Dither.NONE)
        fewer.save(stream, format='PNG', optimize=True)
    return write_whole(path, stream.getvalue())


def _read(path: Path) -> tuple[Array, Array]:
    """Values and affine of a 3-D image; what is not finite becomes 0.

    Raises
    ------
    DataError
        If it cannot be read or has several volumes.
    """
    try:
        image: Any = nib.load(path)
        values = np.asarray(image.dataobj, np.float32)
    except (ImageFileError, OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise DataError(f'<{path}> cannot be read ({error})') from error
    if values.ndim < 3 or values.size != np.prod(values.shape[:3]) or not values.size:
        shape = 'x'.join(map(str, values.shape))
        raise DataError(f'<{path}> has the shape {shape} and is no single 3-D volume')
    values = np.nan_to_num(values.reshape(values.shape[:3]), posinf=0.0, neginf=0.0)
    return values, np.asarray(image.affine, np.float64)


def _open(scan: ScanResult) -> tuple[Volumes, Array, Array]:
    """Image, truth and prediction in RAS voxel order."""
    values, affine = _read(Path(str(scan.facts.image)))
    areas = [
        _area(objects, values.shape, affine) for objects in (scan.sides.truth, scan.sides.pred)
    ]
    brain = values > np.percentile(values, 40)
    both = areas[0].astype(np.int16) + 2 * areas[1].astype(np.int16)
    volumes = turn_to_ras(values, both, brain, affine, None)
    return volumes, (volumes.labels & 1) > 0, (volumes.labels & 2) > 0


def _area(objects: Objects | None, shape: Any, affine: Array) -> Array:
    """Voxels of all lesions on the grid of the image."""
    area = np.zeros(int(np.prod(shape)), bool)
    if objects is None or not len(objects):
        return np.reshape(area, shape, order='F')
    same = objects.shape == tuple(shape) and np.allclose(objects.affine, affine, atol=1e-3)
    placed = objects if same else to_grid(objects, tuple(shape), affine)
    area[placed.voxels] = True
    return np.reshape(area, shape, order='F')


def _draw_card(
    picture: Canvas, case: Case, opened: tuple[Volumes, Array, Array], top: int, left: int,
) -> None:  # fmt: skip
    volumes, truth, pred = opened
    place = ' '.join(signed(at) for at in case.centre_mm)
    words = [f'{place} mm']
    if np.isfinite(case.volume_mm3):
        words.append(f'{case.volume_mm3:.0f} mm³')
    if np.isfinite(case.score):
        words.append(f'p {case.score:.2f}')
    picture.write(left, top + 13, case.scan.scan, fontsize=8.5, weight='bold')
    picture.write(left, top + 27, '   '.join(words), fontsize=8, color=c.QUIET)
    centre = np.linalg.inv(volumes.affine) @ np.array([*case.centre_mm, 1.0])
    half = FIELD_MM / 2 / volumes.voxel_mm
    corners = np.stack([centre[:3] - half, centre[:3] + half])
    top += CAPTION
    scale = TILE / FIELD_MM
    for number, plane in enumerate((AXIAL, CORONAL, AXIAL)):
        view = volumes.frame(plane, float(centre[plane]), corners, scale)
        grey = volumes.draw(volumes.image, view)
        outlines = []
        if number == 2:
            outlines = [
                (volumes.draw(area, view, order=0) > 0.5, colour)
                for area, colour in ((pred, PREDICTION), (truth, TRUTH))
            ]
        picture.tile(top, left, grey, *outlines)
        first, second, _ = LETTERS[plane]
        picture.write(left + 3, top + TILE - 4, first, outlined=True, fontsize=7)
        picture.write(left + TILE - 3, top + TILE - 4, second, ha='right', outlined=True,
                      fontsize=7)  # fmt: skip
        left += TILE + GAP
