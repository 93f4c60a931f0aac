"""Numbers of lesions: against scipy, scikit-learn, and what papers print."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from shivacmb.evaluate.agreement import (
    KO_CLASSES,
    SHIVA_CLASSES,
    bland_altman,
    class_agreement,
    class_table,
    count_agreement,
    drawn_agreement,
    icc,
    kappas,
    ko_class,
    ko_verdict,
    patient_level,
    presence_verdict,
)
from shivacmb.evaluate.resampling import Bootstrap

#: Ko 2024, table S3: the scans that are not 0 in truth and 0 in prediction; 37 more are.
KO_TABLE_S3 = [
    (0, 1), (1, 1), (1, 1), (170, 88), (3, 3), (7, 7), (1, 1), (4, 0), (0, 1), (0, 1), (0, 1),
    (2, 2), (0, 1), (17, 9), (1, 1), (2, 0), (0, 1), (5, 5), (1, 1), (0, 1), (1, 0), (2, 2),
    (4, 4), (1, 1), (1, 3), (1, 3), (2, 1), (1, 1), (4, 4), (0, 2), (0, 1), *[(0, 0)] * 37,
]  # fmt: skip

#: Shrout & Fleiss 1979, table 2: four judges, six targets.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def draw(n: int, draws: int = 400) -> Bootstrap:
    return Bootstrap.draw([str(k) for k in range(n)], draws, 1)


def figures(truth: Any, predicted: Any) -> dict[str, Any]:
    found = count_agreement(np.array(truth), np.array(predicted), draw(len(truth)))
    return {figure.name: figure for figure in found}


def test_ko_external_validation_as_printed() -> None:
    found = patient_level([ko_verdict(*pair) for pair in KO_TABLE_S3], draw(68))
    assert len(KO_TABLE_S3) == 68
    printed = {
        'accuracy': (75.0, 63.6, 83.8),
        'sensitivity': (70.0, 48.1, 85.5),
        'specificity': (77.1, 63.5, 86.7),
    }
    for figure in found:
        in_percent = tuple(round(100 * x, 1) for x in (figure.value, figure.low, figure.high))
        assert in_percent == printed[figure.name]


def test_presence_is_another_reading_than_ko() -> None:
    assert (ko_verdict(1, 3), presence_verdict(1, 3)) == ('FP', 'TP')
    assert (ko_verdict(170, 88), presence_verdict(170, 88)) == ('FN', 'TP')
    assert [presence_verdict(*pair) for pair in ((0, 0), (0, 2), (3, 0))] == ['TN', 'FP', 'FN']


def test_exact_interval_on_request() -> None:
    exact = {
        f.name: f for f in patient_level(['TP'] * 14 + ['FN'] * 6, draw(20), 'clopper-pearson')
    }
    # beta quantiles of Clopper and Pearson
    assert exact['sensitivity'].low == pytest.approx(stats.beta.ppf(0.025, 14, 7))
    assert exact['sensitivity'].high == pytest.approx(stats.beta.ppf(0.975, 15, 6))
    assert math.isnan(exact['specificity'].value)


def test_intraclass_correlation_as_printed_by_shrout_and_fleiss() -> None:
    # their table 4: ICC(2,1) 0.29 and ICC(3,1) 0.71; intervals as McGraw & Wong's formulas give
    value, low, high = icc(SHROUT_FLEISS, 'agreement')
    assert (round(value, 2), round(low, 3), round(high, 3)) == (0.29, 0.019, 0.761)
    value, low, high = icc(SHROUT_FLEISS, 'consistency')
    assert (round(value, 2), round(low, 3), round(high, 3)) == (0.71, 0.342, 0.946)


def test_constant_offset_lowers_agreement_alone() -> None:
    x = np.array([0, 1, 4, 9, 2.0])
    assert icc(np.stack([x, x + 3], axis=1), 'consistency')[0] == pytest.approx(1)
    assert icc(np.stack([x, x + 3], axis=1), 'agreement')[0] < 0.9
    assert math.isnan(icc(np.zeros((5, 2)), 'agreement')[0])


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('kind', ['agreement', 'consistency'])
def test_scans_that_are_all_alike_have_no_intraclass_correlation(kind: str) -> None:
    assert all(math.isnan(number) for number in icc(np.array([[1.0, 5.0]] * 3), kind))


def test_correlations_and_line_against_scipy() -> None:
    rng = np.random.default_rng(5)
    x = rng.poisson(4, 60)
    y = np.clip(x + rng.integers(-2, 3, 60), 0, None)
    found = figures(x, y)
    assert found['pearson'].value == pytest.approx(np.corrcoef(x, y)[0, 1])
    z, wide = math.atanh(found['pearson'].value), 1.959964 / math.sqrt(57)
    assert found['pearson'].low == pytest.approx(math.tanh(z - wide))
    assert found['spearman'].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found['spearman'].low < found['spearman'].value < found['spearman'].high
    slope, offset = np.polyfit(x, y, 1)
    assert found['slope'].value == pytest.approx(slope)
    assert found['intercept'].value == pytest.approx(offset)


@pytest.mark.parametrize('n', [3, 6, 9])
def test_rank_correlation_of_few_scans_has_an_exact_test(n: int) -> None:
    y = np.arange(n)
    x = np.roll(y, 1)
    apart = np.abs(x - y)
    rank = figures(x, y)['spearman']
    orders = np.array(list(permutations(range(n))))
    rhos = 1 - 6 * ((orders - y) ** 2).sum(axis=1) / (n * (n * n - 1))
    rho = 1 - 6 * (apart**2).sum() / (n * (n * n - 1))
    assert rank.value == pytest.approx(rho)
    assert rank.p == pytest.approx((np.abs(rhos) >= abs(rho) - 1e-9).mean())


def test_order_of_three_scans_is_no_proof() -> None:
    rank = figures([4, 12, 28], [4, 9, 26])['spearman']  # of six orders two are as far from none
    assert (rank.value, rank.p) == (pytest.approx(1), pytest.approx(1 / 3))
    assert math.isnan(rank.low)
    assert math.isnan(rank.high)


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('n', [4, 12])
def test_scans_on_a_line_have_no_interval_without_width(n: int, sign: int) -> None:
    x = np.arange(n)
    found = figures(x, 20 + sign * x)
    for name in ('pearson', 'spearman', 'slope', 'intercept'):
        assert math.isnan(found[name].low), name
        assert math.isnan(found[name].high), name
    assert found['pearson'].value == pytest.approx(sign)
    assert math.isnan(found['pearson'].p)
    assert math.isnan(found['slope'].p)
    rank = found['spearman'].p
    assert math.isnan(rank) if n == 12 else rank == pytest.approx(2 / 24)


def test_bland_altman_by_hand() -> None:
    found = {f.name: f for f in bland_altman(np.array([0, 2, 4, 6]), np.array([1, 2, 7, 6]))}
    # differences 1 0 3 0: mean 1, sd sqrt(2); half width t(3) sqrt(2) / 2
    assert found['bias'].value == 1
    assert found['limit_high'].value == pytest.approx(1 + 1.96 * math.sqrt(2))
    assert found['bias'].high == pytest.approx(1 + 3.182446 * math.sqrt(2) / 2)


@pytest.mark.parametrize('counts', [[3], [0, 0, 0], [2, 2, 2, 2]])
def test_no_spread_gives_no_number_and_no_warning(counts: list[int]) -> None:
    found = figures(counts, counts)
    for name in ('pearson', 'spearman', 'slope', 'icc_agreement'):
        assert math.isnan(found[name].value)
    assert found['mean_absolute_difference'].value == 0


def test_classes_and_their_edges() -> None:
    assert [ko_class(n) for n in (0, 1, 10, 11)] == ['0', '1-10', '1-10', '>10']
    table = class_table([0, 1, 3, 4, 9, 10, 10], [0, 3, 4, 4, 10, 10, 0], 'shiva')
    assert len(SHIVA_CLASSES) == 4
    assert table.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    table = class_table([0, 10, 11], [1, 10, 10], 'ko')
    assert len(KO_CLASSES) == 3
    assert table.tolist() == [[0, 1, 0], [0, 1, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match='not negative'):
        ko_class(-1)


@pytest.mark.parametrize('weighting', ['none', 'linear', 'quadratic'])
@pytest.mark.parametrize('seed', range(4))
def test_kappa_and_table_against_scikit_learn(seed: int, weighting: str) -> None:
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(seed)
    a = rng.choice([0, 2, 5, 20], 50)
    b = np.where(rng.random(50) < 0.6, a, rng.choice([0, 2, 5, 20], 50))
    table = class_table(a.tolist(), b.tolist(), 'shiva')
    labels = [0, 2, 5, 20]
    assert table.tolist() == metrics.confusion_matrix(a, b, labels=labels).tolist()
    want = metrics.cohen_kappa_score(
        [labels.index(x) for x in a], [labels.index(x) for x in b],
        weights=None if weighting == 'none' else weighting, labels=[0, 1, 2, 3],
    )  # fmt: skip
    assert float(kappas(table, weighting)) == pytest.approx(want)


def test_class_agreement_has_intervals() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 2, 5, 20], 80).tolist()
    pred = [t if rng.random() < 0.73 else 0 for t in truth]
    found = {f.name: f for f in class_agreement(truth, pred, 'shiva', draw(80))}
    right = sum(a == b for a, b in zip(truth, pred, strict=True)) / 80
    assert found['shiva_classes_accuracy'].value == pytest.approx(right)
    for figure in found.values():
        assert figure.low < figure.value < figure.high


def sessions() -> tuple[Any, Any, Bootstrap]:
    """Counts of 12 participants with one to three scans."""
    rng = np.random.default_rng(8)
    owners = np.repeat(np.arange(12), rng.integers(1, 4, 12))
    x = rng.poisson(4, len(owners))
    y = np.clip(x + rng.integers(-2, 4, len(owners)), 0, None)
    return x, y, Bootstrap.draw([str(owner) for owner in owners], 200, 3)


def test_statistics_of_draws_are_those_of_the_repeated_sample() -> None:
    x, y, bootstrap = sessions()
    drawn = drawn_agreement(x.astype(float), y.astype(float), bootstrap)
    for number, weights in enumerate(bootstrap.weights):
        a, b = np.repeat(x, weights).astype(float), np.repeat(y, weights).astype(float)
        slope, intercept = np.polyfit(a, b, 1)
        spread = (b - a).std(ddof=1)
        want = {
            'pearson': np.corrcoef(a, b)[0, 1], 'slope': slope, 'intercept': intercept,
            'bias': (b - a).mean(), 'limit_low': (b - a).mean() - 1.96 * spread,
            'limit_high': (b - a).mean() + 1.96 * spread,
            'icc_agreement': icc(np.stack([a, b], axis=1), 'agreement')[0],
            'icc_consistency': icc(np.stack([a, b], axis=1), 'consistency')[0],
        }  # fmt: skip
        assert {name: values[number] for name, values in drawn.items()} == pytest.approx(want)


def test_intervals_of_several_scans_come_from_draws_of_participants() -> None:
    x, y, bootstrap = sessions()
    found = {figure.name: figure for figure in count_agreement(x, y, bootstrap)}
    for name, values in drawn_agreement(x.astype(float), y.astype(float), bootstrap).items():
        ends = np.percentile(values, [2.5, 97.5])
        assert (found[name].low, found[name].high) == pytest.approx(tuple(ends))
    assert all(math.isnan(figure.p) for figure in found.values())
    # the values are those of the scans, as before
    assert found['pearson'].value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found['bias'].value == pytest.approx((y - x).mean())


def test_scans_that_are_copies_narrow_no_interval() -> None:
    rng = np.random.default_rng(3)
    x = rng.poisson(3, 30)
    y = np.clip(x + rng.integers(-1, 2, 30), 0, None)
    verdicts = [ko_verdict(int(a), int(b)) for a, b in zip(x, y, strict=True)]
    named = [str(n) for n in range(30)]
    widths = []
    for copies in (1, 4):
        bootstrap = Bootstrap.draw(np.repeat(named, copies).tolist(), 4000, 1)
        a, b = np.repeat(x, copies), np.repeat(y, copies)
        found = [
            *count_agreement(a, b, bootstrap),
            *class_agreement(a.tolist(), b.tolist(), 'shiva', bootstrap),
            *patient_level(np.repeat(verdicts, copies).tolist(), bootstrap),
        ]
        widths.append({figure.name: figure.high - figure.low for figure in found})
    for name, wide in widths[0].items():
        assert widths[1][name] > 0.7 * wide, name  # a half, were the copies independent


def test_draws_without_spread_give_no_number() -> None:
    counts = np.array([0, 0, 3, 3, 0, 0])
    bootstrap = Bootstrap.draw(list('aabbcc'), 300, 1)
    drawn = drawn_agreement(counts * 1.0, counts + 1.0, bootstrap)
    assert bootstrap.interval(drawn['pearson']) == (1, 1)
    found = {figure.name: figure for figure in count_agreement(counts, counts + 1, bootstrap)}
    for name in ('pearson', 'slope'):  # of scans on a line no interval has a width
        assert math.isnan(found[name].low)
    assert (found['bias'].low, found['limit_high'].high) == (1, 1)
    alone = Bootstrap.draw(['a'] * 6, 300, 1)
    for figure in count_agreement(counts, counts + 1, alone):
        assert math.isnan(figure.low)
