"""Zero rules, both hit counts, both F1 forms, and the named rule sets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from shivacmb.cli import evaluate as cli
from shivacmb.evaluate import from_labels, from_points, from_probability, rule_sets, score_scan
from shivacmb.evaluate.pairs import KINDS
from shivacmb.evaluate.rules import RULE_NAMES, voxel_dice
from shivacmb.evaluate.scores import ZERO_RULES, Counts, ratios
from shivacmb.evaluate.sweeps import CRITERIA

NAN = math.nan


def rule(name: str, **changes: Any) -> Any:
    return next(item for item in rule_sets(**changes) if item.name == name)


@pytest.mark.parametrize(
    ('counts', 'expected'),
    [
        # SHIVA-CMB paper: sensitivity, precision, F1 of n_pred, n_truth, hits
        ((0, 0, 0, 0), (1, 1, 1)),
        ((2, 0, 0, 0), (0, 0, 0)),
        ((0, 2, 0, 0), (0, 0, 0)),
        ((4, 3, 2, 2), (2 / 3, 0.5, 4 / 7)),
    ],
)
def test_zero_rules_of_the_shiva_paper(counts: Any, expected: Any) -> None:
    found = ratios(Counts(*counts), 'shiva')
    assert (found.sensitivity, found.precision, found.f1_count) == pytest.approx(expected)
    assert found.f1_harmonic == pytest.approx(expected[2])  # one hit per lesion: forms agree


@pytest.mark.parametrize(
    ('counts', 'zero_rule', 'expected'),
    [
        ((0, 0, 0, 0), 'valdo', (NAN, NAN)),
        ((2, 0, 0, 0), 'valdo', (NAN, NAN)),
        ((0, 2, 0, 0), 'valdo', (0, 0)),
        ((0, 0, 0, 0), 'drop', (NAN, NAN)),
        ((2, 0, 0, 0), 'drop', (0, NAN)),
        ((0, 2, 0, 0), 'drop', (0, NAN)),
    ],
)
def test_other_zero_rules(counts: Any, zero_rule: Any, expected: Any) -> None:
    found = ratios(Counts(*counts), zero_rule)
    assert (found.f1_count, found.f1_harmonic) == pytest.approx(expected, nan_ok=True)


def test_forms_of_f1_differ_where_hits_differ() -> None:
    # three predictions, two of them fragments of one lesion; two lesions, one missed
    found = ratios(Counts(3, 2, 2, 1), 'shiva')
    assert found.sensitivity == 1 / 2
    assert found.precision == 2 / 3
    assert found.sensitivity_by_predictions == 2 / 3  # TP / (TP + FN) with two TP
    assert found.f1_count == pytest.approx(4 / 6)  # 2*2 / (2*2 + 1 + 1)
    assert found.f1_count_truth == pytest.approx(2 / 4)  # 2*1 / (2*1 + 1 + 1)
    assert found.f1_harmonic == pytest.approx(4 / 7)
    assert found.magnitude == pytest.approx(math.sqrt(1 / 4 + 4 / 9))


@pytest.mark.parametrize('zero_rule', list(ZERO_RULES))
@pytest.mark.parametrize('seed', range(5))
def test_forms_agree_with_scikit_learn_when_one_to_one(seed: int, zero_rule: Any) -> None:
    metrics = pytest.importorskip('sklearn.metrics')
    hits, false, missed = np.random.default_rng(seed).integers(1, 9, 3)
    truth = [1] * (hits + missed) + [0] * false
    pred = [1] * hits + [0] * missed + [1] * false
    found = ratios(Counts(hits + false, hits + missed, hits, hits), zero_rule)
    assert found.sensitivity == pytest.approx(metrics.recall_score(truth, pred))
    assert found.precision == pytest.approx(metrics.precision_score(truth, pred))
    for value in (found.f1_count, found.f1_count_truth, found.f1_harmonic):
        assert value == pytest.approx(metrics.f1_score(truth, pred))


def test_shiva_leaves_out_two_voxels_on_both_sides(make_lesions: Any) -> None:
    truth = make_lesions(((2, 2, 2), (1, 1, 2)), ((10, 10, 10), (1, 1, 3)))
    pred = make_lesions(((2, 2, 2), (1, 1, 3)), ((20, 20, 20), (1, 1, 2)))
    score = score_scan(rule('shiva'), pred, truth)
    # left: a prediction on the small lesion that is gone, and the lesion nobody touches
    assert score.counts == Counts(1, 1, 0, 0)
    assert score.truth_used.tolist() == [False, True]
    assert score.pred_used.tolist() == [True, False]
    all_sizes = score_scan(rule('shiva', shiva_min_voxels=1), pred, truth)
    assert all_sizes.counts == Counts(2, 2, 1, 1)


def test_small_by_volume_is_small_by_voxels_on_the_papers_grid(make_lesions: Any) -> None:
    places = [((2, 2, 2), (1, 1, 1)), ((9, 9, 9), (1, 1, 2)), ((20, 20, 20), (1, 1, 3))]
    for spacing, by_voxels, by_volume in (
        ((1, 1, 1), 1, 1),  # 1, 2 and 3 mm3: only the last is over 2 mm3 and has 3 voxels
        ((1.2, 1.2, 2.2), 1, 3),  # 3.2, 6.3 and 9.5 mm3
        ((0.5, 0.5, 1), 1, 0),  # 0.25, 0.5 and 0.75 mm3
    ):
        found = make_lesions(*places, affine=np.diag([*spacing, 1.0]))
        assert score_scan(rule('shiva'), found, found).counts.n_truth == by_voxels
        assert score_scan(rule('shiva-mm3'), found, found).counts.n_truth == by_volume
    turned = np.eye(4)
    turned[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]  # a volume of 1 up to rounding
    oblique = make_lesions(*places, affine=turned * [1 + 1e-7, 1, 1, 1])
    assert score_scan(rule('shiva-mm3'), oblique, oblique).counts.n_truth == 1


def test_deepmir_says_its_unit(make_lesions: Any) -> None:
    affine = np.diag([1.0, 1.0, 1.5, 1.0])
    truth = make_lesions(((5, 5, 5), (1, 1, 1)), affine=affine)
    pred = make_lesions(((5, 5, 7), (1, 1, 1)), affine=affine)  # 2 voxels, 3 mm
    scores = {item.name: score_scan(item, pred, truth) for item in rule_sets(['deepmir'])}
    assert set(scores) == {'deepmir-mm', 'deepmir-voxel'}
    assert scores['deepmir-voxel'].counts.tp_truth == 1
    assert scores['deepmir-mm'].counts.tp_truth == 0
    assert set(scores['deepmir-mm'].by_zero_rule) == {'drop', 'shiva'}


def test_valdo_dice_takes_the_losers_along(make_boxes: Any) -> None:
    truth = from_labels(make_boxes({1: [((5, 5, 5), (6, 1, 1))]}), np.eye(4))
    pred = from_labels(
        make_boxes({1: [((6, 5, 5), (2, 1, 1))], 2: [((9, 5, 5), (3, 1, 1))]}), np.eye(4)
    )  # centres: lesion 7.5, predictions 6.5 and 10
    score = score_scan(rule('valdo-voxel'), pred, truth)
    assert score.counts == Counts(2, 1, 1, 1)
    assert score.by_zero_rule['valdo'].f1_count == pytest.approx(2 / 3)  # 2 / (2 + 1)
    assert score.dice_hits == pytest.approx(2 * 4 / (5 + 6))  # shared: 6, 7, 9, 10
    assert score.count_difference == 1


def test_valdo_without_hit_or_truth(make_lesions: Any) -> None:
    far, near = make_lesions(((1, 1, 1), (2, 2, 2))), make_lesions(((30, 30, 30), (2, 2, 2)))
    nothing = make_lesions()
    missed = score_scan(rule('valdo-voxel'), far, near)
    assert (missed.dice_hits, missed.by_zero_rule['valdo'].f1_count) == (0.0, 0.0)
    assert math.isnan(score_scan(rule('valdo-voxel'), far, nothing).dice_hits)
    assert score_scan(rule('valdo-voxel'), nothing, near).dice_hits == 0.0


def test_valdo_ties_count_twice_as_in_its_code(make_lesions: Any) -> None:
    truth = make_lesions(((10, 10, 10), (1, 1, 1)))
    pred = make_lesions(((9, 10, 10), (1, 1, 1)), ((11, 10, 10), (1, 1, 1)))
    score = score_scan(rule('valdo-voxel'), pred, truth)
    # two TP, FN = 1 - 2: 2*2 / (-1 + 0 + 2*2)
    assert score.by_zero_rule['valdo'].f1_count == pytest.approx(4 / 3)


def test_volume_difference_weighs_by_probability(make_lesions: Any) -> None:
    prob = np.zeros((40, 40, 40), np.float32)
    prob[5, 5, 5:9] = 0.5
    pred = from_probability(prob, np.eye(4), threshold=0.5)
    truth = make_lesions(((5, 5, 5), (1, 1, 6)))
    assert score_scan(rule('valdo-voxel'), pred, truth).volume_difference_mm3 == 4.0


def test_voxel_dice(make_lesions: Any) -> None:
    truth = make_lesions(((5, 5, 5), (2, 1, 1)), ((9, 9, 9), (1, 1, 1)))
    pred = make_lesions(((6, 5, 5), (2, 1, 1)))
    assert voxel_dice(pred, truth) == pytest.approx(2 * 1 / (2 + 3))
    assert voxel_dice(make_lesions(), truth) == 0
    assert math.isnan(voxel_dice(pred, make_lesions()))


def test_one_zero_rule_for_all() -> None:
    assert {item.zero_rules for item in rule_sets(zero_rule='drop')} == {('drop',)}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match='no rule set'):
        rule_sets(['best'])
    with pytest.raises(ValueError, match='zero_rule is one of'):
        ratios(Counts(0, 0, 0, 0), 'one')  # type: ignore[arg-type]


def test_parser_knows_the_same_names() -> None:
    assert cli.RULES == RULE_NAMES
    assert tuple(item.name for item in rule_sets()) == cli.MATCHED
    assert cli.KINDS == KINDS
    assert tuple(ZERO_RULES) == cli.ZERO_RULES
    assert cli.CRITERIA == CRITERIA


def test_no_prediction_has_a_voxel_dice_of_zero_however_it_is_said(make_lesions: Any) -> None:
    truth = make_lesions(((5, 5, 5), (2, 1, 1)))
    nothing = from_points(np.zeros((0, 3)), truth.shape, truth.affine)
    point = from_points(np.array([[5.0, 5, 5]]), truth.shape, truth.affine)
    assert voxel_dice(nothing, truth) == 0
    assert math.isnan(voxel_dice(nothing, make_lesions()))
    assert math.isnan(voxel_dice(point, truth))
    assert math.isnan(voxel_dice(make_lesions(), point))


def test_points_without_extent_have_no_dice_and_no_volume(make_lesions: Any) -> None:
    lesion = make_lesions(((4, 4, 4), (3, 3, 3)))
    place = np.array([[5.0, 5, 5]])
    point = from_points(place, lesion.shape, lesion.affine)
    ball = from_points(place, lesion.shape, lesion.affine, np.array([1.5]))
    for pred, truth in ((lesion, point), (point, lesion)):
        score = score_scan(rule('valdo-mm'), pred, truth)
        assert score.counts.tp_truth == 1
        assert math.isnan(score.dice_hits)
        assert math.isnan(score.volume_difference_mm3)
    sized = score_scan(rule('valdo-mm'), lesion, ball)
    assert sized.dice_hits == pytest.approx(2 * 19 / (27 + 19))
    assert sized.volume_difference_mm3 == pytest.approx(27 - 4 / 3 * np.pi * 1.5**3)


def test_volume_is_that_of_the_lesions_that_take_part(make_lesions: Any) -> None:
    truth = make_lesions(((2, 2, 2), (1, 1, 2)), ((10, 10, 10), (1, 1, 3)))
    pred = make_lesions(((10, 10, 10), (1, 1, 5)))
    assert score_scan(rule('shiva'), pred, truth).volume_difference_mm3 == 2
    assert score_scan(rule('valdo-mm'), pred, truth).volume_difference_mm3 == 0


def test_valdo_leaves_scans_without_lesions_out_of_every_mean() -> None:
    for counts in (Counts(2, 0, 0, 0), Counts(0, 0, 0, 0)):
        assert all(math.isnan(value) for value in vars(ratios(counts, 'valdo')).values())
    found = ratios(Counts(0, 2, 0, 0), 'valdo')
    assert (found.sensitivity, found.f1_count, found.f1_harmonic) == (0, 0, 0)
    assert math.isnan(found.precision)
