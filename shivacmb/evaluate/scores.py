"""From hits and misses to sensitivity, precision and F1 of one scan or of all together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ZeroRule = Literal['shiva', 'drop', 'valdo']
ZERO_RULES: dict[str, str] = {
    'shiva': (
        'No lesion: sensitivity 0 with false positives, else 1. No prediction: precision 0 with '
        'missed lesions, else 1. Neither: every F1 is 1 (SHIVA-CMB paper, performance evaluation).'
    ),
    'drop': (
        'A ratio whose denominator is zero is not defined; the scan is left out of its mean, and '
        'n says how many remain.'
    ),
    'valdo': (
        'No lesion: no ratio is defined and the scan is left out of every mean. Lesions but no '
        "prediction: sensitivity, F1 and Dice are 0, precision is not defined (VALDO's code)."
    ),
}


@dataclass(frozen=True)
class Counts:
    """Hits and misses, of one scan or summed over several.

    Attributes
    ----------
    n_pred, n_truth : int
        Predictions and lesions that take part.
    tp_pred : int
        Predictions that are right.
    tp_truth : int
        Lesions that are found.
    """

    n_pred: int
    n_truth: int
    tp_pred: int
    tp_truth: int

    @property
    def fp(self) -> int:
        """Predictions that are wrong."""
        return self.n_pred - self.tp_pred

    @property
    def fn(self) -> int:
        """Lesions that are missed."""
        return self.n_truth - self.tp_truth

    def __add__(self, other: Counts) -> Counts:
        """Pool two scans."""
        return Counts(
            self.n_pred + other.n_pred,
            self.n_truth + other.n_truth,
            self.tp_pred + other.tp_pred,
            self.tp_truth + other.tp_truth,
        )


@dataclass(frozen=True)
class Ratios:
    """What the papers print, NaN where not defined.

    Attributes
    ----------
    sensitivity : float
        Found lesions over lesions.
    sensitivity_by_predictions : float
        TP / (TP + FN) with the right predictions as TP, the SHIVA-CMB paper's wording.
    precision : float
        Right predictions over predictions.
    f1_count : float
        2 TP / (2 TP + FN + FP) with the right predictions as TP, the SHIVA-CMB paper's wording.
    f1_count_truth : float
        The same with the found lesions as TP.
    f1_harmonic : float
        Harmonic mean of sensitivity and precision.
    magnitude : float
        Square root of sensitivity squared plus precision squared (DEEPMIR), at most 1.414.
    """

    sensitivity: float
    sensitivity_by_predictions: float
    precision: float
    f1_count: float
    f1_count_truth: float
    f1_harmonic: float
    magnitude: float


def ratio(part: float, whole: float) -> float:
    """Divide, NaN for nothing by nothing."""
    return part / whole if whole else math.nan


def ratios(counts: Counts, zero_rule: ZeroRule) -> Ratios:
    """Ratios of one scan.

    Parameters
    ----------
    counts : Counts
        Of the scan.
    zero_rule : {'shiva', 'drop', 'valdo'}
        What holds when there is no lesion or no prediction, see ``ZERO_RULES``.

    Raises
    ------
    ValueError
        For another rule.
    """
    if zero_rule not in ZERO_RULES:
        raise ValueError(f'zero_rule is one of {", ".join(ZERO_RULES)}, not {zero_rule}')
    c = counts
    sensitivity = ratio(c.tp_truth, c.n_truth)
    by_predictions = ratio(c.tp_pred, c.tp_pred + c.fn)
    precision = ratio(c.tp_pred, c.n_pred)
    f1_count = ratio(2 * c.tp_pred, 2 * c.tp_pred + c.fn + c.fp)
    f1_truth = ratio(2 * c.tp_truth, 2 * c.tp_truth + c.fn + c.fp)
    if zero_rule == 'shiva':
        if not c.n_truth:
            sensitivity = by_predictions = 0.0 if c.fp else 1.0
        if not c.n_pred:
            precision = 0.0 if c.fn else 1.0
        if not c.n_pred and not c.n_truth:
            f1_count = f1_truth = 1.0
    if zero_rule == 'valdo' and not c.n_truth:
        sensitivity = by_predictions = precision = f1_count = f1_truth = math.nan
    harmonic = _harmonic(sensitivity, precision)
    if zero_rule == 'valdo' and c.n_truth and not c.n_pred:
        harmonic = 0.0
    return Ratios(
        sensitivity, by_predictions, precision, f1_count, f1_truth, harmonic,
        math.hypot(sensitivity, precision),
    )  # fmt: skip


def _harmonic(first: float, second: float) -> float:
    total = first + second
    return 2 * first * second / total if total else 0.0
