"""Score every pair of scans, then all of them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shivacmb.evaluate.agreement import (
    Figure,
    class_agreement,
    class_table,
    count_agreement,
    ko_verdict,
    patient_level,
    presence_verdict,
)
from shivacmb.evaluate.objects import Objects
from shivacmb.evaluate.pairs import Pair
from shivacmb.evaluate.reading import HowToRead, Sides, read_probability, read_sides
from shivacmb.evaluate.resampling import Bootstrap
from shivacmb.evaluate.rules import RuleSet, ScanScore, score_scan, used, voxel_dice
from shivacmb.evaluate.strata import UNKNOWN, Share, scan_strata, shares, size_classes, size_names
from shivacmb.evaluate.summaries import Row, summarise
from shivacmb.evaluate.sweeps import FROC_THRESHOLDS, MIN_VOXELS, sweep_scan
from shivacmb.exceptions import NoInputError

Array = npt.NDArray[Any]
SWEEP_THRESHOLDS = FROC_THRESHOLDS


@dataclass(frozen=True)
class Plan:
    """What to compute; plain values, so that a worker process can have it.

    Attributes
    ----------
    class_name : str
        Kind of lesion.
    rules : tuple of RuleSet
        That match lesions.
    patient_rules : bool
        Whether Ko's patient level is wanted.
    how : HowToRead
        For the files.
    sweep : bool
        Whether probability maps are swept.
    sweep_rule : str
        Rule of the sweep, the sizes and the strata; a name in ``rules``.
    """

    class_name: str
    rules: tuple[RuleSet, ...]
    patient_rules: bool = True
    how: HowToRead = field(default_factory=HowToRead)
    sweep: bool = False
    sweep_rule: str = 'shiva-mm3'

    @property
    def main_rule(self) -> RuleSet | None:
        """Rule of sweep, sizes and strata; the first one where the named one was not asked for."""
        named = [rule for rule in self.rules if rule.name == self.sweep_rule]
        return next(iter((*named, *self.rules)), None)


@dataclass(frozen=True)
class Facts:
    """What is known of a scan apart from its lesions.

    Attributes
    ----------
    metadata : mapping
        Sidecar.
    person : mapping
        Row of participants.tsv.
    contrast : str or None
        ``T2starw`` or ``swi``.
    image : Path or None
        The scan itself, for pictures.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    person: Mapping[str, str] = field(default_factory=dict)
    contrast: str | None = None
    image: Path | None = None


@dataclass(frozen=True)
class ScanResult:
    """Everything about one scan and one class."""

    pair: Pair
    sides: Sides
    scores: dict[str, ScanScore]
    dice: float
    sweep: Array | None = field(repr=False)
    strata: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)

    @property
    def scan(self) -> str:
        """Name of the scan."""
        return self.pair.scan

    @property
    def participant(self) -> str:
        """Label without ``sub-``."""
        return self.pair.truth.participant


@dataclass(frozen=True)
class Result:
    """All scans of one class.

    Attributes
    ----------
    plan : Plan
        As it was asked for.
    scans : tuple of ScanResult
        In the order of their names.
    bootstrap : Bootstrap
        Over these scans.
    summary : dict of str to list of Row
        By rule.
    agreement, patients : list of Figure
        Of numbers of lesions; Ko's patient level, both readings.
    confusion : dict of str to array
        By scheme, rows the truth.
    sizes : list of Share
        Sensitivity by diameter, precision by diameter under ``precision``.
    """

    plan: Plan
    scans: tuple[ScanResult, ...]
    bootstrap: Bootstrap
    summary: dict[str, list[Row]]
    agreement: list[Figure]
    patients: list[Figure]
    confusion: dict[str, Array]
    sizes: dict[str, list[Share]]
    zones: dict[str, list[Share]]
    strata: list[tuple[str, str, int, list[Row]]]

    @property
    def counts(self) -> tuple[Array, Array]:
        """Numbers of lesions, true and predicted, one per scan."""
        return (
            np.array([scan.sides.n_truth for scan in self.scans], int),
            np.array([scan.sides.n_pred for scan in self.scans], int),
        )


def score_pair(pair: Pair, plan: Plan) -> ScanResult:
    """Read and score one scan; runs in a worker process too.

    Raises
    ------
    DataError
        If a file is broken or unsuitable.
    """
    sides = read_sides(pair, plan.how)
    if sides.pred is None or sides.truth is None:
        return ScanResult(pair, sides, {}, float('nan'), None)
    scores = {rule.name: score_scan(rule, sides.pred, sides.truth) for rule in plan.rules}
    dice = voxel_dice(sides.pred, sides.truth)
    return ScanResult(pair, sides, scores, dice, _sweep(pair, plan, sides.truth))


def probability_path(pair: Pair, class_name: str) -> Path | None:
    """Probability map of a prediction: itself, or the one beside its label map."""
    if pair.pred.kind == 'probability':
        return pair.pred.path
    names = (f'label-{class_name}_probseg{ending}' for ending in ('.nii.gz', '.nii'))
    return next((path for name in names if (path := pair.pred.beside(name)) is not None), None)


def _sweep(pair: Pair, plan: Plan, truth: Objects) -> Array | None:
    rule = plan.main_rule
    if not plan.sweep or rule is None:
        return None
    if pair.pred.stand_in:  # nothing at any threshold, and every lesion is missed
        table = np.zeros((len(SWEEP_THRESHOLDS), len(MIN_VOXELS), 4), np.int64)
        table[..., 1] = used(truth, rule).sum()
        return table
    path = probability_path(pair, plan.class_name)
    if path is None:
        return None
    return sweep_scan(
        read_probability(path, truth, plan.how), truth.affine, truth, rule,
        thresholds=SWEEP_THRESHOLDS, min_voxels=MIN_VOXELS, connectivity=plan.how.connectivity,
    )  # fmt: skip


def score_pairs(
    pairs: Sequence[Pair],
    plan: Plan,
    *,
    processes: int = 1,
    tell: Callable[[int, int], None] | None = None,
) -> list[ScanResult]:
    """Score scans, several at once when asked for.

    Parameters
    ----------
    pairs : sequence of Pair
        What was found.
    plan : Plan
        What to compute.
    processes : int
        Worker processes; one means this process. The result does not depend on it.
    tell : callable, optional
        Called with the number done and the number of all.
    """
    found: list[ScanResult] = []
    if processes <= 1 or len(pairs) < 4:
        for number, pair in enumerate(pairs, start=1):
            found.append(score_pair(pair, plan))
            if tell:
                tell(number, len(pairs))
        return found
    with ProcessPoolExecutor(processes, mp_context=get_context('spawn')) as pool:
        for number, result in enumerate(
            pool.map(score_pair, pairs, [plan] * len(pairs), chunksize=2), start=1
        ):
            found.append(result)
            if tell:
                tell(number, len(pairs))
    return found


def with_facts(scan: ScanResult, facts: Facts, extra: Sequence[str] = ()) -> ScanResult:
    """Add what is known of the scan."""
    sides = [side for side in (scan.sides.truth, scan.sides.pred) if side is not None]
    thickness = float('nan')
    if not all(side.points for side in sides):  # else the grid is one that was laid around them
        objects = sides[0]
        thickness = float(np.sqrt((objects.affine[:3, :3] ** 2).sum(axis=0)).max())
    strata = scan_strata(
        facts.metadata, facts.person, contrast=facts.contrast, thickness_mm=thickness, extra=extra
    )
    return replace(scan, facts=facts, strata=strata)


def summarise_scans(
    scans: Sequence[ScanResult],
    plan: Plan,
    *,
    draws: int = 2000,
    seed: int = 20240101,
    interval: str = 'wilson',
) -> Result:
    """Put the scans of one class together.

    Parameters
    ----------
    scans : sequence of ScanResult
        At least one.
    plan : Plan
        As for :func:`score_pairs`.
    draws, seed : int
        Of the bootstrap over subjects.
    interval : {'wilson', 'clopper-pearson'}
        Of the patient level.

    Raises
    ------
    NoInputError
        Without any scan.
    """
    if not scans:
        raise NoInputError('No scan has both a prediction and a truth; nothing can be scored')
    bootstrap = Bootstrap.draw([scan.participant for scan in scans], draws, seed)
    truth = np.array([scan.sides.n_truth for scan in scans], int)
    predicted = np.array([scan.sides.n_pred for scan in scans], int)
    matched = np.array([bool(scan.scores) for scan in scans])
    inner = bootstrap.of(matched)
    summary = {
        rule.name: summarise([scan.scores[rule.name] for scan in scans if scan.scores], inner)
        for rule in plan.rules
        if matched.any()
    }
    agreement = count_agreement(truth, predicted, bootstrap)
    for scheme in ('shiva', 'ko'):
        agreement += class_agreement(truth.tolist(), predicted.tolist(), scheme, bootstrap)
    return Result(
        plan, tuple(scans), bootstrap, summary, agreement,
        _patients(scans, interval, bootstrap) if plan.patient_rules else [],
        {scheme: class_table(truth.tolist(), predicted.tolist(), scheme)
         for scheme in ('shiva', 'ko')},
        _shares(scans, plan, bootstrap, 'size'), _shares(scans, plan, bootstrap, 'zone'),
        _strata(scans, plan, bootstrap),
    )  # fmt: skip


def _patients(scans: Sequence[ScanResult], interval: str, bootstrap: Bootstrap) -> list[Figure]:
    pairs = [(scan.sides.n_truth, scan.sides.n_pred) for scan in scans]
    found = []
    for name, verdict in (('ko', ko_verdict), ('presence', presence_verdict)):
        verdicts = [verdict(*pair) for pair in pairs]
        found += [
            replace(figure, name=f'{name}_{figure.name}')
            for figure in patient_level(verdicts, bootstrap, interval)
        ]
    dice = np.array([scan.dice for scan in scans])
    known = int(np.isfinite(dice).sum())
    value = float(np.nanmean(dice)) if known else float('nan')
    interval_of = bootstrap.of(np.isfinite(dice)).interval
    found.append(Figure('voxel_dice', value, *interval_of(bootstrap.means(dice)), n=known))
    return found


def _shares(
    scans: Sequence[ScanResult], plan: Plan, bootstrap: Bootstrap, by: str
) -> dict[str, list[Share]]:
    """Sensitivity and precision by the size or the zone of a lesion, under the main rule."""
    rule = plan.main_rule
    found: dict[str, list[Share]] = {}
    if rule is None:
        return found
    for side in ('sensitivity', 'precision'):
        kinds: list[str] = []
        hits: list[Array] = []
        where: list[Array] = []
        for number, scan in enumerate(scans):
            if not scan.scores:
                continue
            score = scan.scores[rule.name]
            truth_side = side == 'sensitivity'
            objects = scan.sides.truth if truth_side else scan.sides.pred
            zones = scan.sides.truth_zones if truth_side else scan.sides.pred_zones
            taken = score.truth_used if truth_side else score.pred_used
            mine = score.match.truth_hit if truth_side else score.match.pred_hit
            assert objects is not None  # noqa: S101 - scores exist only with both sides
            names = size_classes(objects.diameters_mm) if by == 'size' else list(zones)
            kinds += [name for name, used in zip(names, taken, strict=True) if used]
            hits.append(mine)
            where.append(np.full(len(mine), number))
        listed = size_names() if by == 'size' else sorted(set(kinds) - {UNKNOWN})
        if kinds and listed:
            found[side] = shares(
                kinds, np.concatenate(hits), np.concatenate(where), [*listed, UNKNOWN], bootstrap
            )
    return found


def _strata(
    scans: Sequence[ScanResult], plan: Plan, bootstrap: Bootstrap
) -> list[tuple[str, str, int, list[Row]]]:
    """Pooled and mean figures of the main rule by what is known of the scans."""
    rule = plan.main_rule
    rows = []
    names = scans[0].strata if rule is not None else ()
    for name in names:
        values = sorted({scan.strata[name] for scan in scans})
        if values == [UNKNOWN]:
            continue
        for value in values:
            mine = np.array([scan.strata[name] == value and bool(scan.scores) for scan in scans])
            if not mine.any() or rule is None:
                continue
            scores = [
                scan.scores[rule.name] for scan, keep in zip(scans, mine, strict=True) if keep
            ]
            rows.append((name, value, len(scores), summarise(scores, bootstrap.of(mine))))
    return rows
