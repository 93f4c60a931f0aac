"""Every threshold and smallest size at once: sweep, FROC, precision against recall, best point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.evaluate.matching import overlaps
from shivacmb.evaluate.objects import Objects, from_probability
from shivacmb.evaluate.rules import RuleSet, count_hits, find_match, used
from shivacmb.evaluate.scores import Counts, ratios

Array = npt.NDArray[Any]

#: The SHIVA-CMB paper's grid.
THRESHOLDS = tuple(round(0.1 * step, 1) for step in range(1, 11))
MIN_VOXELS = tuple(range(1, 11))
#: For the curves: finer, above all near 1, where networks trained with weights crowd.
FROC_THRESHOLDS = tuple(
    sorted({*(round(0.05 * step, 2) for step in range(1, 20)), 0.97, 0.99, 0.995, 0.999, 1.0})
)
CRITERIA = ('f1', 'f1-per-scan', 'sensitivity-at-2-fp', 'sensitivity-at-1-fp')
FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Point:
    """One operating point over some scans.

    Attributes
    ----------
    threshold : float
        Probability.
    min_voxels : int
        Smallest predicted cluster that counts.
    counts : Counts
        Pooled.
    f1_per_scan : float
        Mean over scans with the SHIVA-CMB paper's zero rules.
    scans : int
        Number of scans.
    """

    threshold: float
    min_voxels: int
    counts: Counts
    f1_per_scan: float
    scans: int

    @property
    def sensitivity(self) -> float:
        """Found lesions over lesions."""
        return self.counts.tp_truth / self.counts.n_truth if self.counts.n_truth else math.nan

    @property
    def precision(self) -> float:
        """Right predictions over predictions."""
        return self.counts.tp_pred / self.counts.n_pred if self.counts.n_pred else math.nan

    @property
    def f1(self) -> float:
        """Pooled, with the right predictions as TP."""
        return ratios(self.counts, 'drop').f1_count

    @property
    def fp_per_scan(self) -> float:
        """False positives per scan."""
        return self.counts.fp / self.scans if self.scans else math.nan


def sweep_scan(
    probability: Array,
    affine: Array,
    truth: Objects,
    rule: RuleSet,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    min_voxels: Sequence[int] = MIN_VOXELS,
    connectivity: int = 26,
) -> Array:
    """Count hits of one scan at every threshold and smallest size.

    Parameters
    ----------
    probability : (X, Y, Z) array of float
        0 to 1.
    affine : (4, 4) array of float
        Voxel to scanner RAS mm.
    truth : Objects
        On the same grid. Small lesions are left out as the rule says; the sweep changes the
        filter of the predictions alone.
    rule : RuleSet
        How to match.
    thresholds, min_voxels : sequences
        The grid.
    connectivity : {6, 18, 26}
        Of the clusters.

    Returns
    -------
    (T, M, 4) array of int
        ``n_pred, n_truth, tp_pred, tp_truth``.
    """
    truth = truth.select(used(truth, rule))
    result = np.zeros((len(thresholds), len(min_voxels), 4), np.int64)
    for row, threshold in enumerate(thresholds):
        found = from_probability(
            probability, affine, threshold=threshold, connectivity=connectivity
        )
        for column, least in enumerate(min_voxels):
            kept = found.at_least(least)
            match = find_match(rule, kept, truth, overlaps(kept, truth))
            counts = count_hits(rule, match)
            result[row, column] = counts.n_pred, counts.n_truth, counts.tp_pred, counts.tp_truth
    return result


def points(tables: Array, thresholds: Sequence[float], min_voxels: Sequence[int]) -> list[Point]:
    """Pool scans, operating point by operating point.

    Parameters
    ----------
    tables : (N, T, M, 4) array of int
        Of :func:`sweep_scan`, one per scan.
    thresholds, min_voxels : sequences
        The grid.
    """
    pooled = []
    for row, threshold in enumerate(thresholds):
        for column, least in enumerate(min_voxels):
            scans = [Counts(*map(int, line)) for line in tables[:, row, column]]
            each = [ratios(scan, 'shiva').f1_count for scan in scans]
            total = sum(scans, Counts(0, 0, 0, 0))
            mean = float(np.mean(each)) if each else math.nan
            pooled.append(Point(threshold, least, total, mean, len(scans)))
    return pooled


def choose(found: Sequence[Point], criterion: str) -> Point | None:
    """Best operating point; never call it on the scans whose score is then reported.

    Parameters
    ----------
    found : sequence of Point
        Of :func:`points`.
    criterion : {'f1', 'f1-per-scan', 'sensitivity-at-2-fp', 'sensitivity-at-1-fp'}
        Pooled F1, mean F1 per scan, or the sensitivity with at most so many false positives per
        scan. Ties go to fewer false positives, then to the higher threshold, then to the smaller
        size.

    Returns
    -------
    Point or None
        None when no point has a value.

    Raises
    ------
    ValueError
        For another criterion.
    """
    if criterion not in CRITERIA:
        raise ValueError(f'criterion is one of {", ".join(CRITERIA)}, not {criterion}')
    value: Callable[[Point], float]
    if criterion == 'f1':
        value = lambda point: point.f1  # noqa: E731
    elif criterion == 'f1-per-scan':
        value = lambda point: point.f1_per_scan  # noqa: E731
    else:
        most = float(criterion.split('-')[2])
        found = [point for point in found if point.fp_per_scan <= most]
        value = lambda point: point.sensitivity  # noqa: E731
    known = [point for point in found if not math.isnan(value(point))]
    if not known:
        return None
    return max(
        known, key=lambda point: (value(point), -point.counts.fp, point.threshold,
                                  -point.min_voxels)
    )  # fmt: skip


def froc(found: Sequence[Point]) -> list[tuple[float, float]]:
    """Sensitivity at false positive rates: the best that some threshold reaches within each.

    Parameters
    ----------
    found : sequence of Point
        Of one smallest size.

    Returns
    -------
    list of (float, float)
        Rate per scan and sensitivity, for 1/8 to 8 per scan as lesion detection challenges use;
        their mean is the usual single figure. 0 where even the highest threshold has more.
    """
    return [
        (
            rate,
            max((point.sensitivity for point in found if point.fp_per_scan <= rate), default=0.0),
        )
        for rate in FROC_RATES
    ]
