"""Draws of subjects, and tests of pairs, against plain loops and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shivacmb.evaluate.resampling import Bootstrap, compare_paired, proportion_interval
from shivacmb.evaluate.strata import shares


def test_scans_of_a_subject_are_drawn_together() -> None:
    drawn = Bootstrap.draw(['a', 'b', 'a', 'c'], 200, 3)
    assert drawn.subjects == 3
    assert np.array_equal(drawn.weights[:, 0], drawn.weights[:, 2])
    assert (drawn.weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_seed_decides_and_nothing_else() -> None:
    first, again, other = (Bootstrap.draw(list('abcdef'), 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.weights, other.weights)


@pytest.mark.parametrize('missing', [False, True])
def test_means_and_medians_are_those_of_the_repeated_sample(missing: bool) -> None:
    rng = np.random.default_rng(7)
    values = rng.normal(size=9)
    if missing:
        values[[2, 5]] = np.nan
    drawn = Bootstrap.draw([str(n) for n in range(9)], 60, 4)
    means, medians = drawn.means(values), drawn.medians(values)
    for weights, mean, median in zip(drawn.weights, means, medians, strict=True):
        sample = np.repeat(values, weights)
        sample = sample[~np.isnan(sample)]
        assert mean == pytest.approx(sample.mean())
        assert median == pytest.approx(np.median(sample))


def test_interval_of_a_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    drawn = Bootstrap.draw([str(n) for n in range(40)], 20000, 5)
    low, high = drawn.interval(drawn.means(values))
    want = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method='percentile',
        rng=np.random.default_rng(6),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((want.low, want.high), abs=0.01)


def test_lesions_of_one_subject_widen_the_interval() -> None:
    hits = np.repeat([1.0, 0.0] * 5, 20)
    by_subject = Bootstrap.draw(np.repeat(np.arange(10), 20).astype(str).tolist(), 1000, 1)
    by_lesion = Bootstrap.draw([str(n) for n in range(200)], 1000, 1)
    wide, narrow = (np.ptp(b.interval(b.means(hits))) for b in (by_subject, by_lesion))
    assert wide > 2.5 * narrow


def test_one_subject_or_no_draw_gives_no_interval() -> None:
    for drawn in (Bootstrap.draw(['a', 'a'], 100, 1), Bootstrap.draw(['a', 'b'], 0, 1)):
        assert all(math.isnan(end) for end in drawn.interval(drawn.means(np.array([1.0, 2.0]))))


def test_wilson_by_its_formula() -> None:
    n, p, z = 20, 0.7, 1.959964
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert proportion_interval(14, 20) == pytest.approx((middle - half, middle + half))
    assert math.isnan(proportion_interval(0, 0)[0])
    with pytest.raises(ValueError, match='wilson or clopper-pearson'):
        proportion_interval(1, 2, 'wald')


def test_paired_comparison_against_scipy() -> None:
    rng = np.random.default_rng(2)
    first = rng.random(30)
    second = first + rng.normal(0.1, 0.1, 30)
    first[4] = np.nan
    drawn = Bootstrap.draw([str(n) for n in range(30)], 2000, 9)
    found = compare_paired(first, second, drawn)
    both = ~np.isnan(first)
    a, b = first[both], second[both]
    assert found.scans == 29
    assert found.difference == pytest.approx((b - a).mean())
    assert found.low < found.difference < found.high
    assert found.signed_rank_p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert found.rank_sum_p == pytest.approx(stats.mannwhitneyu(a, b).pvalue)
    assert found.signed_rank_p < 0.001 < found.rank_sum_p  # the pairing is what shows it


def test_equal_sets_differ_by_nothing() -> None:
    values = np.array([0.2, 0.5, 0.9])
    found = compare_paired(values, values, Bootstrap.draw(['a', 'b', 'c'], 100, 1))
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.signed_rank_p, found.rank_sum_p) == (1, 1)


def test_one_participant_of_several_has_no_interval() -> None:
    drawn = Bootstrap.draw(['a', 'a', 'b', 'c'], 200, 0)
    values = np.array([0.0, 1.0, 0.5, 0.2])
    alone, two = drawn.of(np.array([True, True, False, False])), drawn.of(np.array([0, 1, 2]))
    assert (alone.subjects, two.subjects) == (1, 2)
    assert all(math.isnan(end) for end in alone.interval(alone.means(values[:2])))
    assert math.isfinite(two.interval(two.means(values[:3]))[0])


def test_shares_count_the_participants_that_carry_the_class() -> None:
    drawn = Bootstrap.draw(['a', 'a', 'b', 'c'], 200, 0)
    hits, scans = np.array([True, False, True, False]), np.array([0, 1, 2, 3])
    one, many = shares(['x', 'x', 'y', 'y'], hits, scans, ['x', 'y'], drawn)
    assert (one.total, many.total) == (2, 2)
    assert all(math.isnan(end) for end in one.drawn)
    assert many.drawn == (0, 1)


def test_measure_of_one_participant_has_no_interval() -> None:
    drawn = Bootstrap.draw(['a', 'a', 'b'], 200, 0)
    first = np.array([0.0, 1.0, np.nan])
    paired = compare_paired(first, first + 0.1, drawn)
    assert (paired.scans, math.isnan(paired.low)) == (2, True)


def test_share_among_scans_of_several_participants() -> None:
    drawn = Bootstrap.draw(['a', 'a', 'b', 'b', 'c', 'd'], 4000, 0)
    hits = np.array([True, True, False, False, True, True])
    everywhere = np.ones(6, bool)
    # all draws of b alone have the share 0, all without b 1: each with a chance of over 2.5 %
    four = Bootstrap.draw(['a', 'a', 'b', 'b'], 4000, 0)
    assert four.proportion(hits[:4], np.ones(4, bool)) == (0, 1)
    want = drawn.interval(drawn.means(hits.astype(float)))
    assert drawn.proportion(hits, everywhere) == want
    # all right: no draw changes that, and four participants are not six
    assert drawn.proportion(everywhere, everywhere) == proportion_interval(4, 4)
    assert drawn.proportion(~everywhere, everywhere, 'clopper-pearson') == proportion_interval(
        0, 4, 'clopper-pearson'
    )
    # one scan each of those that count
    some = np.array([True, False, True, False, True, True])
    assert drawn.proportion(hits, some) == proportion_interval(3, 4)
    assert math.isnan(drawn.proportion(hits, ~everywhere)[0])


def test_tests_of_pairs_count_participants_not_scans() -> None:
    rng = np.random.default_rng(2)
    first = rng.random(12)
    second = first + rng.normal(0.05, 0.12, 12)
    names = [str(n) for n in range(12)]
    once = compare_paired(first, second, Bootstrap.draw(names, 500, 1))
    copies = compare_paired(
        np.repeat(first, 4), np.repeat(second, 4),
        Bootstrap.draw(np.repeat(names, 4).tolist(), 500, 1),
    )  # fmt: skip
    assert (copies.scans, copies.subjects, once.subjects) == (48, 12, 12)
    assert copies.signed_rank_p == pytest.approx(once.signed_rank_p)
    assert copies.rank_sum_p == pytest.approx(once.rank_sum_p)
    # the same scores in another order are equal, whatever their sum rounds to
    a = np.array([0.1, 0.2, 0.3, 0.5])
    b = np.array([0.3, 0.2, 0.1, 0.5])
    equal = compare_paired(a, b, Bootstrap.draw(['a', 'a', 'a', 'b'], 50, 1))
    assert (equal.signed_rank_p, equal.subjects) == (1, 2)
