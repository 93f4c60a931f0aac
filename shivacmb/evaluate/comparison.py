"""Two prediction sets against one truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shivacmb.evaluate.evaluation import Plan, ScanResult
from shivacmb.evaluate.resampling import Bootstrap, Paired, compare_paired
from shivacmb.evaluate.rules import ScanScore
from shivacmb.evaluate.summaries import FORMULAS, count_columns, per_scan, pooled
from shivacmb.exceptions import NoInputError

COMPARED = ('sensitivity', 'precision', 'f1_count', 'f1_harmonic', 'magnitude', 'fp')


def compare(
    first: Sequence[ScanResult],
    second: Sequence[ScanResult],
    plan: Plan,
    *,
    draws: int = 2000,
    seed: int = 20240101,
) -> list[tuple[str, str, str, Paired]]:
    """Compare two prediction sets on the scans that both have.

    Returns
    -------
    list of (rule, zero rule, measure, Paired)
        Scan by scan measures, then ``f1_pooled`` with the interval of its difference and no test.
    """
    # by the truth: the two sets need not name their scans alike
    others = {scan.pair.truth.scan: scan for scan in second}
    both = [
        (scan, others[scan.pair.truth.scan]) for scan in first if scan.pair.truth.scan in others
    ]
    if not both:
        raise NoInputError('The two prediction sets have no scan in common')
    both = [pair for pair in both if pair[0].scores and pair[1].scores]
    if not both:
        raise NoInputError(
            'The two prediction sets cannot be compared: only numbers of lesions are known, and '
            '--compare needs their places on every side'
        )
    bootstrap = Bootstrap.draw([scan.participant for scan, _ in both], draws, seed)
    rows: list[tuple[str, str, str, Paired]] = []
    for rule in plan.rules:
        sides = [[pair[side].scores[rule.name] for pair in both] for side in (0, 1)]
        for zero_rule in rule.zero_rules:
            for measure in COMPARED:
                first_values, second_values = (
                    per_scan(side, measure, zero_rule) for side in sides
                )
                paired = compare_paired(first_values, second_values, bootstrap)
                rows.append((rule.name, zero_rule, measure, paired))
        rows.append((rule.name, 'n/a', 'f1_pooled', _pooled_difference(sides, bootstrap)))
    return rows


def _pooled_difference(sides: list[list[ScanScore]], bootstrap: Bootstrap) -> Paired:
    values = [
        next(row.value for row in pooled(side, bootstrap) if row.measure == 'f1_count')
        for side in sides
    ]
    formula = FORMULAS['f1_count']
    columns = [count_columns(side) for side in sides]
    # the others add nothing to the sums
    carriers = np.asarray((columns[0] + columns[1])[:, :2].any(axis=1))
    with np.errstate(invalid='ignore', divide='ignore'):
        drawn = [formula(bootstrap.sums(counts)) for counts in columns]
    low, high = bootstrap.of(carriers).interval(drawn[1] - drawn[0])
    return Paired(
        values[0], values[1], values[1] - values[0], low, high, float('nan'), float('nan'),
        len(sides[0]), bootstrap.subjects,
    )  # fmt: skip
