"""Tables with their dictionaries, and one JSON that holds everything."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shivacmb.bids import write_text
from shivacmb.bids.tables import render
from shivacmb.evaluate.agreement import (
    KO_CLASSES,
    SHIVA_CLASSES,
    Figure,
    ko_class,
    ko_verdict,
    presence_verdict,
)
from shivacmb.evaluate.columns import MEASURES, dictionary
from shivacmb.evaluate.evaluation import Result, ScanResult
from shivacmb.evaluate.matching import distances
from shivacmb.evaluate.pairs import Pairing, Source
from shivacmb.evaluate.resampling import Paired
from shivacmb.evaluate.scores import ZERO_RULES
from shivacmb.evaluate.summaries import RATIOS, Row
from shivacmb.evaluate.sweeps import Point
from shivacmb.lesions import burden_class

Line = dict[str, Any]
STRATA_MEASURES = ('sensitivity', 'precision', 'f1_count', 'fp', 'fp_avg', 'fp_cmb')
SUMMARY = (
    'class', 'rule', 'zero_rule', 'measure', 'aggregate', 'value', 'low', 'high', 'sd', 'sem',
    'q1', 'q3', 'n',
)  # fmt: skip


def pair_lines(
    pairing: Pairing,
    notes: Mapping[str, Sequence[str]],
    empty: Iterable[str] = (),
    roots: tuple[Path, Path] | None = None,
) -> list[Line]:
    """One line per scan on either side, partner or not.

    Parameters
    ----------
    pairing : Pairing
        What was found.
    notes : mapping
        By scan.
    empty : iterable of str
        Scans whose missing prediction counts as one without lesions.
    roots : tuple of two Path, optional
        Folders of predictions and truth; paths are written relative to them.
    """
    counted = set(empty)
    pred_root, truth_root = roots or (None, None)
    lines = [
        {
            **_who(pair.scan, pair.truth, pair.pred),
            'status': 'counted_empty' if pair.scan in counted else 'scored',
            'predictions': None if pair.scan in counted else _relative(pair.pred.path, pred_root),
            'truth': _relative(pair.truth.path, truth_root),
            'notes': list(notes.get(pair.scan, ())),
        }
        for pair in pairing.pairs
    ]
    for sources, status, column, root in (
        (pairing.only_truth, 'no_prediction', 'truth', truth_root),
        (pairing.only_pred, 'no_truth', 'predictions', pred_root),
    ):
        for source in sources:  # all columns, as the first line gives the table its order
            line = {**_who(source.scan, source), 'status': status, 'predictions': None}
            line |= {'truth': None, 'notes': [], column: _relative(source.path, root)}
            lines.append(line)
    return sorted(lines, key=lambda line: line['scan'])


def _relative(path: Path, root: Path | None) -> str:
    """Path below a folder; the name alone where there is none."""
    if root is not None and path.is_relative_to(root) and path != root:
        return path.relative_to(root).as_posix()
    return path.name


def _who(scan: str, source: Source, partner: Source | None = None) -> Line:
    session = source.session or (partner.session if partner is not None else None)
    return {
        'scan': scan,
        'participant_id': f'sub-{source.participant}',
        'session_id': f'ses-{session}' if session else None,
    }


def score_lines(result: Result) -> list[Line]:
    """One line per scan, rule and zero rule."""
    lines = []
    for scan in result.scans:
        for rule, score in scan.scores.items():
            counts = score.counts
            for zero_rule, ratios in score.by_zero_rule.items():
                lines.append({
                    'class': result.plan.class_name, 'scan': scan.scan, 'rule': rule,
                    'zero_rule': zero_rule, 'n_pred': counts.n_pred, 'n_truth': counts.n_truth,
                    'tp_pred': counts.tp_pred, 'tp_truth': counts.tp_truth, 'fp': counts.fp,
                    'fn': counts.fn, **{name: getattr(ratios, name) for name in RATIOS},
                    'dice_hits': score.dice_hits, 'count_difference': score.count_difference,
                    'volume_difference_mm3': _to(score.volume_difference_mm3, 'mm3'),
                })  # fmt: skip
    return lines


def _to(value: float, measure: str) -> float:
    """Cut volumes to three decimals: affines in single precision tell no more."""
    return round(value, 3) if measure.endswith('mm3') else value


def count_lines(result: Result) -> list[Line]:
    """One line per scan: numbers, classes, verdicts."""
    lines = []
    for scan in result.scans:
        truth, pred = scan.sides.n_truth, scan.sides.n_pred
        lines.append({
            'class': result.plan.class_name, **_who(scan.scan, scan.pair.truth, scan.pair.pred),
            'n_truth': truth, 'n_pred': pred, 'class_truth': burden_class(truth),
            'class_pred': burden_class(pred), 'ko_truth': ko_class(truth),
            'ko_pred': ko_class(pred), 'ko_verdict': ko_verdict(truth, pred),
            'presence_verdict': presence_verdict(truth, pred), 'voxel_dice': scan.dice,
        })  # fmt: skip
    return lines


def lesion_lines(result: Result) -> list[Line]:
    """One line per lesion and per prediction, with its fate under every rule."""
    lines: list[Line] = []
    for scan in result.scans:
        lines += _lesions_of(scan, result.plan.class_name)
    return lines


def _lesions_of(scan: ScanResult, class_name: str) -> list[Line]:
    pred, truth = scan.sides.pred, scan.sides.truth
    if pred is None or truth is None:
        return []
    away = distances(pred, truth, 'mm')
    lines = []
    for side, objects, zones in (
        ('truth', truth, scan.sides.truth_zones),
        ('prediction', pred, scan.sides.pred_zones),
    ):
        nearest = away.min(axis=0 if side == 'truth' else 1, initial=math.inf)
        fates = {name: _fates(score, side) for name, score in scan.scores.items()}
        for number in range(len(objects)):
            place = objects.centres_mm[number]
            lines.append({
                'class': class_name, 'scan': scan.scan, 'side': side,
                'index': int(objects.names[number]),
                **{axis: round(float(at), 2) for axis, at in zip('xyz', place, strict=True)},
                'volume_mm3': round(float(objects.volumes_mm3[number]), 2),
                'diameter_mm': round(float(objects.diameters_mm[number]), 2),
                'voxels': int(objects.sizes[number]),
                'probability': float(objects.scores[number]), 'zone': zones[number],
                'nearest_mm': round(float(nearest[number]), 2) if len(away.T) and len(away)
                else None,
                **{name: fate[number] for name, fate in fates.items()},
            })  # fmt: skip
    return lines


def _fates(score: Any, side: str) -> list[str]:
    used = score.truth_used if side == 'truth' else score.pred_used
    hits = iter((score.match.truth_hit if side == 'truth' else score.match.pred_hit).tolist())
    return [('hit' if next(hits) else 'miss') if taken else 'left_out' for taken in used.tolist()]


def summary_lines(result: Result) -> list[Line]:
    """Long table of all summary figures, Ko's patient level included."""
    name = result.plan.class_name
    lines = [
        {'class': name, 'rule': rule, **_row(row)}
        for rule, rows in result.summary.items()
        for row in rows
    ]
    return lines + [
        {
            'class': name, 'rule': 'ko', 'zero_rule': 'n/a', 'measure': figure.name,
            'aggregate': 'mean' if figure.name == 'voxel_dice' else 'pooled',
            'value': figure.value, 'low': figure.low, 'high': figure.high, 'n': figure.n,
        }
        for figure in result.patients
    ]  # fmt: skip


def _row(row: Row) -> Line:
    numbers = {
        'value': row.value, 'low': row.low, 'high': row.high, 'sd': row.spread,
        'sem': row.spread / math.sqrt(row.n) if row.n else math.nan,
        'q1': row.q1, 'q3': row.q3,
    }  # fmt: skip
    return {
        'zero_rule': row.zero_rule, 'measure': row.measure, 'aggregate': row.aggregate,
        **{name: _to(value, row.measure) for name, value in numbers.items()}, 'n': row.n,
    }  # fmt: skip


def agreement_lines(result: Result) -> list[Line]:
    """Agreement of the numbers of lesions."""
    return [_figure(figure, result.plan.class_name) for figure in result.agreement]


def _figure(figure: Figure, class_name: str) -> Line:
    return {
        'class': class_name, 'measure': figure.name, 'value': figure.value, 'low': figure.low,
        'high': figure.high, 'p': None if math.isnan(figure.p) else f'{figure.p:.3g}',
        'n': figure.n,
    }  # fmt: skip


def confusion_lines(result: Result) -> list[Line]:
    """Confusion matrices, one line per cell."""
    names = {'shiva': SHIVA_CLASSES, 'ko': KO_CLASSES}
    return [
        {
            'class': result.plan.class_name, 'scheme': scheme, 'truth': truth,
            'predicted': predicted, 'scans': int(table[row, column]),
        }
        for scheme, table in result.confusion.items()
        for row, truth in enumerate(names[scheme])
        for column, predicted in enumerate(names[scheme])
    ]  # fmt: skip


def size_lines(result: Result) -> list[Line]:
    """Sensitivity and precision by size and zone."""
    rule = result.plan.main_rule
    return [
        {
            'class': result.plan.class_name, 'rule': rule.name if rule else None, 'by': by,
            'kind': share.name, 'measure': measure, 'hits': share.hits, 'total': share.total,
            'value': share.value, 'wilson_low': share.wilson[0], 'wilson_high': share.wilson[1],
            'low': share.drawn[0], 'high': share.drawn[1],
        }
        for by, groups in (('size', result.sizes), ('zone', result.zones))
        for measure, found in groups.items()
        for share in found
    ]  # fmt: skip


def strata_lines(result: Result) -> list[Line]:
    """Main figures by what is known of the scans."""
    rule = result.plan.main_rule
    return [
        {
            'class': result.plan.class_name, 'rule': rule.name if rule else None,
            'stratum': stratum, 'kind': kind, 'scans': scans, 'measure': row.measure,
            'aggregate': row.aggregate, 'value': row.value, 'low': row.low, 'high': row.high,
            'n': row.n,
        }
        for stratum, kind, scans, rows in result.strata
        for row in rows
        if row.measure in STRATA_MEASURES and row.aggregate in ('mean', 'pooled')
        and (rule is None or row.zero_rule in (rule.zero_rules[0], 'n/a'))
    ]  # fmt: skip


def sweep_lines(found: Sequence[Point], class_name: str, part: str = 'all') -> list[Line]:
    """Operating points."""
    return [
        {
            'class': class_name, 'part': part, 'threshold': point.threshold,
            'min_voxels': point.min_voxels, 'n_pred': point.counts.n_pred,
            'n_truth': point.counts.n_truth, 'tp_pred': point.counts.tp_pred,
            'tp_truth': point.counts.tp_truth, 'sensitivity': point.sensitivity,
            'precision': point.precision, 'f1': point.f1, 'f1_per_scan': point.f1_per_scan,
            'fp_per_scan': point.fp_per_scan, 'scans': point.scans,
        }
        for point in found
    ]  # fmt: skip


def comparison_lines(rows: Sequence[tuple[str, str, str, Paired]], class_name: str) -> list[Line]:
    """Two prediction sets."""
    return [
        {
            'class': class_name, 'rule': rule, 'zero_rule': zero_rule, 'measure': measure,
            'first': paired.first, 'second': paired.second, 'difference': paired.difference,
            'low': paired.low, 'high': paired.high,
            'signed_rank_p': _p(paired.signed_rank_p), 'rank_sum_p': _p(paired.rank_sum_p),
            'n': paired.scans, 'participants': paired.subjects,
        }
        for rule, zero_rule, measure, paired in rows
    ]  # fmt: skip


def _p(value: float) -> str | None:
    return None if math.isnan(value) else f'{value:.3g}'


def write_tables(folder: Path, tables: Mapping[str, list[Line]]) -> list[Path]:
    """Write every table that has lines, each with its dictionary.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    written = []
    for name, lines in tables.items():
        if not lines:
            continue
        path = folder / f'{name}.tsv'
        columns = list(dict.fromkeys(column for line in lines for column in line))
        if name == 'summary':
            columns = list(SUMMARY)
        write_text(path, render(lines, columns))
        text = json.dumps(dictionary(name, columns), indent=2, ensure_ascii=False) + '\n'
        write_text(path.with_suffix('.json'), text)
        written.append(path)
    return written


def _measures(results: Sequence[Result]) -> dict[str, str]:
    """What each measure means, under the name it has in the tables."""
    names = {row.measure for result in results for rows in result.summary.values() for row in rows}
    names |= {
        figure.name for result in results for figure in (*result.patients, *result.agreement)
    }
    found = dict(MEASURES)
    for name in sorted(names - found.keys()):
        group, _, rest = name.partition('_')
        if 'kappa' in name:
            found[name] = MEASURES['kappa']
        elif group in MEASURES:  # such as ko_sensitivity
            found[name] = f'{rest.replace("_", " ").capitalize()}. {MEASURES[group]}'
    return found


def definitions(results: Sequence[Result]) -> dict[str, Any]:
    """What every rule and measure means, as it stands in the JSON."""
    rules = {rule.name: rule for result in results for rule in result.plan.rules}
    tolerances = {
        name: {
            result.plan.class_name: rule.tolerance
            for result in results
            for rule in result.plan.rules
            if rule.name == name
        }
        for name in rules
    }
    return {
        'rules': {
            name: {
                'description': rule.description,
                'source': rule.source,
                'tolerance': _one_or_each(tolerances[name]),
                'unit': None if math.isnan(rule.tolerance) else rule.unit,
                'min_voxels': rule.min_voxels,
                'over_mm3': rule.over_mm3,
                'zero_rules': list(rule.zero_rules),
            }
            for name, rule in rules.items()
        },
        'zero_rules': ZERO_RULES,
        'measures': _measures(results),
    }


def _one_or_each(by_class: Mapping[str, float]) -> Any:
    """The number all classes share, or one for each class; None where there is none."""
    different = set(by_class.values())
    if any(math.isnan(value) for value in different):
        return None
    return different.pop() if len(different) == 1 else dict(by_class)


def write_json(
    folder: Path, content: Mapping[str, Any], tables: Mapping[str, Sequence[Line]]
) -> Path:
    """Write ``evaluation.json``: settings, definitions, and all tables with a row per line."""
    path = folder / 'evaluation.json'
    head = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    parts = []
    for name, lines in tables.items():
        rows = [json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) for line in lines]
        parts.append(f'  "{name}": [\n   ' + ',\n   '.join(rows) + '\n  ]' if rows
                     else f'  "{name}": []')  # fmt: skip
    text = head.removesuffix('\n}') + ',\n "tables": {\n' + ',\n'.join(parts) + '\n }\n}\n'
    write_text(path, text)
    return path


def _plain(value: Any) -> Any:
    """Values JSON knows; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.integer, np.bool_)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
