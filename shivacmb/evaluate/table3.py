"""The layout of table 3 of the SHIVA-CMB paper, in Markdown and in LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shivacmb.evaluate.evaluation import Result
from shivacmb.evaluate.scores import ZeroRule
from shivacmb.evaluate.summaries import Row

RULE = 'shiva-mm3'
HEAD = (
    'Data set', 'N_img', 'N_cmb', 'Sensitivity', 'Precision', 'F1', 'Sensitivity', 'Precision',
    'F1', 'FP_avg', 'FP_cmb',
)  # fmt: skip
PER_SCAN = ('sensitivity', 'precision', 'f1_count')
ACROSS = (*PER_SCAN, 'fp_avg', 'fp_cmb')
NOTE = (
    'Per scan: mean (SD) over scans; {empty}. Across scans: from the sums. {least} N_cmb counts '
    'the lesions that take part. F1 is 2TP/(2TP+FN+FP) with TP the predictions that touch a '
    'lesion.'
)
#: How scans without lesions or predictions entered the means, see ``scores.ZERO_RULES``.
EMPTY: dict[ZeroRule, str] = {
    'shiva': (
        'a scan without lesions has sensitivity 0 if there is a false positive and 1 otherwise, a '
        'scan without predictions has precision 0 if a lesion is missed and 1 otherwise'
    ),
    'drop': 'a scan is left out of the mean of a ratio whose denominator is zero',
    'valdo': (
        'a scan without lesions is left out of every mean, a scan with lesions and without '
        'predictions has sensitivity and F1 0 and is left out of the mean of precision'
    ),
}


@dataclass(frozen=True)
class TableRow:
    """One data set: its name, numbers, and cells as text."""

    name: str
    images: int
    lesions: int
    cells: tuple[str, ...]


def table_rows(result: Result, by: str | None = None) -> list[TableRow]:
    """Rows of the table: all scans, then one for each value of a stratum.

    Parameters
    ----------
    result : Result
        With the rule ``shiva-mm3``: the table's caption speaks of volumes.
    by : str, optional
        Name of a stratum; ``None`` takes the contrast where there is more than one.
    """
    if RULE not in result.summary or result.plan.main_rule is None:
        return []
    if result.plan.main_rule.name != RULE:
        by = ''
    if by is None:
        by = 'contrast'
    groups: list[tuple[str, tuple[str, str] | None, list[Row]]] = [
        ('All', None, result.summary[RULE])
    ]
    groups += [(kind, (name, kind), rows) for name, kind, _, rows in result.strata if name == by]
    if len(groups) == 2:
        groups = groups[:1]
    found = []
    for title, where, rows in groups:
        scores = [
            scan.scores[RULE]
            for scan in result.scans
            if scan.scores and (where is None or scan.strata[where[0]] == where[1])
        ]
        lesions = sum(score.counts.n_truth for score in scores)
        found.append(TableRow(title, len(scores), lesions, _cells(rows)))
    return found


def _cells(rows: Sequence[Row]) -> tuple[str, ...]:
    means = {row.measure: row for row in rows if row.aggregate == 'mean'}
    sums = {row.measure: row for row in rows if row.aggregate == 'pooled'}
    per_scan = [f'{_text(means[name].value)} ({_text(means[name].spread)})' for name in PER_SCAN]
    return (*per_scan, *(_text(sums[name].value) for name in ACROSS))


def _text(value: float) -> str:
    return 'n/a' if math.isnan(value) else f'{value:.2f}'


def markdown(result: Result, by: str | None = None) -> str:
    """Table in Markdown, with the rules under it; empty without the rule."""
    rows = table_rows(result, by)
    if not rows:
        return ''
    head = [name.replace('N_img', 'N<sub>img</sub>').replace('N_cmb', 'N<sub>cmb</sub>')
            .replace('FP_avg', 'FP<sub>avg</sub>').replace('FP_cmb', 'FP<sub>cmb</sub>')
            for name in HEAD]  # fmt: skip
    for column in (3, 4, 5):
        head[column] += ' per scan'
    for column in (6, 7, 8):
        head[column] += ' across'
    lines = ['| ' + ' | '.join(head) + ' |', '|---' + '|---:' * (len(HEAD) - 1) + '|']
    lines += [
        '| ' + ' | '.join([row.name, str(row.images), str(row.lesions), *row.cells]) + ' |'
        for row in rows
    ]
    return '\n'.join([*lines, '', note(result)]) + '\n'


def latex(result: Result, by: str | None = None) -> str:
    """The same in LaTeX, for ``booktabs``."""
    rows = table_rows(result, by)
    if not rows:
        return ''
    head = [
        name.replace('N_img', '$N_{img}$').replace('N_cmb', '$N_{cmb}$')
        .replace('FP_avg', '$FP_{avg}$').replace('FP_cmb', '$FP_{cmb}$')
        for name in HEAD
    ]  # fmt: skip
    lines = [
        r'\begin{tabular}{lrr' + 'r' * 8 + '}',
        r'\toprule',
        r'& & & \multicolumn{3}{c}{per scan, mean (SD)} & \multicolumn{5}{c}{across scans} \\',
        r'\cmidrule(lr){4-6}\cmidrule(lr){7-11}',
        ' & '.join(head) + r' \\',
        r'\midrule',
    ]
    lines += [
        ' & '.join([_escape(row.name), str(row.images), str(row.lesions), *row.cells]) + r' \\'
        for row in rows
    ]
    remark = '% ' + note(result)
    return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}', remark]) + '\n'


def note(result: Result) -> str:
    """What the columns mean, for under the table."""
    rule = next(rule for rule in result.plan.rules if rule.name == RULE)
    least = f'Lesions and predictions of {rule.over_mm3:g} mm3 and less are left out.'
    return NOTE.format(empty=EMPTY[rule.zero_rules[0]], least=least)


def _escape(text: str) -> str:
    """Characters that LaTeX would take for commands."""
    signs: dict[str, str | int | None] = {sign: f'\\{sign}' for sign in '&%$#_{}'}
    signs |= {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}'}
    return text.translate(str.maketrans(signs | {'<': '$<$', '>': '$>$'}))
