"""The picture of the lesions: each one enlarged in three planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shivacmb.reports import canvas as c
from shivacmb.reports.canvas import Canvas
from shivacmb.reports.overview import ball_radius_mm
from shivacmb.reports.views import AXIAL, CORONAL, LETTERS, SAGITTAL, LesionLike, Volumes, signed

FIELD_MM = 40.0
LIMIT = 120
"""So many lesions are shown, the largest; the table holds all."""

_EDGE = 12
_GAP = 3
_BETWEEN = 22
_CAPTION = 26


@dataclass(frozen=True)
class _Layout:
    columns: int
    tile: int
    planes: tuple[int, ...]
    outlined: bool


def _layout(count: int) -> _Layout:
    """Choose smaller tiles for more lesions, so that the picture stays readable and below 2 MB."""
    planes = (AXIAL, CORONAL, SAGITTAL)
    if count <= 4:
        return _Layout(1, 240, planes, outlined=True)
    if count <= 24:
        return _Layout(2, 168, planes, outlined=True)
    if count <= 48:
        return _Layout(3, 144, planes, outlined=False)
    return _Layout(4, 108 if count <= 80 else 88, planes, outlined=False)


def draw_closeups(volumes: Volumes, lesions: Sequence[LesionLike], title: str) -> Canvas:
    """Cards of 40 mm views around every lesion, with number, position, volume and probability.

    Parameters
    ----------
    volumes : Volumes
        The scan in RAS voxel order.
    lesions : sequence of LesionLike
        At least one; the first 120 are shown.
    title : str
        First words of the heading.

    Returns
    -------
    Canvas
        Up to 1450 pixels wide.
    """
    shown = lesions[:LIMIT]
    layout = _layout(len(shown))
    tiles = len(layout.planes) + layout.outlined
    card = tiles * (layout.tile + _GAP) - _GAP
    rows = -(-len(shown) // layout.columns)
    head = 66
    width = 2 * _EDGE + layout.columns * card + (layout.columns - 1) * _BETWEEN
    picture = Canvas(head + rows * (layout.tile + _CAPTION + 10) + _EDGE, width)
    picture.write(_EDGE, 28, title, fontsize=13, weight='bold')
    planes = 'axial, coronal, sagittal' + (', axial with the outline' if layout.outlined else '')
    note = f'{FIELD_MM:.0f} mm wide: {planes}. R, L: right and left of the patient. '
    note += 'x y z in scanner mm.'
    if len(lesions) > len(shown):
        note += f' The {len(shown)} largest of {len(lesions)}; all are in the table.'
    picture.write(_EDGE, 50, note, color=c.QUIET)
    for number, lesion in enumerate(shown):
        row, column = divmod(number, layout.columns)
        left = _EDGE + column * (card + _BETWEEN)
        top = head + row * (layout.tile + _CAPTION + 10)
        _draw_card(picture, volumes, lesion, layout, top, left, card)
    return picture


def _draw_card(
    picture: Canvas,
    volumes: Volumes,
    lesion: LesionLike,
    layout: _Layout,
    top: int,
    left: int,
    width: int,
) -> None:
    small = layout.tile < 130
    base = top + _CAPTION - 8
    picture.write(left, base, str(lesion.index), color=c.LESION, weight='bold', fontsize=11)
    place = ' '.join(signed(at) for at in (lesion.x, lesion.y, lesion.z)) + ' mm'
    text = f'{place}   {lesion.volume_mm3:.0f} mm³   p {lesion.p_max:.2f}'
    if layout.tile > 150:
        text = f'{place}     {lesion.volume_mm3:.0f} mm³     p max {lesion.p_max:.2f}'
        text += f'     folds agree {lesion.fold_agreement:.0%}'
    picture.write(left + width, base, text, ha='right', fontsize=8 if small else 9, color=c.INK)
    centre = volumes.voxel(lesion)
    half = FIELD_MM / 2 / volumes.voxel_mm
    corners = np.stack([centre - half, centre + half])
    scale = layout.tile / FIELD_MM
    views = [volumes.frame(plane, float(centre[plane]), corners, scale) for plane in layout.planes]
    top += _CAPTION
    for view in views:
        picture.tile(top, left, volumes.draw(volumes.image, view))
        _draw_ticks(picture, top, left, layout.tile, scale * (ball_radius_mm(lesion) + 3))
        _write_letters(picture, view.plane, top, left, layout.tile)
        left += layout.tile + _GAP
    if layout.outlined:
        own = volumes.labels == lesion.index
        area = volumes.draw(own, views[0], order=0) > 0.5
        picture.tile(top, left, volumes.draw(volumes.image, views[0]), (area, c.LESION))
        _write_letters(picture, AXIAL, top, left, layout.tile)


def _write_letters(picture: Canvas, plane: int, top: int, left: int, tile: int) -> None:
    first, second, _ = LETTERS[plane]
    style = {'outlined': True, 'fontsize': 6 if tile < 130 else 7}
    picture.write(left + 3, top + tile - 4, first, **style)
    picture.write(left + tile - 3, top + tile - 4, second, ha='right', **style)


def _draw_ticks(picture: Canvas, top: int, left: int, tile: int, gap: float) -> None:
    """Four short strokes that point at the middle and leave the lesion itself free."""
    x, y = left + tile / 2, top + tile / 2
    far = min(gap + tile * 0.09, tile / 2)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        picture.line((x + dx * gap, y + dy * gap), (x + dx * far, y + dy * far), c.LESION)
