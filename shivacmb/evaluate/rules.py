"""The published rule sets by name, and one scan scored under one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shivacmb.evaluate.matching import (
    Match,
    Unit,
    distances,
    match_nearest,
    match_optimal,
    match_touch,
    match_within,
    overlaps,
)
from shivacmb.evaluate.objects import Objects
from shivacmb.evaluate.scores import Counts, Ratios, ZeroRule, ratios

Array = npt.NDArray[Any]
RULE_NAMES = ('shiva', 'deepmir', 'valdo', 'ko', 'optimal')


@dataclass(frozen=True)
class RuleSet:
    """One way to score.

    Attributes
    ----------
    name : str
        As it stands in every table.
    method : {'touch', 'within', 'nearest', 'optimal'}
        Function of :mod:`shivacmb.evaluate.matching`.
    description, source : str
        What it does and who does it so.
    tolerance : float
        Distance of the centres; unused for touch.
    unit : {'mm', 'voxel'}
        Of the tolerance.
    min_voxels : int
        Smaller lesions and predictions are left out before matching, on both sides.
    over_mm3 : float
        Lesions and predictions of this volume and less are left out too.
    zero_rules : tuple of str
        How scans without lesions or predictions enter; the first is the rule's own.
    """

    name: str
    method: Literal['touch', 'within', 'nearest', 'optimal']
    description: str
    source: str
    tolerance: float = math.nan
    unit: Unit = 'mm'
    min_voxels: int = 1
    over_mm3: float = 0.0
    zero_rules: tuple[ZeroRule, ...] = ('shiva',)


@dataclass(frozen=True)
class ScanScore:
    """One scan under one rule.

    Attributes
    ----------
    rule : str
        Its name.
    counts : Counts
        Hits and misses.
    by_zero_rule : dict of str to Ratios
        One for each zero rule of the rule.
    match : Match
        On the lesions that take part.
    pred_used, truth_used : arrays of bool
        Which of all predictions and lesions take part.
    dice_hits : float
        Mean Dice over found lesions with all predictions that go to them (VALDO); NaN without
        lesions, under rules that allow several partners and where a lesion on either side is a
        point without extent; 0 with lesions and no hit.
    count_difference : int
        Absolute difference of the numbers.
    volume_difference_mm3 : float
        Absolute difference of the volumes that take part, predictions weighed by probability if
        known; NaN with a point without extent.
    """

    rule: str
    counts: Counts
    by_zero_rule: dict[str, Ratios]
    match: Match
    pred_used: Array = field(repr=False)
    truth_used: Array = field(repr=False)
    dice_hits: float
    count_difference: int
    volume_difference_mm3: float


def rule_sets(
    names: Sequence[str] = RULE_NAMES,
    *,
    shiva_min_voxels: int = 3,
    shiva_over_mm3: float = 2.0,
    deepmir_mm: float = 3.0,
    deepmir_voxels: float = 3.0,
    valdo_mm: float = 5.0,
    valdo_voxels: float = 5.0,
    optimal_mm: float = 5.0,
    zero_rule: ZeroRule | None = None,
) -> tuple[RuleSet, ...]:
    """Rule sets that match lesions, in a fixed order; ``ko`` has none, it compares numbers.

    Parameters
    ----------
    names : sequence of str
        Of ``RULE_NAMES``.
    shiva_min_voxels : int
        The paper leaves out clusters of two voxels and fewer.
    shiva_over_mm3 : float
        "Equivalent to 2 mm3", as it says; its table counts lesions of more than that.
    deepmir_mm, deepmir_voxels : float
        The paper says 3 for microbleeds and 5 for iron without a unit; both readings are given.
    valdo_mm, valdo_voxels : float
        The paper says 5 mm. The challenge's code of 2021 measures in voxels, that of 2022 in mm.
    optimal_mm : float
        Of the one-to-one assignment.
    zero_rule : str, optional
        Use this one in all.

    Raises
    ------
    ValueError
        For a name that is not known.
    """
    unknown = [name for name in names if name not in RULE_NAMES]
    if unknown:
        raise ValueError(f'no rule set {unknown[0]!r}: one of {", ".join(RULE_NAMES)}')
    shiva = 'Tsuchida 2024, Sci Rep 14:30901'
    nearest = (
        'Each prediction goes to its nearest lesion if closer than the tolerance; the closest is '
        'right, the others are wrong.'
    )
    within = 'Centres closer than the tolerance, any number of partners.'
    deepmir = 'Rashid 2021, Sci Rep 11:14124; the unit of its tolerance is not stated'
    known = [
        RuleSet(
            'shiva', 'touch',
            'A prediction that shares a voxel with a lesion is right, a lesion that shares one '
            'is found.',
            shiva, min_voxels=shiva_min_voxels,
        ),
        RuleSet(
            'shiva-mm3', 'touch',
            'As shiva, but small ones are left out by volume: the same on the 1 mm grid of the '
            'paper, and what it amounts to on any other.',
            shiva, over_mm3=shiva_over_mm3,
        ),
        RuleSet('deepmir-mm', 'within', within, deepmir, deepmir_mm, 'mm',
                zero_rules=('drop', 'shiva')),
        RuleSet('deepmir-voxel', 'within', within, deepmir, deepmir_voxels, 'voxel',
                zero_rules=('drop', 'shiva')),
        RuleSet('valdo-mm', 'nearest', nearest,
                'Sudre 2024 and the code of the VALDO challenge as of October 2022',
                valdo_mm, 'mm', zero_rules=('valdo',)),
        RuleSet('valdo-voxel', 'nearest', nearest,
                'the code of the VALDO challenge as of July 2021', valdo_voxels, 'voxel',
                zero_rules=('valdo',)),
        RuleSet(
            'optimal', 'optimal',
            'One to one: most pairs closer than the tolerance, then least total distance.',
            'linear sum assignment', optimal_mm, 'mm',
        ),
    ]  # fmt: skip
    chosen = [rule for rule in known if rule.name.split('-')[0] in names]
    if zero_rule is not None:
        chosen = [replace(rule, zero_rules=(zero_rule,)) for rule in chosen]
    return tuple(chosen)


def score_scan(rule: RuleSet, pred: Objects, truth: Objects) -> ScanScore:
    """Score one scan under one rule.

    Parameters
    ----------
    rule : RuleSet
        Which.
    pred, truth : Objects
        On one grid.

    Raises
    ------
    ValueError
        If the grids differ.
    """
    pred_used, truth_used = used(pred, rule), used(truth, rule)
    pred, truth = pred.select(pred_used), truth.select(truth_used)
    shared = overlaps(pred, truth)
    match = find_match(rule, pred, truth, shared)
    counts = count_hits(rule, match)
    return ScanScore(
        rule.name, counts, {name: ratios(counts, name) for name in rule.zero_rules}, match,
        pred_used, truth_used, _dice_over_hits(rule, match, shared, pred, truth),
        abs(len(pred) - len(truth)), abs(pred.amount_mm3 - truth.amount_mm3),
    )  # fmt: skip


def used(objects: Objects, rule: RuleSet) -> Array:
    """Lesions that take part: large enough, or points."""
    if objects.points:
        return np.ones(len(objects), bool)
    # a volume from an affine has rounding errors: two voxels of 1 mm are not over 2 mm3
    over = objects.volumes_mm3 > rule.over_mm3 * (1 + 1e-3)
    return np.asarray((objects.sizes >= rule.min_voxels) & over)


def find_match(rule: RuleSet, pred: Objects, truth: Objects, shared: Array) -> Match:
    """Apply the rule's matching to lesions that take part."""
    if rule.method == 'touch':
        return match_touch(shared)
    away = distances(pred, truth, rule.unit)
    if rule.method == 'within':
        return match_within(away, rule.tolerance)
    if rule.method == 'nearest':
        return match_nearest(away, rule.tolerance)
    return match_optimal(away, rule.tolerance)


def count_hits(rule: RuleSet, match: Match) -> Counts:
    """Count what the rule's matching found."""
    # where VALDO's tie makes two predictions right for one lesion, its code counts both
    hits = match.tp_pred if rule.method == 'nearest' else match.tp_truth
    return Counts(len(match.pred_hit), len(match.truth_hit), match.tp_pred, hits)


def _dice_over_hits(
    rule: RuleSet, match: Match, shared: Array, pred: Objects, truth: Objects
) -> float:
    """Mean Dice of found lesions and the union of the predictions that go to them."""
    if not len(truth) or rule.method not in ('nearest', 'optimal'):
        return math.nan
    if pred.without_extent or truth.without_extent:
        return math.nan
    if not match.tp_truth:
        return 0.0
    values = []
    for lesion in np.flatnonzero(match.truth_hit):
        mine = match.partner == lesion
        size = pred.sizes[mine].sum() + truth.sizes[lesion]
        values.append(2 * shared[mine, lesion].sum() / size if size else math.nan)
    return float(np.mean(values))


def voxel_dice(pred: Objects, truth: Objects) -> float:
    """Dice of all voxels (Ko 2024); NaN where the truth is empty or has no extent."""
    if not len(truth) or truth.points:
        return math.nan
    if not len(pred):
        return 0.0  # a list without points is an empty map too
    if pred.points:
        return math.nan
    common = np.intersect1d(pred.voxels, truth.voxels, assume_unique=True).size
    return 2 * common / (len(pred.voxels) + len(truth.voxels))
