"""How well numbers of lesions agree: scan by scan, class by class, person by person."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.evaluate.resampling import NOT_KNOWN, Bootstrap
from shivacmb.lesions import burden_class

Array = npt.NDArray[Any]
SHIVA_CLASSES = ('0', '1-3', '4-9', '>=10')
#: Fisher's interval divides by the root of n - 3.
_FEWEST = 4
#: Up to here all pairings are tried: 362880.
_EXACT = 9
KO_CLASSES = ('0', '1-10', '>10')


@dataclass(frozen=True)
class Figure:
    """One statistic: value, 95 % interval, p where there is a test, and the number of scans.

    Intervals by formula and tests take scans as independent. Where a participant has several,
    intervals come from draws of participants, and there is no p.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    n: int = 0


def ko_class(count: int) -> str:
    """Give the class of a count in Ko 2024: ``0``, ``1-10`` or ``>10``; 10 itself is low."""
    if count < 0:
        raise ValueError(f'A count of lesions is not negative: {count}')
    return '0' if count == 0 else '1-10' if count <= 10 else '>10'


def ko_verdict(truth: int, predicted: int) -> str:
    """Give TN, TP, FN or FP of one patient by numbers alone (Ko 2024, table S3).

    Equal numbers are right, too few are a miss, too many are a false positive: a patient with
    lesions and more predictions than lesions is FP, not TP.
    """
    if truth == predicted:
        return 'TP' if truth else 'TN'
    return 'FN' if predicted < truth else 'FP'


def presence_verdict(truth: int, predicted: int) -> str:
    """Give TN, TP, FN or FP of one patient by whether there is any lesion."""
    if truth:
        return 'TP' if predicted else 'FN'
    return 'FP' if predicted else 'TN'


def patient_level(
    verdicts: Sequence[str], bootstrap: Bootstrap, method: str = 'wilson'
) -> list[Figure]:
    """Sensitivity, specificity and accuracy of verdicts.

    Parameters
    ----------
    verdicts : sequence of str
        TN, TP, FN, FP; one per scan.
    bootstrap : Bootstrap
        Over the same scans.
    method : {'wilson', 'clopper-pearson'}
        Of the intervals; Ko's are Wilson's.
    """
    given = np.asarray(verdicts, str)
    right = np.isin(given, ('TP', 'TN'))
    groups = {
        'sensitivity': np.isin(given, ('TP', 'FN')),
        'specificity': np.isin(given, ('TN', 'FP')),
        'accuracy': np.ones(len(given), bool),
    }
    return [
        Figure(
            name,
            float(right[mine].mean()) if mine.any() else math.nan,
            *bootstrap.proportion(right, mine, method),
            n=int(mine.sum()),
        )
        for name, mine in groups.items()
    ]


def count_agreement(truth: Array, predicted: Array, bootstrap: Bootstrap) -> list[Figure]:
    """Correlation, regression, Bland-Altman and intraclass correlation of two counts.

    Parameters
    ----------
    truth, predicted : (N,) array of int
        Per scan.
    bootstrap : Bootstrap
        Over the same scans.

    Returns
    -------
    list of Figure
        NaN where a statistic is not defined: fewer than three scans, or no spread; see also
        :func:`_without_degenerate`.
    """
    x, y = np.asarray(truth, float), np.asarray(predicted, float)
    n = len(x)
    figures = [*_correlations(x, y, bootstrap), *_regression(x, y), *bland_altman(x, y)]
    for kind in ('agreement', 'consistency'):
        value, low, high = icc(np.stack([x, y], axis=1), kind)
        figures.append(Figure(f'icc_{kind}', value, low, high, n=n))
    figures.append(
        Figure(
            'mean_absolute_difference',
            float(np.abs(y - x).mean()) if n else math.nan,
            *bootstrap.interval(bootstrap.means(np.abs(y - x))),
            n=n,
        )
    )
    if bootstrap.repeated:
        figures = _by_participant(figures, x, y, bootstrap)
    return _without_degenerate(figures, bootstrap.subjects)


def _without_degenerate(figures: Sequence[Figure], subjects: int) -> list[Figure]:
    """Leave out what formulas and draws cannot tell.

    A correlation of fewer than four participants has no interval. Where all scans lie on one line
    the intervals of correlation and line have no width, and a t test says p = 0, whatever the
    number of scans; the ranks of few scans have an exact test.
    """
    perfect = {
        figure.name
        for figure in figures
        if figure.name in ('pearson', 'spearman') and 1 - abs(figure.value) < 1e-12
    }
    if 'pearson' in perfect:
        perfect |= {'slope', 'intercept'}
    found = []
    for figure in figures:
        if figure.name in perfect:
            exact = figure.name == 'spearman' and figure.n <= _EXACT
            figure = replace(
                figure, low=math.nan, high=math.nan, p=figure.p if exact else math.nan
            )
        elif figure.name in ('pearson', 'spearman') and subjects < _FEWEST:
            figure = replace(figure, low=math.nan, high=math.nan)
        found.append(figure)
    return found


def _by_participant(
    figures: Sequence[Figure], x: Array, y: Array, bootstrap: Bootstrap
) -> list[Figure]:
    """Put intervals from draws in the place of those by formula, and leave out p."""
    drawn = drawn_agreement(x, y, bootstrap)
    ends = {name: bootstrap.interval(values) for name, values in drawn.items()}
    found = []
    for figure in figures:
        low, high = ends.get(figure.name, (figure.low, figure.high))
        if math.isnan(figure.value):
            low, high = NOT_KNOWN
        found.append(replace(figure, low=low, high=high, p=math.nan))
    return found


def drawn_agreement(x: Array, y: Array, bootstrap: Bootstrap) -> dict[str, Array]:
    """Statistics of :func:`count_agreement` that have an interval by formula, of each draw.

    Parameters
    ----------
    x, y : (N,) array of float
        True and predicted counts: whole numbers, so that the sums are exact and a draw without
        spread has none by rounding.
    bootstrap : Bootstrap
        Over the same scans.

    Returns
    -------
    dict of str to (B,) array of float
        NaN or infinite where a draw has no spread.
    """
    columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    n, sum_x, sum_y, *squares = bootstrap.sums(columns).T
    with np.errstate(invalid='ignore', divide='ignore'):
        # n times the sums of squares and of products about the means
        xx, yy, xy = (
            n * square - first * second
            for square, first, second in zip(
                squares, (sum_x, sum_y, sum_x), (sum_x, sum_y, sum_y), strict=True
            )
        )
        slope, bias = xy / xx, (sum_y - sum_x) / n
        free = n * (n - 1)
        spread = np.sqrt((xx + yy - 2 * xy) / free)
        rows, error = (xx + yy + 2 * xy) / 2 / free, spread**2 / 2
        return {
            'pearson': xy / np.sqrt(xx * yy),
            'slope': slope,
            'intercept': (sum_y - slope * sum_x) / n,
            'bias': bias,
            'limit_low': bias - 1.96 * spread,
            'limit_high': bias + 1.96 * spread,
            'icc_agreement': (rows - error) / (rows + error + bias**2 - 2 * error / n),
            'icc_consistency': (rows - error) / (rows + error),
        }


def _correlations(x: Array, y: Array, bootstrap: Bootstrap) -> list[Figure]:
    from scipy.stats import pearsonr, rankdata, spearmanr

    n = len(x)
    if n < 3 or not np.ptp(x) or not np.ptp(y):
        return [Figure('pearson', math.nan, n=n), Figure('spearman', math.nan, n=n)]
    found = pearsonr(x, y)
    low, high = found.confidence_interval(0.95) if n > 3 else NOT_KNOWN
    figures = [Figure('pearson', found.statistic, float(low), float(high), found.pvalue, n)]
    ranks = spearmanr(x, y)
    p = _exact_p(rankdata(x), rankdata(y)) if n <= _EXACT else ranks.pvalue
    drawn = []
    for weights in bootstrap.weights:
        scans = np.repeat(np.arange(n), weights)
        first, second = rankdata(x[scans]), rankdata(y[scans])
        drawn.append(_pearson(first, second))
    interval = bootstrap.interval(np.array(drawn))
    figures.append(Figure('spearman', ranks.statistic, *interval, p, n))
    return figures


def _exact_p(x: Array, y: Array) -> float:
    """Two-sided p of a rank correlation from all pairings; t is far off for few scans."""
    from scipy.stats import permutation_test

    y = y - y.mean()  # halves, so that sums are exact and equal ones compare as equal
    found = permutation_test(
        (x - x.mean(),), lambda drawn, axis: np.sum(drawn * y, axis=axis), vectorized=True,
        permutation_type='pairings', n_resamples=math.factorial(len(x)), batch=20_000,
    )  # fmt: skip
    return float(found.pvalue)


def _pearson(x: Array, y: Array) -> float:
    """Plain correlation; scipy's tests would cost a second over the draws."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def _regression(x: Array, y: Array) -> list[Figure]:
    """Least squares of predicted on true counts."""
    from scipy.stats import linregress, t

    n = len(x)
    if n < 3 or not np.ptp(x):
        return [Figure('slope', math.nan, n=n), Figure('intercept', math.nan, n=n)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        line = linregress(x, y)
    wide = float(t.ppf(0.975, n - 2))
    return [
        Figure(
            'slope', line.slope, line.slope - wide * line.stderr, line.slope + wide * line.stderr,
            line.pvalue, n,
        ),
        Figure(
            'intercept', line.intercept, line.intercept - wide * line.intercept_stderr,
            line.intercept + wide * line.intercept_stderr, n=n,
        ),
    ]  # fmt: skip


def bland_altman(truth: Array, predicted: Array) -> list[Figure]:
    """Bias (predicted minus true) and limits of agreement with intervals (Bland & Altman 1986)."""
    from scipy.stats import t

    difference = np.asarray(predicted, float) - np.asarray(truth, float)
    n = len(difference)
    names = ('bias', 'limit_low', 'limit_high')
    if n < 2:
        return [Figure(name, math.nan, n=n) for name in names]
    bias, spread = float(difference.mean()), float(difference.std(ddof=1))
    wide = float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
    far = wide * math.sqrt(3)  # the variance of a limit is about three times that of the bias
    values = (bias, bias - 1.96 * spread, bias + 1.96 * spread)
    return [
        Figure(name, value, value - error, value + error, n=n)
        for name, value, error in zip(names, values, (wide, far, far), strict=True)
    ]


def icc(ratings: Array, kind: str) -> tuple[float, float, float]:
    """Intraclass correlation of single ratings with its 95 % interval (McGraw & Wong 1996).

    Written out because the libraries that have it are either copyleft or bring a statistics
    package along (docs/decisions/0081).

    Parameters
    ----------
    ratings : (N, K) array of float
        Scans by raters.
    kind : {'agreement', 'consistency'}
        ICC(A,1), which a constant offset lowers, or ICC(C,1), which it does not.
    """
    from scipy.stats import f

    n, k = ratings.shape
    total = ratings.mean() if n else 0.0
    if n < 3 or not np.ptp(ratings):
        return math.nan, math.nan, math.nan
    rows = k * ((ratings.mean(axis=1) - total) ** 2).sum() / (n - 1)
    columns = n * ((ratings.mean(axis=0) - total) ** 2).sum() / (k - 1)
    free = (n - 1) * (k - 1)
    rest = ((ratings - total) ** 2).sum() - rows * (n - 1) - columns * (k - 1)
    error = max(float(rest), 0.0) / free
    if not rows and not error:  # scans that are all alike tell nothing, whatever the offset
        return math.nan, math.nan, math.nan
    if kind == 'consistency':
        value = (rows - error) / (rows + (k - 1) * error)
        if not error:
            return float(value), float(value), float(value)
        low = rows / error / f.ppf(0.975, n - 1, free)
        high = rows / error * f.ppf(0.975, free, n - 1)
        return float(value), float((low - 1) / (low + k - 1)), float((high - 1) / (high + k - 1))
    value = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    if not error and not columns:
        return float(value), float(value), float(value)
    if value >= 1 or not error:
        return float(value), math.nan, math.nan
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    inner = (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / free
    v = (a * columns + b * error) ** 2 / inner
    rows_free = k * columns + (k * n - k - n) * error
    under, over = f.ppf(0.975, n - 1, v), f.ppf(0.975, v, n - 1)
    low = n * (rows - under * error) / (under * rows_free + n * rows)
    high = n * (over * rows - error) / (rows_free + n * over * rows)
    return float(value), float(low), float(high)


def class_table(truth: Sequence[int], predicted: Sequence[int], scheme: str) -> Array:
    """Confusion matrix of classes of counts, rows the truth.

    Parameters
    ----------
    truth, predicted : sequence of int
        Per scan.
    scheme : {'shiva', 'ko'}
        Four classes (0, 1-3, 4-9, 10 and more) or three (0, 1-10, more than 10).
    """
    return np.asarray(_one_hot(truth, predicted, scheme).sum(axis=0))


def _one_hot(truth: Sequence[int], predicted: Sequence[int], scheme: str) -> Array:
    """One confusion matrix per scan, (N, K, K)."""
    names, classify = (
        (SHIVA_CLASSES, burden_class) if scheme == 'shiva' else (KO_CLASSES, ko_class)
    )
    tables: Array = np.zeros((len(truth), len(names), len(names)), np.int64)
    for scan, (x, y) in enumerate(zip(truth, predicted, strict=True)):
        tables[scan, names.index(classify(int(x))), names.index(classify(int(y)))] = 1
    return tables


def kappas(tables: Array, weighting: str) -> Array:
    """Cohen's kappa of many confusion matrices at once, as a bootstrap needs it.

    Parameters
    ----------
    tables : (..., K, K) array
        Confusion matrices.
    weighting : {'none', 'linear', 'quadratic'}
        Cost of a disagreement by the distance of the classes.

    Returns
    -------
    (...) array of float
        NaN where all scans are in one class on both sides.
    """
    size = tables.shape[-1]
    apart = np.abs(np.arange(size)[:, None] - np.arange(size))
    cost = {'none': (apart > 0).astype(float), 'linear': apart, 'quadratic': apart**2}[weighting]
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    total = rows.sum(axis=-1)
    with np.errstate(invalid='ignore', divide='ignore'):
        chance = (rows[..., :, None] * columns[..., None, :] * cost).sum(axis=(-1, -2)) / total
        return np.asarray(1 - (tables * cost).sum(axis=(-1, -2)) / chance)


def class_agreement(
    truth: Sequence[int], predicted: Sequence[int], scheme: str, bootstrap: Bootstrap
) -> list[Figure]:
    """Accuracy and kappas of classes of counts; see :func:`class_table`."""
    tables = _one_hot(truth, predicted, scheme)
    n = len(truth)
    drawn = bootstrap.sums(tables)
    right = np.trace(tables, axis1=1, axis2=2).astype(bool)
    accuracy = bootstrap.proportion(right, np.ones(n, bool))
    named = {'shiva': 'shiva_classes', 'ko': 'ko_groups'}[scheme]
    figures = [Figure(f'{named}_accuracy', float(right.mean()) if n else math.nan, *accuracy, n=n)]
    for weighting in ('none', 'linear', 'quadratic'):
        value = float(kappas(tables.sum(axis=0), weighting))
        interval = bootstrap.interval(kappas(drawn, weighting))
        figures.append(Figure(f'{named}_kappa_{weighting}', value, *interval, n=n))
    return figures
