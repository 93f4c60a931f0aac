"""One picture: grey tiles in one array, marks and words drawn over it once.

A figure of a hundred small axes takes matplotlib a minute. Here all slices go into one
array that is placed pixel on pixel, under a single pair of axes measured in pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.reports.files import write_whole

INK = '#e8eaed'
QUIET = '#9aa4b0'
LESION = '#ffb000'
MASK = '#2fc4b2'
BOX = '#86a8ff'
BACKGROUND = '#0e1116'
"""Colours that stay apart for every kind of colour vision, on black."""

_DPI = 100
_STEPS = 64  # grey levels of a saved picture


def rgb(colour: str) -> npt.NDArray[np.float32]:
    """Turn ``#rrggbb`` into three numbers between 0 and 1."""
    return np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)], dtype=np.float32)


@dataclass
class Canvas:
    """A picture in the making; all measures in pixels from the upper left corner.

    Attributes
    ----------
    height, width : int
        Size in pixels.
    """

    height: int
    width: int
    pixels: npt.NDArray[np.float32] = field(init=False, repr=False)
    circles: list[tuple[float, float, float, bool]] = field(default_factory=list, repr=False)
    dots: list[tuple[float, float]] = field(default_factory=list, repr=False)
    lines: list[tuple[tuple[float, float], tuple[float, float], str, bool]] = field(
        default_factory=list, repr=False
    )
    words: list[tuple[float, float, str, dict[str, Any]]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Start with an empty background."""
        self.pixels = np.empty((self.height, self.width, 3), dtype=np.float32)
        self.pixels[:] = rgb(BACKGROUND)

    def tile(
        self,
        top: int,
        left: int,
        grey: npt.NDArray[np.float32],
        *outlines: tuple[npt.NDArray[np.bool_], str],
    ) -> None:
        """Place a slice (height, width), with the outlines of areas (height, width, colour)."""
        # 64 levels are more than an eye tells apart in a scan's noise and halve the file
        steps = np.rint(np.clip(grey, 0, 1) * (_STEPS - 1)) / (_STEPS - 1)
        colour = np.repeat(steps[:, :, None], 3, axis=2)
        for area, name in outlines:
            colour[_edge(area)] = rgb(name)
        self.pixels[top : top + grey.shape[0], left : left + grey.shape[1]] = colour

    def circle(self, x: float, y: float, radius: float, *, dashed: bool = False) -> None:
        """Ring in the lesions' colour."""
        self.circles.append((x, y, radius, dashed))

    def dot(self, x: float, y: float) -> None:
        """Small disc in the lesions' colour."""
        self.dots.append((x, y))

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        colour: str,
        *,
        dashed: bool = False,
    ) -> None:
        """Thin straight line."""
        self.lines.append((start, end, colour, dashed))

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Words, anchored at their lower left corner unless ``ha`` and ``va`` say otherwise.

        ``outlined=True`` puts a dark rim around them, for words over a slice.
        """
        self.words.append((x, y, text, style))

    def save(self, path: Path) -> Path:
        """Render to PNG under a temporary name, then rename.

        The same canvas gives the same bytes: neither the time nor a version is written.
        """
        import matplotlib as mpl

        with mpl.rc_context():
            mpl.rcdefaults()  # a user's matplotlibrc must not change the picture
            image = self._render()
        stream = io.BytesIO()
        image.save(stream, format='PNG', compress_level=3)  # as small as 6, in a third of the time
        return write_whole(path, stream.getvalue())

    def _render(self) -> Any:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image

        # 29 / 100 * 100 is a little less than 29, and the renderer cuts decimals off
        inches = ((self.width + 1e-6) / _DPI, (self.height + 1e-6) / _DPI)
        figure = Figure(figsize=inches, dpi=_DPI)
        figure.patch.set_visible(False)
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), zorder=1)
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.axis('off')
        axes.patch.set_alpha(0)
        self._add_marks(axes)
        self._add_words(axes)
        # under the axes, pixel on pixel; an image artist would spend a second on resampling
        under = np.full((self.height, self.width, 4), 255, dtype=np.uint8)
        under[:, :, :3] = np.rint(self.pixels * 255)
        renderer = canvas.get_renderer()
        renderer.draw_image(renderer.new_gc(), 0, 0, np.ascontiguousarray(under[::-1]))
        figure.draw(renderer)
        return Image.fromarray(np.asarray(renderer.buffer_rgba())[:, :, :3])

    def _add_marks(self, axes: Any) -> None:
        from matplotlib.collections import EllipseCollection, LineCollection

        for dashed in (False, True):
            rings = [ring for ring in self.circles if ring[3] == dashed]
            segments = [(line[0], line[1]) for line in self.lines if line[3] == dashed]
            colours = [line[2] for line in self.lines if line[3] == dashed]
            style = (0, (3, 2)) if dashed else 'solid'
            if segments:
                axes.add_collection(
                    LineCollection(segments, colors=colours, linewidths=0.9, linestyles=[style]),
                    autolim=False,
                )
            if rings:
                diameter = [2 * ring[2] for ring in rings]
                axes.add_collection(
                    EllipseCollection(
                        diameter,
                        diameter,
                        [0.0] * len(rings),
                        units='xy',
                        offsets=[ring[:2] for ring in rings],
                        offset_transform=axes.transData,
                        facecolors='none',
                        edgecolors=LESION,
                        linewidths=1.1,
                        linestyles=[style],
                    ),
                    autolim=False,
                )
        if self.dots:
            axes.add_collection(
                EllipseCollection(
                    [6.0] * len(self.dots),
                    [6.0] * len(self.dots),
                    [0.0] * len(self.dots),
                    units='xy',
                    offsets=self.dots,
                    offset_transform=axes.transData,
                    facecolors=LESION,
                    edgecolors=BACKGROUND,
                    linewidths=0.6,
                ),
                autolim=False,
            )

    def _add_words(self, axes: Any) -> None:
        from matplotlib.patheffects import withStroke

        rim = [withStroke(linewidth=2.2, foreground='#000000')]
        for x, y, text, style in self.words:
            options = {'color': INK, 'fontsize': 9, 'parse_math': False} | style
            if options.pop('outlined', False):
                options['path_effects'] = rim
            axes.text(x, y, text, **options)


def _edge(area: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of an area that touch a pixel outside it."""
    padded = np.pad(area, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: npt.NDArray[np.bool_] = area & ~inner
    return edge
