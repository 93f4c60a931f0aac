"""Intervals by drawing subjects with replacement, and tests of paired scores.

Lesions of one person and scans of one person are alike; drawing lesions would give intervals that
are too narrow. No library draws groups and pools ratios, hence the few lines of weights here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Interval = tuple[float, float]
NOT_KNOWN: Interval = (math.nan, math.nan)
LEVEL = 0.95


@dataclass(frozen=True)
class Bootstrap:
    """How often each scan appears in each draw of subjects.

    Attributes
    ----------
    weights : (B, N) array of int
        Draws by scans; the scans of a subject appear together.
    subjects : int
        Number of different subjects.
    owners : (N,) array of int
        Which subject each scan is of.
    """

    weights: Array
    subjects: int
    owners: Array

    @classmethod
    def draw(cls, subjects: Sequence[str], draws: int, seed: int) -> Bootstrap:
        """Draw as many subjects as there are, with replacement.

        Parameters
        ----------
        subjects : sequence of str
            One per scan.
        draws : int
            B; 0 gives no intervals.
        seed : int
            Of the generator (PCG64).
        """
        _, owner = np.unique(np.asarray(subjects, str), return_inverse=True)
        count = int(np.max(owner)) + 1 if len(owner) else 0
        rng = np.random.default_rng(seed)
        times = rng.multinomial(count, np.full(count, 1 / count), size=draws) if count else None
        if times is None:
            return cls(np.zeros((draws, 0), np.int64), 0, np.zeros(0, np.int64))
        owner = owner.reshape(-1)
        return cls(np.asarray(times)[:, owner], count, owner)

    @property
    def repeated(self) -> bool:
        """Whether a subject has several scans, which are then not independent."""
        return len(self.owners) > self.subjects

    def of(self, scans: Array) -> Bootstrap:
        """Keep some scans; one subject alone then has no interval."""
        owners = self.owners[scans]
        return Bootstrap(self.weights[:, scans], len(np.unique(owners)), owners)

    def interval(self, draws: Array) -> Interval:
        """95 % percentile interval of values (B,), draws without a value left out."""
        values = draws[np.isfinite(draws)]
        if self.subjects < 2 or len(values) < 2:
            return NOT_KNOWN
        low, high = np.percentile(values, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
        return float(low), float(high)

    def sums(self, values: Array) -> Array:
        """Sums over the scans of each draw: (B, ...) for values (N, ...)."""
        flat = np.nan_to_num(np.asarray(values, float)).reshape(len(values), -1)
        return np.reshape(self.weights @ flat, (len(self.weights), *np.shape(values)[1:]))

    def means(self, values: Array) -> Array:
        """Mean of each draw, scans without a value left out: (B,)."""
        known = np.isfinite(values).astype(float)
        with np.errstate(invalid='ignore', divide='ignore'):
            return np.asarray(self.sums(values) / self.sums(known))

    def medians(self, values: Array) -> Array:
        """Median of each draw, scans without a value left out: (B,)."""
        known = np.flatnonzero(np.isfinite(values))
        if not len(known):
            return np.full(len(self.weights), np.nan)
        order = known[np.argsort(values[known], kind='stable')]
        above = self.weights[:, order].cumsum(axis=1)
        total = above[:, -1:]
        ordered = np.asarray(values, float)[order]
        low = (above <= (total - 1) // 2).sum(axis=1).clip(max=len(order) - 1)
        high = (above <= total // 2).sum(axis=1).clip(max=len(order) - 1)
        middle = (ordered[low] + ordered[high]) / 2
        return np.where(total[:, 0] > 0, middle, np.nan)

    def pooled(self, columns: Array, formula: Callable[[Array], Array]) -> Interval:
        """Interval of a formula of sums.

        Parameters
        ----------
        columns : (N, K) array
            To be summed over the scans of a draw.
        formula : callable
            From (B, K) sums to (B,) values.
        """
        with np.errstate(invalid='ignore', divide='ignore'):
            return self.interval(np.asarray(formula(self.sums(columns))))

    def proportion(self, hits: Array, among: Array, method: str = 'wilson') -> Interval:
        """95 % interval of the share of hits among some scans.

        Where each subject has one of these scans it is that of a proportion; else it comes from
        the draws. Where all or none are hits, which no draw changes, it is that of as many
        subjects instead of scans.

        Parameters
        ----------
        hits, among : (N,) array of bool
            Hits, and the scans that count.
        method : {'wilson', 'clopper-pearson'}
            See :func:`proportion_interval`.
        """
        mine, right = self.of(among), hits[among]
        if not mine.repeated:
            return proportion_interval(int(right.sum()), len(right), method)
        if right.any() and not right.all():
            return mine.interval(mine.means(right.astype(float)))
        return proportion_interval(mine.subjects if right.any() else 0, mine.subjects, method)


def proportion_interval(hits: int, total: int, method: str = 'wilson') -> Interval:
    """95 % interval of a proportion.

    Parameters
    ----------
    hits, total : int
        Of so many.
    method : {'wilson', 'clopper-pearson'}
        Score interval or exact one.

    Raises
    ------
    ValueError
        For another method.
    """
    from scipy.stats import binomtest

    names = {'wilson': 'wilson', 'clopper-pearson': 'exact'}
    if method not in names:
        raise ValueError(f'method is wilson or clopper-pearson, not {method}')
    if not total:
        return NOT_KNOWN
    found = binomtest(hits, total).proportion_ci(LEVEL, method=names[method])
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Paired:
    """Two prediction sets on the same scans.

    Attributes
    ----------
    first, second, difference : float
        Means over scans where both have a value, and second minus first.
    low, high : float
        95 % interval of the difference, subjects drawn.
    signed_rank_p, rank_sum_p : float
        Two-sided Wilcoxon tests: of the pairs, and of two samples as DEEPMIR used it though its
        data are paired. Of means over the scans of each subject.
    scans, subjects : int
        Scans with both values, and whose they are.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    signed_rank_p: float
    rank_sum_p: float
    scans: int
    subjects: int


def compare_paired(first: Array, second: Array, bootstrap: Bootstrap) -> Paired:
    """Compare scores scan by scan.

    Parameters
    ----------
    first, second : (N,) array of float
        NaN where not defined.
    bootstrap : Bootstrap
        Over the same N scans.
    """
    from scipy.stats import mannwhitneyu, wilcoxon

    both = np.isfinite(first) & np.isfinite(second)
    a, b = np.asarray(first, float)[both], np.asarray(second, float)[both]
    if not both.any():
        none = math.nan
        return Paired(none, none, none, none, none, none, none, 0, 0)
    difference = np.where(both, np.asarray(second, float) - np.asarray(first, float), np.nan)
    mine = bootstrap.of(both)
    low, high = mine.interval(bootstrap.means(difference))
    first_means, second_means = (_subject_means(values, mine) for values in (a, b))
    signed, ranks = 1.0, 1.0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # small samples and ties: said in the dictionary
        if np.any(first_means != second_means):
            signed = float(wilcoxon(first_means, second_means).pvalue)
        if len(np.unique(np.concatenate([first_means, second_means]))) > 1:
            ranks = float(mannwhitneyu(first_means, second_means, alternative='two-sided').pvalue)
    return Paired(
        float(a.mean()), float(b.mean()), float((b - a).mean()), low, high, signed, ranks,
        int(both.sum()), mine.subjects,
    )  # fmt: skip


def _subject_means(values: Array, bootstrap: Bootstrap) -> Array:
    """Mean over the scans of each subject; equal scores in another order stay equal."""
    _, owner = np.unique(bootstrap.owners, return_inverse=True)
    return np.asarray(np.round(np.bincount(owner, values) / np.bincount(owner), 12))
