"""The plots of the summary page, each a small PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shivacmb.evaluate.agreement import SHIVA_CLASSES, Figure
from shivacmb.evaluate.evaluation import Result
from shivacmb.evaluate.sweeps import Point
from shivacmb.reports.files import write_whole

INK, QUIET, LINE, FIRST, SECOND = '#1b2230', '#5a6577', '#c8cfda', '#0b6b5e', '#b8442e'
_STYLE = {
    'font.size': 9, 'axes.edgecolor': LINE, 'axes.labelcolor': INK, 'xtick.color': QUIET,
    'ytick.color': QUIET, 'axes.spines.top': False, 'axes.spines.right': False,
    'axes.grid': True, 'grid.color': '#e9edf2', 'axes.axisbelow': True, 'axes.titlesize': 10,
    'axes.titleweight': 'bold', 'axes.titlelocation': 'left', 'svg.hashsalt': 'shivacmb',
}  # fmt: skip
_SIZE = (4.2, 3.5)


def draw_all(
    folder: Path, result: Result, sweep: Sequence[Point], least: int
) -> list[tuple[str, str, Path]]:
    """Draw the plots that the data allow.

    Parameters
    ----------
    folder : Path
        Where the PNG files go.
    result : Result
        One class.
    sweep : sequence of Point
        Of all scans; empty without probability maps.
    least : int
        Smallest cluster along the curves.

    Returns
    -------
    list of (title, text for those who do not see it, path)
        In the order of the page.
    """
    import matplotlib as mpl

    plots: list[tuple[str, str, str, Any]] = [
        ('counts', 'Numbers of lesions', _say_counts(result), _scatter),
        ('bland-altman', 'Bland-Altman', 'Difference against mean number, with limits.', _altman),
        ('classes', 'Classes of burden', 'Confusion matrix of 0, 1-3, 4-9, 10+.', _confusion),
        ('sizes', 'Sensitivity by size', 'Share of lesions found by diameter.', _sizes),
    ]
    found = []
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change the picture
        mpl.rcParams.update(_STYLE)
        for name, title, said, draw in plots:
            if name == 'sizes' and not result.sizes.get('sensitivity'):
                continue
            found.append(
                (title, said, _save(folder, f'{name}', lambda axes, d=draw: d(axes, result)))
            )
        curve = [point for point in sweep if point.min_voxels == least]
        if curve:
            found.append((
                'FROC', 'Sensitivity against false positives per scan over thresholds.',
                _save(folder, 'froc', lambda axes: _froc(axes, curve)),
            ))  # fmt: skip
            found.append((
                'Precision and recall', 'Precision against sensitivity over thresholds.',
                _save(folder, 'precision-recall', lambda axes: _precision(axes, curve)),
            ))  # fmt: skip
    return found


def _save(folder: Path, name: str, draw: Any) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=_SIZE, dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(picture)
    draw(picture.add_subplot())
    stream = io.BytesIO()
    canvas.print_png(stream, metadata={'Software': None})
    return write_whole(folder / f'{name}.png', stream.getvalue())


def _value(figures: Sequence[Figure], name: str) -> Figure:
    return next((figure for figure in figures if figure.name == name), Figure(name, math.nan))


def _number(figure: Figure) -> str:
    if math.isnan(figure.value):
        return 'not defined'
    if math.isnan(figure.low):
        return f'{figure.value:.2f}'
    return f'{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]'


def _say_counts(result: Result) -> str:
    pearson = _number(_value(result.agreement, 'pearson'))
    return f'Predicted against true number of each scan; Pearson {pearson}.'


def _scatter(axes: Any, result: Result) -> None:
    truth, predicted = result.counts
    top = max(1, int(max(truth.max(), predicted.max())))
    axes.plot([0, top], [0, top], color=LINE, lw=1, zorder=1)
    places, times = np.unique(np.stack([truth, predicted], axis=1), axis=0, return_counts=True)
    axes.scatter(places[:, 0], places[:, 1], s=18 + 14 * (times - 1).clip(max=20), color=FIRST,
                 alpha=0.75, linewidths=0)  # fmt: skip
    slope, offset = (_value(result.agreement, name).value for name in ('slope', 'intercept'))
    if not math.isnan(slope):
        ends = np.array([truth.min(), truth.max()])
        axes.plot(ends, slope * ends + offset, color=SECOND, lw=1.2)
    axes.set(xlabel='true number', ylabel='predicted number')
    _whole_ticks(axes, x=True, y=True)
    axes.set_title(
        f'Pearson {_number(_value(result.agreement, "pearson"))}\n'
        f'slope {_number(_value(result.agreement, "slope"))}', weight='normal', fontsize=8.5,
    )  # fmt: skip


def _whole_ticks(axes: Any, *, x: bool, y: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    for wanted, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        if wanted:
            axis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def _altman(axes: Any, result: Result) -> None:
    truth, predicted = result.counts
    points = np.stack([(truth + predicted) / 2, predicted - truth], axis=1)
    places, times = np.unique(points, axis=0, return_counts=True)
    axes.scatter(places[:, 0], places[:, 1], s=18 + 14 * (times - 1).clip(max=20), color=FIRST,
                 alpha=0.75, linewidths=0)  # fmt: skip
    for name, style in (('bias', '-'), ('limit_low', '--'), ('limit_high', '--')):
        figure = _value(result.agreement, name)
        if not math.isnan(figure.value):
            axes.axhline(figure.value, color=SECOND, lw=1, ls=style)
            axes.annotate(
                f'{figure.value:.1f}', (1, figure.value), xycoords=('axes fraction', 'data'),
                ha='right', va='bottom', fontsize=8, color=SECOND,
            )  # fmt: skip
    axes.set(xlabel='mean of both numbers', ylabel='predicted minus true')
    _whole_ticks(axes, x=False, y=True)
    axes.set_title(f'bias {_number(_value(result.agreement, "bias"))}', weight='normal',
                   fontsize=8.5)  # fmt: skip


def _confusion(axes: Any, result: Result) -> None:
    table = result.confusion['shiva']
    size = len(table)
    axes.grid(visible=False)
    share = table / max(1, table.sum())
    for row in range(size):
        for column in range(size):
            colour = FIRST if row == column else SECOND
            axes.add_patch(_cell(column, row, colour, 0.06 + 0.8 * float(share[row, column]) ** 0.5
                                 if table[row, column] else 0.0))  # fmt: skip
            ink = INK if share[row, column] < 0.35 else '#ffffff'
            axes.text(column, row, str(int(table[row, column])), ha='center', va='center',
                      color=ink, fontsize=11)  # fmt: skip
    names = [name.replace('-', '–').replace('>=', '≥ ') for name in SHIVA_CLASSES]
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel='predicted', ylabel='true')
    axes.set_aspect('equal')
    kappa = _value(result.agreement, 'shiva_classes_kappa_linear')
    accuracy = _value(result.agreement, 'shiva_classes_accuracy')
    axes.set_title(f'accuracy {_number(accuracy)}\nlinear kappa {_number(kappa)}',
                   weight='normal', fontsize=8.5)  # fmt: skip


def _cell(column: int, row: int, colour: str, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=colour, alpha=alpha,
                     edgecolor='none')  # fmt: skip


def _sizes(axes: Any, result: Result) -> None:
    found = result.sizes['sensitivity']
    values = np.array([share.value for share in found])
    low = values - np.array([share.wilson[0] for share in found])
    high = np.array([share.wilson[1] for share in found]) - values
    place = np.arange(len(found))
    axes.errorbar(place, values, yerr=np.abs([low, high]), fmt='o-', color=FIRST, ms=4, lw=1.2,
                  capsize=3)  # fmt: skip
    for x, share in zip(place, found, strict=True):
        axes.annotate(f'{share.hits}/{share.total}', (x, 1.05), ha='center', fontsize=7.5,
                      color=QUIET)  # fmt: skip
    names = ['no size' if share.name == 'n/a' else share.name for share in found]
    axes.set_xticks(place, [name.replace('-', '–').replace('>=', '≥ ') for name in names])
    axes.set(ylim=(-0.03, 1.14), xlabel='diameter of the ball of equal volume, mm',
             ylabel='sensitivity')  # fmt: skip
    rule = result.plan.main_rule
    axes.set_title(f'rule {rule.name if rule else ""}, Wilson 95 % intervals', weight='normal',
                   fontsize=8.5)  # fmt: skip


def _marked(axes: Any, xs: list[float], ys: list[float], curve: Sequence[Point]) -> None:
    """The line and a few thresholds written beside it."""
    axes.plot(xs, ys, 'o-', color=FIRST, ms=3, lw=1.2)
    for x, y, point in zip(xs, ys, curve, strict=True):
        if point.threshold in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99) and math.isfinite(x + y):
            axes.annotate(f'{point.threshold:g}', (x, y), xytext=(4, -9),
                          textcoords='offset points', fontsize=7.5, color=QUIET)  # fmt: skip


def _froc(axes: Any, curve: Sequence[Point]) -> None:
    from matplotlib.ticker import ScalarFormatter

    rates = [point.fp_per_scan for point in curve]
    _marked(axes, rates, [point.sensitivity for point in curve], curve)
    axes.set_xscale('symlog', linthresh=1)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel='false positives per scan (linear to 1, then logarithmic)',
             ylabel='sensitivity', ylim=(-0.03, 1.03),
             xlim=(-0.05, max([1.0, *rates]) * 1.1))  # fmt: skip
    axes.set_title(f'pooled, clusters of at least {curve[0].min_voxels} voxels'
                   '\nthresholds beside the line', weight='normal', fontsize=8.5)  # fmt: skip


def _precision(axes: Any, curve: Sequence[Point]) -> None:
    known = [point for point in curve if math.isfinite(point.precision)]
    _marked(axes, [point.sensitivity for point in known],
            [point.precision for point in known], known)  # fmt: skip
    axes.set(xlabel='sensitivity (recall)', ylabel='precision', xlim=(-0.03, 1.03),
             ylim=(-0.03, 1.03))  # fmt: skip
    axes.set_title(f'pooled, clusters of at least {curve[0].min_voxels} voxels',
                   weight='normal', fontsize=8.5)  # fmt: skip
