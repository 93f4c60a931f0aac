"""Means, medians and pooled figures over scans, and the paper's table made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from shivacmb.evaluate import rule_sets, score_scan
from shivacmb.evaluate.columns import MEASURES
from shivacmb.evaluate.resampling import Bootstrap
from shivacmb.evaluate.strata import (
    field_class,
    scan_strata,
    shares,
    size_classes,
    size_names,
    thickness_class,
)
from shivacmb.evaluate.summaries import summarise

BOX = (2, 2, 2)


@pytest.fixture
def scores(make_lesions: Any) -> dict[str, list[Any]]:
    """Three scans: 2 of 2 found and 1 wrong; nothing on either side; 0 of 2 found."""
    places = [((5, 5, 5), BOX), ((20, 5, 5), BOX), ((5, 30, 5), BOX)]
    scans = [
        (make_lesions(*places), make_lesions(*places[:2])),
        (make_lesions(), make_lesions()),
        (make_lesions(), make_lesions(*places[:2])),
    ]
    return {
        rule.name: [score_scan(rule, pred, truth) for pred, truth in scans] for rule in rule_sets()
    }


def row(rows: Any, measure: str, aggregate: str, zero_rule: str = '') -> Any:
    return next(
        item
        for item in rows
        if (item.measure, item.aggregate) == (measure, aggregate)
        and item.zero_rule in (zero_rule, 'n/a')
    )


def bootstrap() -> Bootstrap:
    return Bootstrap.draw(['a', 'b', 'c'], 200, 1)


def test_shiva_per_scan_and_pooled(scores: Any) -> None:
    rows = summarise(scores['shiva'], bootstrap())
    # per scan: sensitivity 1 1 0, precision 2/3 1 0, F1 4/5 1 0
    mean = row(rows, 'sensitivity', 'mean', 'shiva')
    assert mean.value == pytest.approx(2 / 3)
    assert mean.spread == pytest.approx(np.std([1, 1, 0], ddof=1))
    assert row(rows, 'precision', 'mean', 'shiva').value == pytest.approx(5 / 9)
    assert row(rows, 'f1_count', 'mean', 'shiva').value == pytest.approx(0.6)
    # pooled: 4 lesions, 2 found; 3 predictions, 2 right; three scans
    pooled = {item.measure: item.value for item in rows if item.aggregate == 'pooled'}
    assert pooled['sensitivity'] == 1 / 2
    assert pooled['precision'] == pytest.approx(2 / 3)
    assert pooled['f1_count'] == pytest.approx(4 / 7)
    assert pooled['f1_harmonic'] == pytest.approx(4 / 7)
    assert pooled['fp_avg'] == pytest.approx(1 / 3)
    assert pooled['fp_cmb'] == pytest.approx(1 / 4)


def test_pooled_figure_of_one_participant_has_no_interval(make_lesions: Any) -> None:
    box, other = ((5, 5, 5), (3, 3, 3)), ((20, 5, 5), (3, 3, 3))
    sides = [((), ()), ((box,), ()), ((box,), (box, other)), ((), ())]
    rule = rule_sets(['shiva'])[0]
    scores = [score_scan(rule, make_lesions(*pred), make_lesions(*truth)) for pred, truth in sides]
    drawn = Bootstrap.draw(list('abcd'), 200, 1)
    rows = summarise(scores, drawn)
    sensitivity = row(rows, 'sensitivity', 'pooled')  # lesions of one participant of four
    assert (sensitivity.value, sensitivity.n) == (0.5, 4)
    assert math.isnan(sensitivity.low)
    # two have predictions: what those without add to the draws is nothing, as before
    assert (row(rows, 'precision', 'pooled').low, row(rows, 'precision', 'pooled').high) == (0, 1)
    for measure in ('f1_count', 'f1_harmonic', 'fp_avg', 'fp_cmb'):
        assert math.isfinite(row(rows, measure, 'pooled').low), measure
    rule = rule_sets(['deepmir'])[0]
    alone = [score_scan(rule, make_lesions(*pred), make_lesions(*truth))
             for pred, truth in [((box,), (box, other)), ((), ()), ((), ())]]  # fmt: skip
    magnitude = row(summarise(alone, bootstrap()), 'magnitude', 'of-means', 'drop')
    assert magnitude.value == pytest.approx(math.hypot(0.5, 1))
    assert math.isnan(magnitude.low)


def test_valdo_median_leaves_out_scans_without_lesions(scores: Any) -> None:
    rows = summarise(scores['valdo-mm'], bootstrap())
    median = row(rows, 'f1_count', 'median', 'valdo')
    assert (median.n, median.value) == (2, pytest.approx(0.4))  # of 4/5 and 0
    assert (median.q1, median.q3) == (pytest.approx(0.2), pytest.approx(0.6))


def test_both_readings_of_the_magnitude(scores: Any) -> None:
    rows = summarise(scores['deepmir-mm'], bootstrap())
    of_means = row(rows, 'magnitude', 'of-means', 'shiva').value
    assert of_means == pytest.approx(math.hypot(2 / 3, 5 / 9))
    mean = row(rows, 'magnitude', 'mean', 'shiva').value
    assert mean == pytest.approx((math.hypot(1, 2 / 3) + math.hypot(1, 1) + 0) / 3)
    assert mean > of_means  # by convexity, as in the paper's own table


def test_false_positives_per_scan(scores: Any) -> None:
    for owners in (['a', 'b', 'c'], ['a', 'a', 'b']):
        rows = summarise(scores['deepmir-voxel'], Bootstrap.draw(owners, 50, 1))
        assert row(rows, 'fp', 'mean').value == pytest.approx(1 / 3)
    for measure in ('fp', 'magnitude'):
        assert 'scan' in MEASURES[measure]
        assert 'participant' not in MEASURES[measure]


def test_deepmir_dropping_undefined_scans(scores: Any) -> None:
    rows = summarise(scores['deepmir-mm'], bootstrap())
    dropped = row(rows, 'precision', 'mean', 'drop')
    assert (dropped.n, dropped.value) == (1, pytest.approx(2 / 3))


def test_nothing_anywhere_is_not_defined(make_lesions: Any) -> None:
    rule = rule_sets(['shiva'])[0]
    empty = [score_scan(rule, make_lesions(), make_lesions())] * 2
    rows = summarise(empty, Bootstrap.draw(['a', 'b'], 50, 1))
    assert row(rows, 'f1_count', 'mean', 'shiva').value == 1
    assert math.isnan(row(rows, 'f1_count', 'pooled').value)


def test_size_classes_and_their_edges() -> None:
    assert size_names((0, 2, 3, math.inf)) == ['0-2', '2-3', '>=3']
    found = size_classes(np.array([1.9, 2.0, 2.99, 3, 50, np.nan]), (0, 2, 3, math.inf))
    assert found == ['0-2', '2-3', '2-3', '>=3', '>=3', 'n/a']


def test_shares_by_kind() -> None:
    drawn = Bootstrap.draw(['a', 'b', 'c'], 500, 2)
    hits = np.array([True, False, True, True])
    found = shares(
        ['lobar', 'lobar', 'deep', 'lobar'], hits, np.array([0, 0, 1, 2]),
        ['deep', 'cerebellar', 'lobar'], drawn,
    )  # fmt: skip
    assert [(share.name, share.hits, share.total) for share in found] == [
        ('deep', 1, 1),
        ('lobar', 2, 3),
    ]
    assert found[1].drawn[0] == pytest.approx(0.5)
    assert found[1].drawn[1] == 1


@pytest.mark.parametrize(
    ('value', 'name'),
    [(0.9, '<1.5 mm'), (1.5, '1.5-3 mm'), (3.0, '3-4 mm'), (5, '>=4 mm'), (math.nan, 'n/a')],
)
def test_thickness_classes(value: float, name: str) -> None:
    assert thickness_class(value) == name


def test_field_strength_is_nominal() -> None:
    assert [field_class(t) for t in (2.89, '3', 1.494, 7, None, 'x')] == [
        '3 T', '3 T', '1.5 T', '7 T', 'n/a', 'n/a',
    ]  # fmt: skip


@pytest.mark.parametrize('tesla', ['nan', 'inf', 0, -3, 'n/a'])
def test_field_strength_that_is_none(tesla: Any) -> None:
    assert field_class(tesla) == 'n/a'


@pytest.mark.parametrize('nothing', ['n/a', '', 'NaN', None])
def test_what_a_person_does_not_tell_the_sidecar_may(nothing: Any) -> None:
    person = {} if nothing is None else {'site': nothing, 'hand': nothing}
    found = scan_strata({'InstitutionName': 'there', 'hand': 'left'}, person, contrast=None,
                        thickness_mm=1, extra=['hand'])  # fmt: skip
    assert (found['site'], found['hand']) == ('there', 'left')
    alone = scan_strata({}, person, contrast=None, thickness_mm=1, extra=['hand'])
    assert (alone['site'], alone['hand']) == ('n/a', 'n/a')


def test_strata_from_sidecar_and_person() -> None:
    found = scan_strata(
        {'SliceThickness': 2, 'Manufacturer': 'GE', 'ManufacturersModelName': 'Premier',
         'InstitutionName': 'there'},
        {'site': 'here', 'sex': 'F'}, contrast='swi', thickness_mm=9, extra=['sex', 'age'],
    )  # fmt: skip
    assert found == {
        'contrast': 'swi', 'slice_thickness': '1.5-3 mm', 'field_strength': 'n/a',
        'scanner': 'GE Premier', 'site': 'here', 'sex': 'F', 'age': 'n/a',
    }  # fmt: skip
