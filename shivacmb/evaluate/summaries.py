"""Scores of many scans in a few rows: means, medians, pooled figures, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.evaluate.resampling import NOT_KNOWN, Bootstrap
from shivacmb.evaluate.rules import ScanScore
from shivacmb.evaluate.scores import Ratios

Array = npt.NDArray[Any]
RATIOS = tuple(field.name for field in fields(Ratios))
OTHERS = ('fp', 'fn', 'dice_hits', 'count_difference', 'volume_difference_mm3')


@dataclass(frozen=True)
class Row:
    """One summary figure.

    Attributes
    ----------
    measure : str
        What.
    aggregate : {'mean', 'median', 'pooled', 'of-means'}
        Over scans, or from sums over all scans; ``of-means`` is DEEPMIR's printed formula.
    zero_rule : str
        How scans without lesions or predictions entered; ``n/a`` where that makes no difference.
    value, low, high : float
        With 95 % interval from drawing subjects.
    spread : float
        Standard deviation of a mean (n - 1).
    q1, q3 : float
        Quartiles of a median.
    n : int
        Scans with a value.
    """

    measure: str
    aggregate: str
    zero_rule: str
    value: float
    low: float
    high: float
    spread: float = math.nan
    q1: float = math.nan
    q3: float = math.nan
    n: int = 0


def per_scan(scores: Sequence[ScanScore], measure: str, zero_rule: str) -> Array:
    """Values of a measure, one per scan, NaN where not defined.

    Parameters
    ----------
    scores : sequence of ScanScore
        Of one rule.
    measure : str
        One of ``RATIOS`` or ``OTHERS``.
    zero_rule : str
        One the rule has; not used for ``OTHERS``.
    """
    if measure in ('fp', 'fn'):
        return np.array([getattr(score.counts, measure) for score in scores], float)
    if measure in OTHERS:
        return np.array([getattr(score, measure) for score in scores], float)
    return np.array([getattr(score.by_zero_rule[zero_rule], measure) for score in scores], float)


def summarise(scores: Sequence[ScanScore], bootstrap: Bootstrap) -> list[Row]:
    """All summary figures of one rule.

    Parameters
    ----------
    scores : sequence of ScanScore
        One per scan, one rule.
    bootstrap : Bootstrap
        Over the same scans.
    """
    if not scores:
        return []
    rows = []
    for zero_rule in scores[0].by_zero_rule:
        for measure in RATIOS:
            rows += _spread_rows(
                per_scan(scores, measure, zero_rule), measure, zero_rule, bootstrap
            )
        rows.append(_magnitude_of_means(scores, zero_rule, bootstrap))
    for measure in OTHERS:
        rows += _spread_rows(per_scan(scores, measure, ''), measure, 'n/a', bootstrap)
    return rows + pooled(scores, bootstrap)


def _spread_rows(values: Array, measure: str, zero_rule: str, bootstrap: Bootstrap) -> list[Row]:
    known = values[np.isfinite(values)]
    n = len(known)
    if not n:
        return [Row(measure, kind, zero_rule, math.nan, *NOT_KNOWN) for kind in ('mean', 'median')]
    spread = float(known.std(ddof=1)) if n > 1 else math.nan
    q1, middle, q3 = (float(q) for q in np.percentile(known, [25, 50, 75]))
    bootstrap, values = bootstrap.of(np.isfinite(values)), known
    mean_interval = bootstrap.interval(bootstrap.means(values))
    median_interval = bootstrap.interval(bootstrap.medians(values))
    return [
        Row(measure, 'mean', zero_rule, float(known.mean()), *mean_interval, spread, n=n),
        Row(measure, 'median', zero_rule, middle, *median_interval, q1=q1, q3=q3, n=n),
    ]


def _magnitude_of_means(scores: Sequence[ScanScore], zero_rule: str, bootstrap: Bootstrap) -> Row:
    """DEEPMIR's formula as printed; the mean of ``magnitude`` is the other reading."""
    first = per_scan(scores, 'sensitivity', zero_rule)
    second = per_scan(scores, 'precision', zero_rule)
    known = np.isfinite(first) | np.isfinite(second)
    if not np.isfinite(first).any() or not np.isfinite(second).any():
        return Row('magnitude', 'of-means', zero_rule, math.nan, *NOT_KNOWN)
    value = math.hypot(float(np.nanmean(first)), float(np.nanmean(second)))
    drawn = np.hypot(bootstrap.means(first), bootstrap.means(second))
    interval = bootstrap.of(known).interval(drawn)
    return Row('magnitude', 'of-means', zero_rule, value, *interval, n=int(known.sum()))


def count_columns(scores: Sequence[ScanScore]) -> Array:
    """``n_pred, n_truth, tp_pred, tp_truth, 1`` of each scan, (N, 5)."""
    return np.array(
        [
            (s.counts.n_pred, s.counts.n_truth, s.counts.tp_pred, s.counts.tp_truth, 1)
            for s in scores
        ],
        float,
    ).reshape(-1, 5)


def _harmonic(sums: Array) -> Array:
    sensitivity, precision = sums[..., 3] / sums[..., 1], sums[..., 2] / sums[..., 0]
    total = sensitivity + precision
    return np.where(total > 0, 2 * sensitivity * precision / np.where(total > 0, total, 1), total)


#: Pooled figures from the sums of :func:`count_columns`.
FORMULAS: dict[str, Callable[[Array], Array]] = {
    'sensitivity': lambda s: s[..., 3] / s[..., 1],
    'sensitivity_by_predictions': lambda s: s[..., 2] / (s[..., 2] + s[..., 1] - s[..., 3]),
    'precision': lambda s: s[..., 2] / s[..., 0],
    'f1_count': lambda s: 2 * s[..., 2] / (s[..., 2] + s[..., 1] - s[..., 3] + s[..., 0]),
    'f1_count_truth': lambda s: 2 * s[..., 3] / (
        s[..., 3] + s[..., 1] + s[..., 0] - s[..., 2]
    ),
    'f1_harmonic': _harmonic,
    'fp_avg': lambda s: (s[..., 0] - s[..., 2]) / s[..., 4],
    'fp_cmb': lambda s: (s[..., 0] - s[..., 2]) / s[..., 1],
}  # fmt: skip


def pooled(scores: Sequence[ScanScore], bootstrap: Bootstrap) -> list[Row]:
    """Figures from sums over all scans; NaN for nothing by nothing."""
    columns = count_columns(scores)
    total, drawn = columns.sum(axis=0), bootstrap.sums(columns)
    rows = []
    with np.errstate(invalid='ignore', divide='ignore'):
        for name, formula in FORMULAS.items():
            value = float(formula(total))
            # scans that add nothing to its sums are nobody to draw: one participant may be left
            own = FORMULAS['f1_count'] if name == 'f1_harmonic' else formula
            interval = bootstrap.of(~np.isnan(own(columns))).interval(np.asarray(formula(drawn)))
            value = value if math.isfinite(value) else math.nan
            rows.append(Row(name, 'pooled', 'n/a', value, *interval, n=len(scores)))
    return rows
