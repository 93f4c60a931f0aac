"""The overview picture: where the brain, the box and the lesions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shivacmb.reports import canvas as c
from shivacmb.reports.canvas import Canvas
from shivacmb.reports.views import (
    AXIAL,
    CORONAL,
    LETTERS,
    PLANE_NAMES,
    SAGITTAL,
    LesionLike,
    View,
    Volumes,
    signed,
)

WIDTH = 1440
_COLUMNS, _ROWS = 6, 4
_GAP = 6
_EDGE = 12
_LOCATOR_HEIGHT = 420
_MARGIN_MM = 6.0
_MIN_RING_MM = 5.0
_ANGLES = np.deg2rad([-45, 45, -135, 135, 0, 180, -90, 90])


def draw_overview(volumes: Volumes, lesions: Sequence[LesionLike], title: str) -> Canvas:
    """Three planes with the box and every lesion, then axial slices from the top to the base.

    Parameters
    ----------
    volumes : Volumes
        The scan in RAS voxel order.
    lesions : sequence of LesionLike
        All lesions.
    title : str
        First words of the heading.

    Returns
    -------
    Canvas
        1440 pixels wide.
    """
    brain = volumes.extent()
    brain[0] -= _MARGIN_MM / volumes.voxel_mm
    brain[1] += _MARGIN_MM / volumes.voxel_mm
    tile_width = (WIDTH - 2 * _EDGE - (_COLUMNS - 1) * _GAP) // _COLUMNS
    across_mm = float((brain[1, 0] - brain[0, 0]) * volumes.voxel_mm[0])
    scale = tile_width / across_mm
    slices = choose_slices(volumes, lesions, _COLUMNS * _ROWS)
    rows = -(-len(slices) // _COLUMNS)
    tile_height = volumes.frame(AXIAL, 0, brain, scale).height

    head = 64
    mosaic = head + _LOCATOR_HEIGHT + 34
    picture = Canvas(mosaic + rows * (tile_height + _GAP) + _EDGE - _GAP, WIDTH)
    picture.write(_EDGE, 28, title, fontsize=14, weight='bold')
    picture.write(
        _EDGE,
        50,
        'Radiological convention: in axial and coronal views the left of the picture is the right '
        'of the patient (R). z in scanner mm.',
        color=c.QUIET,
    )
    _draw_locators(picture, volumes, lesions, head, [own for own, _ in slices])
    picture.write(
        _EDGE,
        mosaic - 10,
        'Ring: the lesion lies on this slice. Dashed ring: its centre is within the slab that '
        'this slice stands for.',
        color=c.QUIET,
    )
    for number, (own, shown) in enumerate(slices):
        row, column = divmod(number, _COLUMNS)
        view = volumes.frame(AXIAL, own, brain, scale)
        top, left = mosaic + row * (tile_height + _GAP), _EDGE + column * (tile_width + _GAP)
        _draw_slice(picture, volumes, view, top, left, shown)
    return picture


def choose_slices(
    volumes: Volumes, lesions: Sequence[LesionLike], number: int
) -> list[tuple[int, list[tuple[LesionLike, bool]]]]:
    """Cut the brain into axial slabs and show of each the slice that most lesions touch.

    Returns
    -------
    list of (slice, list of (lesion, on the slice))
        From the top of the head down. Every lesion is in exactly one slab; where no lesion
        decides, the slab's middle is shown.
    """
    low, high = volumes.extent()[:, AXIAL]
    first, last = round(float(low) + 0.5), round(float(high) - 0.5)
    number = max(1, min(number, last - first + 1))
    edges = np.linspace(first, last + 1, number + 1)
    touched = _touched_slices(volumes.labels)
    slabs: list[list[LesionLike]] = [[] for _ in range(number)]
    for lesion in lesions:
        height = float(volumes.voxel(lesion)[AXIAL]) + 0.5
        slab = int(np.searchsorted(edges, height, side='right')) - 1
        slabs[min(max(slab, 0), number - 1)].append(lesion)

    chosen = []
    for slab, inside in enumerate(slabs):
        start, stop = int(np.ceil(edges[slab] - 1e-9)), int(np.ceil(edges[slab + 1] - 1e-9))
        middle = (start + stop - 1) / 2
        candidates = sorted(
            range(start, max(stop, start + 1)),
            key=lambda k: (
                -sum(k in touched.get(lesion.index, ()) for lesion in inside),
                abs(k - middle),
            ),
        )
        own = candidates[0]
        chosen.append((own, [(lesion, own in touched.get(lesion.index, ())) for lesion in inside]))
    return chosen[::-1]


def _touched_slices(labels: npt.NDArray[np.integer]) -> dict[int, set[int]]:
    """Axial slices in which each label has a voxel."""
    where = np.nonzero(labels)
    pairs = np.unique(np.stack([labels[where], where[AXIAL]], axis=1), axis=0)
    touched: dict[int, set[int]] = {}
    for index, k in pairs.tolist():
        touched.setdefault(index, set()).add(k)
    return touched


def _draw_locators(
    picture: Canvas,
    volumes: Volumes,
    lesions: Sequence[LesionLike],
    top: int,
    slices: Sequence[int],
) -> None:
    """Mid slices of the whole field of view with mask, box and the projection of all lesions."""
    whole = np.array([[-0.5] * 3, np.array(volumes.image.shape) - 0.5])
    if volumes.box is not None:
        whole = np.stack(
            [np.minimum(whole[0], volumes.box[0]), np.maximum(whole[1], volumes.box[1])]
        )
    centre = volumes.extent().mean(axis=0)
    size_mm = (whole[1] - whole[0]) * volumes.voxel_mm
    room = WIDTH - 2 * _EDGE - 2 * _GAP - 300  # the legend takes the rest
    scale = min(
        (_LOCATOR_HEIGHT - 18) / float(max(size_mm[1], size_mm[2])),
        room / float(2 * size_mm[0] + size_mm[1]),
    )
    left = _EDGE
    for plane in (AXIAL, CORONAL, SAGITTAL):
        view = volumes.frame(plane, float(centre[plane]), whole, scale)
        inside = volumes.draw(volumes.mask, view, order=1) > 0.5
        picture.tile(top, left, volumes.draw(volumes.image, view), (inside, c.MASK))
        if volumes.box is not None:
            _draw_rectangle(picture, volumes, view, top, left, volumes.box)
        for lesion in lesions:
            x, y = volumes.pixel(view, volumes.voxel(lesion))
            picture.dot(left + x, top + y)
        _write_letters(picture, view, top, left)
        picture.write(
            left + view.width / 2,
            top + view.height + 4,
            PLANE_NAMES[plane],
            ha='center',
            va='top',
            color=c.QUIET,
        )
        left += view.width + _GAP
    _draw_legend(picture, volumes, left + 16, top + 14, len(lesions), slices)


def _draw_legend(
    picture: Canvas, volumes: Volumes, left: int, top: int, count: int, slices: Sequence[int]
) -> None:
    line = 26
    picture.write(left, top, 'Whole scan', weight='bold', fontsize=10, va='center')
    entries = [(c.MASK, False, 'brain mask')]
    if volumes.box is not None:
        size = ' × '.join(f'{n:.0f}' for n in volumes.box[1] - volumes.box[0])
        # in two lines: beside a large head there is room for 25 letters
        entries.append((c.BOX, True, f'what the network sees,\n{size} voxels'))
    for number, (colour, dashed, text) in enumerate(entries, start=1):
        y = top + number * line
        picture.line((left, y), (left + 22, y), colour, dashed=dashed)
        # the first line of a text beside its mark
        picture.write(left + 32, y - 8, text, va='top', linespacing=1.5)
    y = top + (len(entries) + 1) * line + (20 if volumes.box is not None else 0)
    picture.dot(left + 11, y)
    marked = 'no lesion' if not count else f'{count} lesion{"s" * (count > 1)}, projected'
    picture.write(left + 32, y, marked, va='center')
    step = abs(np.diff(sorted(slices))).mean() * volumes.voxel_mm[AXIAL] if len(slices) > 1 else 0
    picture.write(
        left,
        y + line * 1.5,
        f'Below: {len(slices)} axial slices from top to base,\n'
        f'about {step:.1f} mm apart, each moved to\nthe slice of its slab with most lesions.',
        color=c.QUIET,
        va='top',
        linespacing=1.5,
    )


def _draw_rectangle(
    picture: Canvas,
    volumes: Volumes,
    view: View,
    top: int,
    left: int,
    box: npt.NDArray[np.float64],
) -> None:
    """Sides of the box, as far as they lie in the view."""
    right, bottom = volumes.pixel(view, box[0])
    x0, y0 = volumes.pixel(view, box[1])
    for (xa, ya), (xb, yb) in (
        ((x0, y0), (right, y0)),
        ((x0, bottom), (right, bottom)),
        ((x0, y0), (x0, bottom)),
        ((right, y0), (right, bottom)),
    ):
        xs = np.clip([xa, xb], 0, view.width)
        ys = np.clip([ya, yb], 0, view.height)
        gone = (xa == xb and not 0 <= xa <= view.width + 0.5) or (
            ya == yb and not 0 <= ya <= view.height + 0.5
        )
        if not gone:
            picture.line(
                (left + float(xs[0]), top + float(ys[0])),
                (left + float(xs[1]), top + float(ys[1])),
                c.BOX,
                dashed=True,
            )


def _draw_slice(
    picture: Canvas,
    volumes: Volumes,
    view: View,
    top: int,
    left: int,
    shown: Sequence[tuple[LesionLike, bool]],
) -> None:
    inside = volumes.draw(volumes.mask, view, order=1) > 0.5
    picture.tile(top, left, volumes.draw(volumes.image, view), (inside, c.MASK))
    if volumes.box is not None:
        _draw_rectangle(picture, volumes, view, top, left, volumes.box)
    _write_letters(picture, view, top, left)
    centre = volumes.extent().mean(axis=0)
    centre[AXIAL] = view.position
    z = float((volumes.affine @ [*centre, 1.0])[2])
    picture.write(left + 6, top + view.height - 6, f'z {signed(z)}', outlined=True, fontsize=8)

    rings = []
    for lesion, on_slice in shown:
        x, y = volumes.pixel(view, volumes.voxel(lesion))
        radius = view.pixels_per_mm * max(_MIN_RING_MM, ball_radius_mm(lesion) + 3)
        rings.append((x, y, radius))
        picture.circle(left + x, top + y, radius, dashed=not on_slice)
    for (lesion, _), (x, y) in zip(shown, place_words(rings, view), strict=True):
        picture.write(
            left + x,
            top + y,
            f'{lesion.index}',
            ha='center',
            va='center',
            color=c.LESION,
            weight='bold',
            outlined=True,
        )


def place_words(
    rings: Sequence[tuple[float, float, float]], view: View
) -> list[tuple[float, float]]:
    """Find a free place beside each ring (x, y, radius) for its number."""
    taken = [np.array(ring[:2]) for ring in rings]
    places = []
    for x, y, radius in rings:
        best, best_room = (x, y), -np.inf
        for preference, angle in enumerate(_ANGLES):
            spot = np.array([x + (radius + 11) * np.cos(angle), y + (radius + 11) * np.sin(angle)])
            others = [float(np.hypot(*(spot - other))) for other in taken]
            room = min([40.0, *others]) - 0.01 * preference
            if not (8 <= spot[0] <= view.width - 8 and 8 <= spot[1] <= view.height - 8):
                room -= 100
            if room > best_room:
                best, best_room = (float(spot[0]), float(spot[1])), room
        taken.append(np.array(best))
        places.append(best)
    return places


def ball_radius_mm(lesion: LesionLike) -> float:
    """Radius of the ball that has the lesion's volume, in mm."""
    return float((3 * lesion.volume_mm3 / (4 * np.pi)) ** (1 / 3))


def _write_letters(picture: Canvas, view: View, top: int, left: int) -> None:
    first, second, up = LETTERS[view.plane]
    style = {'outlined': True, 'fontsize': 8, 'color': c.INK}
    middle = top + view.height / 2
    picture.write(left + 4, middle, first, va='center', **style)
    picture.write(left + view.width - 4, middle, second, va='center', ha='right', **style)
    picture.write(left + view.width / 2, top + 4, up, va='top', ha='center', **style)
