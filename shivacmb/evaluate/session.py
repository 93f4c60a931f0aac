"""One evaluation from folders to files: what ``shivacmb-tools evaluate`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shivacmb.evaluate import outputs
from shivacmb.evaluate.comparison import compare
from shivacmb.evaluate.evaluation import (
    SWEEP_THRESHOLDS,
    Facts,
    Plan,
    Result,
    ScanResult,
    score_pairs,
    summarise_scans,
    with_facts,
)
from shivacmb.evaluate.facts import dataset_of, find_facts, unused
from shivacmb.evaluate.missing import count_as_empty
from shivacmb.evaluate.objects import voxel_mm3
from shivacmb.evaluate.pairs import (
    Kind,
    Pairing,
    Source,
    find_sources,
    keep_participants,
    pair_up,
    some,
)
from shivacmb.evaluate.reading import HowToRead
from shivacmb.evaluate.resampling import Paired
from shivacmb.evaluate.rules import RULE_NAMES, RuleSet, rule_sets
from shivacmb.evaluate.scores import ZeroRule
from shivacmb.evaluate.strata import STRATA
from shivacmb.evaluate.sweeps import MIN_VOXELS, Point, choose, froc, points
from shivacmb.exceptions import DataError, NoInputError, UsageError

IRON_TOLERANCE = 5.0
SEED = 20240101


@dataclass(frozen=True)
class Options:
    """What was asked for; see ``shivacmb-tools evaluate --help``.

    Attributes
    ----------
    predictions, truth, out_dir : Path
        What to compare and where to write.
    classes : tuple of (str, int or None)
        Names, and the value in the label map where one map holds several.
    """

    predictions: Path
    truth: Path
    out_dir: Path
    classes: tuple[tuple[str, int | None], ...] = (('CMB', None),)
    rules: tuple[str, ...] = RULE_NAMES
    pred_kind: Kind = 'auto'
    truth_kind: Kind = 'auto'
    pred_pattern: str | None = None
    truth_pattern: str | None = None
    participants: tuple[str, ...] = ()
    count_column: str | None = None
    threshold: float | None = None
    min_size: int | None = None
    connectivity: int = 26
    merge: bool = False
    resample: str = 'none'
    point_radius_mm: float | None = None
    shiva_min_voxels: int = 3
    shiva_over_mm3: float = 2.0
    tolerance_mm: float | None = None
    tolerance_voxels: float | None = None
    valdo_mm: float = 5.0
    valdo_voxels: float = 5.0
    optimal_mm: float = 5.0
    zero_rule: ZeroRule | None = None
    main_rule: str = 'shiva-mm3'
    interval: str = 'wilson'
    draws: int = 2000
    seed: int = SEED
    sweep: bool = False
    criterion: str = 'f1'
    choose_on: tuple[str, ...] = ()
    compare: Path | None = None
    names: tuple[str, str] = ('first', 'second')
    bids_dir: Path | None = None
    strata: tuple[str, ...] = ()
    table_by: str | None = None
    missing_as_empty: bool = False
    strict: bool = False
    gallery: bool = True
    pdf: str = 'auto'
    title: str = 'Evaluation'
    processes: int = 1


@dataclass
class Part:
    """One class of lesions, worked out."""

    result: Result
    pairing: Pairing
    sweep: dict[str, list[Point]] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    comparison: list[tuple[str, str, str, Paired]] = field(default_factory=list)
    empty: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)


def run(options: Options, *, tell: Callable[[int, int], None] | None = None) -> list[Part]:
    """Find, score and summarise every class; nothing is written.

    Parameters
    ----------
    options : Options
        What to do.
    tell : callable, optional
        Progress: scans done, scans in all.

    Raises
    ------
    ShivaCMBError
        For input that cannot be used.
    """
    if set(options.rules) == {'ko'} and (options.sweep or options.compare):
        raise UsageError(
            f'{"--sweep" if options.sweep else "--compare"} needs a rule that matches lesions, '
            'and --rules ko compares numbers alone; name another rule beside it'
        )
    _refuse_unknown_participants(options)
    return [_run_class(options, name, value, tell) for name, value in options.classes]


def _refuse_unknown_participants(options: Options) -> None:
    """Stop at labels that no side of any class has: they are mistyped."""
    asked = {'--participant-label': options.participants, '--choose-on': options.choose_on}
    if not any(asked.values()):
        return
    everybody = replace(options, participants=())
    known = {
        source.participant
        for name, value in options.classes
        for side, root in (('truth', options.truth), ('predictions', options.predictions))
        for source in _sources(everybody, name, side, root, value)
    }
    for option, labels in asked.items():
        unknown = [label for label in labels if label.removeprefix('sub-') not in known]
        if unknown:
            raise UsageError(
                f'{option} names participants that neither <{options.predictions}> nor '
                f'<{options.truth}> has: {some(unknown)}'
            )


def _refuse_unknown_strata(facts: Sequence[Facts], options: Options) -> None:
    """Stop at names that no table, sidecar or stratum has."""
    columns = {key for known in facts for key in (*known.person, *known.metadata)}
    unknown = [name for name in options.strata if name not in columns]
    if unknown:
        raise UsageError(
            f'--strata names what neither participants.tsv nor any sidecar has: {some(unknown)}. '
            f'There is {", ".join(sorted(columns)) or "nothing; give --bids-dir"}'
        )
    strata = (*STRATA, *options.strata)
    if options.table_by and options.table_by not in strata:
        raise UsageError(
            f'--table-by {options.table_by} is no stratum; one of {", ".join(strata)}, or name it '
            'with --strata too'
        )


def _run_class(
    options: Options, name: str, value: int | None, tell: Callable[[int, int], None] | None
) -> Part:
    plan = make_plan(options, name, value)
    truth = _sources(options, name, 'truth', options.truth, value)
    pred = _sources(options, name, 'predictions', options.predictions, value)
    pairing = pair_up(pred, truth, given=_given(options))
    counted: tuple[Source, ...] = ()
    if options.missing_as_empty:
        pairing, counted = count_as_empty(pairing)
    warnings = [*_missing(pairing, options, name), *_counted(counted, name)]
    facts = _facts(pairing, options)
    warnings += [f'{name}: {said}' for said in unused(options.bids_dir, facts)]
    _refuse_unknown_strata(facts, options)  # before the scores, which take long
    scans = score_pairs(pairing.pairs, plan, processes=options.processes, tell=tell)
    scans = [
        with_facts(scan, known, options.strata) for scan, known in zip(scans, facts, strict=True)
    ]
    result = summarise_scans(
        scans, plan, draws=options.draws, seed=options.seed, interval=options.interval
    )
    empty = tuple(source.scan for source in counted)
    part = Part(result, pairing, empty=empty, warnings=warnings)
    part.warnings += _remarks(scans, name)
    if plan.rules and not any(scan.scores for scan in scans):
        part.warnings.append(
            f'{name}: only the numbers of lesions are known, so the rules that match lesions do '
            'not apply'
        )
    if options.sweep:
        _add_sweep(part, options)
    if options.compare is not None:
        _add_comparison(part, options, name, value, truth)
    return part


def _remarks(scans: Sequence[ScanResult], name: str, of: str = '') -> list[str]:
    """What to know of files as they were read, and of names that do not agree."""
    said = [f'{scan.scan}{of}: {note}' for scan in scans for note in scan.sides.notes]
    loose = [scan.pair.note for scan in scans if scan.pair.note]
    if loose:
        said.append(
            f'{name}{of}: the names of {len(loose)} pair(s) do not agree in everything: '
            f'{some(loose)}'
        )
    return said


def _given(options: Options) -> bool:
    """Whether both sides are single files."""
    return options.predictions.is_file() and options.truth.is_file()


def make_plan(options: Options, name: str, value: int | None) -> Plan:
    """Settings of one class."""
    tolerance = IRON_TOLERANCE if name.lower() == 'iron' else 3.0
    rules = rule_sets(
        options.rules,
        shiva_min_voxels=options.shiva_min_voxels,
        shiva_over_mm3=options.shiva_over_mm3,
        deepmir_mm=options.tolerance_mm or tolerance,
        deepmir_voxels=options.tolerance_voxels or tolerance,
        valdo_mm=options.valdo_mm,
        valdo_voxels=options.valdo_voxels,
        optimal_mm=options.optimal_mm,
        zero_rule=options.zero_rule,
    )
    how = HowToRead(
        class_value=value,
        connectivity=options.connectivity,
        merge=options.merge,
        threshold=0.4 if options.threshold is None else options.threshold,
        min_voxels=options.min_size or 1,
        resample=options.resample,
        point_radius_mm=options.point_radius_mm,
    )
    return Plan(name, rules, 'ko' in options.rules, how, options.sweep, options.main_rule)


def _sources(
    options: Options, name: str, side: str, root: Path, value: int | None
) -> list[Source]:
    is_truth = side == 'truth'
    found = find_sources(
        root,
        side,
        class_name=name,
        kind=options.truth_kind if is_truth else options.pred_kind,
        pattern=options.truth_pattern if is_truth else options.pred_pattern,
        prefer_probability=not is_truth and options.threshold is not None,
        count_column=options.count_column,
    )
    if value is not None:
        found = [
            replace(source, kind='mask') if source.kind in ('auto', 'instances') else source
            for source in found
        ]
    if not is_truth and options.threshold is not None:
        _refuse_threshold(found, root)
    if options.participants:
        found = keep_participants(found, options.participants)
        if not found and is_truth:
            raise NoInputError(
                f'None of the participants named is in {side} <{root}>: '
                f'{some(options.participants)}'
            )
    return found


def _refuse_threshold(found: Sequence[Source], root: Path) -> None:
    if not any(source.kind == 'probability' for source in found):
        raise UsageError(
            f'--threshold needs probability maps, but <{root}> has none that are named '
            '*_probseg; give --pred-kind probability with --pred-pattern, or leave it out'
        )


def _missing(pairing: Pairing, options: Options, name: str) -> list[str]:
    """Say which scans lack a partner; stop when asked to, or when nothing is left."""
    said = []
    if pairing.only_truth:
        scans = some(source.scan for source in pairing.only_truth)
        said.append(f'{name}: {len(pairing.only_truth)} scan(s) have no prediction: {scans}')
        if options.missing_as_empty:
            said[-1] += (
                ' (not counted as empty: there are predictions of these participants without a '
                'truth, which may be theirs; name both sides alike)'
            )
    if pairing.only_pred:
        scans = some(source.scan for source in pairing.only_pred)
        said.append(f'{name}: {len(pairing.only_pred)} scan(s) have no truth: {scans}')
        if any(pair.truth.kind == 'points' for pair in pairing.pairs):
            said[-1] += (
                ' (in a table of points a participant without lesions has a row with n/a under x, '
                'y and z)'
            )
    if not pairing.pairs:
        raise NoInputError(
            f'No scan has both sides. {" ".join(said)}. Names are compared by sub, ses and the '
            'entities that tell scans apart; check the folders <'
            f'{options.predictions}> and <{options.truth}>'
        )
    if said and options.strict:
        raise DataError(f'{" ".join(said)}. Complete them, or leave out --strict')
    return said


def _counted(counted: Sequence[Source], name: str) -> list[str]:
    if not counted:
        return []
    scans = some(source.scan for source in counted)
    return [
        f'{name}: {len(counted)} scan(s) without a prediction count as if nothing had been found: '
        f'{scans}'
    ]


def _facts(pairing: Pairing, options: Options) -> list[Facts]:
    return find_facts(
        pairing.pairs,
        bids_dir=options.bids_dir or dataset_of(options.truth),
        folders=[options.truth, options.predictions],
    )


def _add_sweep(part: Part, options: Options) -> None:
    """Operating points over all scans, or apart for choosing and for reporting."""
    scans = [scan for scan in part.result.scans if scan.sweep is not None]
    if all(scan.pair.pred.stand_in for scan in scans):
        part.warnings.append(
            f'{part.result.plan.class_name}: no probability map beside the predictions, so there '
            'is no sweep'
        )
        return
    without = [scan.scan for scan in part.result.scans if scan.sweep is None]
    if without:
        part.warnings.append(
            f'{part.result.plan.class_name}: {len(without)} of {len(part.result.scans)} scans '
            f'have no probability map: {some(without)}; the sweep is without them'
        )
    groups = {'all': scans}
    if options.choose_on:
        sides = [side for scan in scans for side in (scan.pair.truth, scan.pair.pred)]
        kept = {source.scan for source in keep_participants(sides, options.choose_on)}
        chosen_on = {
            scan.participant
            for scan in scans
            if kept & {scan.pair.truth.scan, scan.pair.pred.scan}
        }
        groups = {
            'choose': [scan for scan in scans if scan.participant in chosen_on],
            'report': [scan for scan in scans if scan.participant not in chosen_on],
        }
    for name, members in groups.items():
        if not members:
            raise NoInputError(
                f'--choose-on leaves no scan to {name}: name some of the participants, not '
                'none and not all'
            )
        tables = np.stack([scan.sweep for scan in members if scan.sweep is not None])
        part.sweep[name] = points(tables, SWEEP_THRESHOLDS, MIN_VOXELS)
    part.best = _best(part, options)


def _best(part: Part, options: Options) -> dict[str, Any]:
    base = 'choose' if 'choose' in part.sweep else 'all'
    point = choose(part.sweep[base], options.criterion)
    if point is None:
        part.warnings.append('no operating point has a score; none was chosen')
        return {}
    report = 'report' if base == 'choose' else 'all'
    other = next(
        item
        for item in part.sweep[report]
        if (item.threshold, item.min_voxels) == (point.threshold, point.min_voxels)
    )
    rule: RuleSet | None = part.result.plan.main_rule
    said = (
        f'Best {options.criterion} under {rule.name if rule else ""}: probability at least '
        f'{point.threshold:g}, clusters of at least {point.min_voxels} voxels, chosen on '
        f'{point.scans} scan(s).'
    )
    if report == 'all':
        said += (
            f' On these same scans F1 is {point.f1:.2f}; that is too good, because the point was '
            'chosen on them. Choose on other scans with --choose-on.'
        )
    else:
        said += (
            f' On the {other.scans} other scan(s): F1 {other.f1:.2f}, sensitivity '
            f'{other.sensitivity:.2f}, {other.fp_per_scan:.1f} false positives per scan.'
        )
    return {
        'criterion': options.criterion, 'threshold': point.threshold,
        'min_voxels': point.min_voxels, 'chosen_on': base, 'reported_on': report, 'text': said,
        'f1': other.f1, 'sensitivity': other.sensitivity, 'fp_per_scan': other.fp_per_scan,
    }  # fmt: skip


def _add_comparison(
    part: Part, options: Options, name: str, value: int | None, truth: list[Source]
) -> None:
    """Score the second predictions against the same truth and compare."""
    second = replace(options, predictions=options.compare)  # type: ignore[arg-type]
    plan = replace(part.result.plan, sweep=False)
    found = _sources(second, name, 'predictions', second.predictions, value)
    pairing = pair_up(found, truth, given=_given(second))
    counted: tuple[Source, ...] = ()
    if options.missing_as_empty:
        pairing, counted = count_as_empty(pairing)
    of = ', second set'
    part.warnings += _missing(pairing, second, f'{name}{of}')
    part.warnings += _counted(counted, f'{name}{of}')
    mine = {scan.pair.truth.scan for scan in part.result.scans}
    theirs = {pair.truth.scan for pair in pairing.pairs}
    if mine ^ theirs:
        part.warnings.append(
            f'{name}: {len(mine ^ theirs)} of {len(mine | theirs)} scans are in one prediction '
            f'set only and are not compared: {some(sorted(mine ^ theirs))}'
        )
    others = score_pairs(pairing.pairs, plan, processes=options.processes)
    part.warnings += _remarks(others, name, of)
    part.comparison = compare(
        part.result.scans, others, plan, draws=options.draws, seed=options.seed
    )


def cut_at(part: Part) -> tuple[float, int] | None:
    """Threshold and smallest size where a side was made from probability maps, else None."""
    kinds = {side.kind for pair in part.pairing.pairs for side in (pair.pred, pair.truth)}
    how = part.result.plan.how
    return (how.threshold, how.min_voxels) if 'probability' in kinds else None


def curve_voxels(result: Result) -> int:
    """Smallest cluster of the curves: the first over 2 mm3 on the usual grid of these scans."""
    sizes = [
        voxel_mm3(scan.sides.truth.affine) for scan in result.scans if scan.sides.truth is not None
    ]
    usual = float(np.median(sizes)) if sizes else 1.0
    return int(np.clip(np.floor(2.0 / usual + 1e-3) + 1, MIN_VOXELS[0], MIN_VOXELS[-1]))


def tables(parts: Sequence[Part], options: Options) -> dict[str, list[outputs.Line]]:
    """All tables of all classes."""
    found: dict[str, list[outputs.Line]] = {
        name: []
        for name in (
            'pairs', 'summary', 'scores', 'counts', 'lesions', 'agreement', 'confusion', 'sizes',
            'strata', 'sweep', 'froc', 'comparison',
        )
    }  # fmt: skip
    makers = {
        'summary': outputs.summary_lines, 'scores': outputs.score_lines,
        'counts': outputs.count_lines, 'lesions': outputs.lesion_lines,
        'agreement': outputs.agreement_lines, 'confusion': outputs.confusion_lines,
        'sizes': outputs.size_lines, 'strata': outputs.strata_lines,
    }  # fmt: skip
    roots = (options.predictions, options.truth)
    for part in parts:
        name = part.result.plan.class_name
        notes = {
            scan.scan: ([scan.pair.note] if scan.pair.note else []) + list(scan.sides.notes)
            for scan in part.result.scans
        }
        found['pairs'] += [
            {'class': name, **line}
            for line in outputs.pair_lines(part.pairing, notes, part.empty, roots)
        ]
        for table, maker in makers.items():
            found[table] += maker(part.result)
        for group, swept in part.sweep.items():
            found['sweep'] += outputs.sweep_lines(swept, name, group)
            curve = [point for point in swept if point.min_voxels == curve_voxels(part.result)]
            found['froc'] += [
                {'class': name, 'part': group, 'fp_per_scan': rate, 'sensitivity': value}
                for rate, value in froc(curve)
            ]
        found['comparison'] += outputs.comparison_lines(part.comparison, name)
    return found
