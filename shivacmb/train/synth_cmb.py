"""Train the shipped detector: ``python -m shivacmb.train.synth_cmb -o DIR``.

Simulated scans fill a pool; one network learns from patches of it; it predicts whole scans, and
what it takes for lesions there becomes hard negatives for the next part of the training; after
some such rounds each fold goes on alone, on heads of its own. Further simulated scans, of yet
other heads, choose the threshold; more of them measure the result. Folds are mirrored when they
are trained, so that they see a scan from different sides. The first network begins from nothing
or from an earlier bundle. A killed run continues when started again.
"""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import UsageError
from shivacmb.train.backend import computes_bfloat16, describe_machine
from shivacmb.train.card import metadata
from shivacmb.train.compact import round_weights, save_compact
from shivacmb.train.loop import ARCHITECTURE, Recipe, safe_precision, train
from shivacmb.train.mirror import MIRRORED, mirror_network, sides
from shivacmb.train.patches import PatchSource
from shivacmb.train.plan import note_plan
from shivacmb.train.pool import (
    BOX,
    SCANS_LAYOUT,
    SCANS_PER_HEAD,
    Pool,
    fill_pools,
    load_scan,
)
from shivacmb.train.predict import VolumePredictor, false_positives
from shivacmb.train.processor import ask_for_onednn
from shivacmb.train.rule import find_zones
from shivacmb.train.select import Score, choose, pool_scores, score_scan
from shivacmb.train.start import mean_weights, shift_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array = NDArray[Any]
#: Folder of a pool, and number in it.
PooledScan = tuple[Path, int]
#: What a run that continues may change: it decides nothing of what is kept.
_FREE = ('workers', 'min_parenchyma_swi', 'lesion_free')
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Sizes of a whole training; what those here reach is in docs/decisions/0140.

    Attributes
    ----------
    steps, sharp_steps, fold_steps : int
        Batches of the shared start, of each round with hard negatives, and of each fold after
        that.
    rounds : int
        How often hard negatives are looked for and trained on before the folds part.
    folds : int
        Networks of the ensemble.
    seed : int
        Decides everything.
    scans : int
        Simulated scans to train on; a third of the heads is left out of each fold.
    mined : int
        Scans in which hard negatives are looked for.
    judged : int
        Scans to choose the threshold on, and as many again to measure on; all of them come from a
        susceptibility map.
    lesion_free : int
        Scans of heads without a lesion, to measure on.
    batch, size : int
        Patches per batch and their side in voxels.
    workers : int
        Processes that simulate.
    shape : tuple of three int
        Box in voxels.
    large : float
        Share of additional large lesions in the scans to train on; those to choose and measure on
        keep the sizes of patients.
    start : Path, optional
        Bundle whose mean weights the first network begins with.
    min_parenchyma : float
        Rule of the bundle for what surrounds a lesion in T2*-GRE, see
        :func:`shivacmb.lesions.parenchyma_fractions`; half is the criterion of Greenberg et al.,
        Lancet Neurol 2009;8:165-174 (docs/decisions/0097). What it leaves out is not taught as
        background (docs/decisions/0125).
    min_parenchyma_swi : float
        The same for SWI: enough to leave out what is no part of the brain (docs/decisions/0124).
    """

    steps: int = 2200
    sharp_steps: int = 3500
    rounds: int = 2
    fold_steps: int = 1000
    folds: int = 3
    seed: int = 2
    scans: int = 204
    mined: int = 104
    judged: int = 24
    lesion_free: int = 24
    batch: int = 16
    size: int = 32
    workers: int = 2
    shape: tuple[int, int, int] = BOX
    large: float = 0.3
    start: Path | None = None
    min_parenchyma: float = 0.5
    min_parenchyma_swi: float = 0.1


def _source(
    plan: Plan, work: Path, part: int, hard: dict[int, Array], fold: int | None = None
) -> PatchSource:
    indices = [
        index
        for index in range(plan.scans)
        # the scans of one head stay together
        if fold is None or plan.folds < 2 or (index // SCANS_PER_HEAD) % plan.folds != fold
    ]
    return PatchSource(
        work / 'pool', indices, seed=plan.seed * 100 + part,
        size=plan.size, batch=plan.batch, hard=hard,
        first=plan.scans if part else 24, per_step=0.05,
    )  # fmt: skip


def mine(
    predictor: VolumePredictor, weights: list[Array], pool: Path, indices: Sequence[int], to: Path
) -> dict[int, Array]:
    """Find what a network takes for lesions, or read what an earlier run found.

    Parameters
    ----------
    predictor : VolumePredictor
        At the scans' shape.
    weights : list of ndarray
        Of the network.
    pool : Path
        The scans.
    indices : sequence of int
        Which of them.
    to : Path
        Folder that keeps the points of each scan.

    Returns
    -------
    dict of int to ndarray, int [N, 3]
        Voxels by scan.
    """
    to.mkdir(parents=True, exist_ok=True)
    hard = {}
    for index in indices:
        kept = to / f'{index:05d}.npy'
        if not kept.exists():
            scan = load_scan(pool, index)
            probability = predictor.predict([weights], scan.image)
            scratch = kept.with_suffix('.tmp')
            with scratch.open('wb') as stream:
                np.save(stream, false_positives(probability, scan.flags, 0.3))
            scratch.replace(kept)
        hard[index] = np.load(kept)
    logger.info('%d hard negatives in %d scans', sum(map(len, hard.values())), len(hard))
    return hard


def both(earlier: dict[int, Array], later: dict[int, Array]) -> dict[int, Array]:
    """Join two sets of hard negatives; a place found twice counts twice."""
    return {
        index: np.concatenate([found[index] for found in (earlier, later) if index in found])
        for index in sorted({*earlier, *later})
    }


def judge(
    predictor: VolumePredictor,
    folds: list[list[Array]],
    scans: Sequence[PooledScan],
    min_parenchyma: Mapping[str, float] | None = None,
    zones: dict[PooledScan, Array | None] | None = None,
) -> list[Score]:
    """Score an ensemble on scans of pools, pooled over them.

    Clusters are filtered by the zones of :func:`find_zones` in the contrasts that
    ``min_parenchyma`` names. ``zones`` keeps them for the next call.
    """
    tables = []
    zones = {} if zones is None else zones
    for item in scans:
        scan = load_scan(*item)
        probability = predictor.predict(folds, scan.image)
        share = (min_parenchyma or {}).get(scan.contrast, 0.0)
        if share and item not in zones:
            zones[item] = find_zones(scan.image)
        tables.append(
            score_scan(
                probability, scan.flags, scan.labels, scan.lesions,
                zones=zones.get(item), min_parenchyma=share,
            )
        )  # fmt: skip
    return pool_scores(tables)


def _numbers(score: Score) -> dict[str, Any]:
    large = score.hits_large / score.visible_large if score.visible_large else None
    return {
        **asdict(score),
        'sensitivity': round(score.sensitivity, 3) if score.visible else None,
        'sensitivity_2mm': None if large is None else round(large, 3),
        'false_positives_per_scan': round(score.false_per_scan, 2),
        'f1': round(score.f1, 3) if score.visible else None,
    }


def build(
    plan: Plan,
    output: Path,
    work: Path,
    extra: dict[str, Any] | None = None,
    version: str = 'unreleased',
) -> Score:
    """Simulate, train, choose, measure and write the bundle.

    Parameters
    ----------
    plan : Plan
        Sizes.
    output : Path
        Folder of the bundle; replaced when it exists.
    work : Path
        Pool and checkpoints; a second call continues there.
    extra : dict, optional
        More entries for the card's metrics.
    version : str
        Of the bundle.

    Returns
    -------
    Score
        Of the ensemble on the simulated scans that were kept for measuring.
    """
    from shivacmb.models import write_bundle
    from shivacmb.models.unet3d import build_unet3d

    if -(-plan.scans // SCANS_PER_HEAD) < min(2, plan.folds):
        raise UsageError(
            f'{plan.scans} scans show one head only, and each fold leaves some heads out; '
            f'ask for more than {SCANS_PER_HEAD} scans, or for one fold.'
        )
    if min(plan.judged, plan.lesion_free) < 1:
        raise UsageError(
            'A model is measured on one scan of each kind at least; give --judged and '
            '--lesion-free 1 or more.'
        )
    if plan.workers < 1:
        raise UsageError('Nobody would simulate the scans; give --workers 1 or more.')
    strides = ARCHITECTURE['stem'] * 2 ** (ARCHITECTURE['stages'] - 1)
    if any(side % strides for side in plan.shape):
        raise UsageError(
            f'Folds are mirrored, which needs a --shape whose sides divide by {strides}, not '
            f'{" x ".join(map(str, plan.shape))}.'
        )
    initial, start = mean_weights(plan.start) if plan.start else (None, 'nothing')
    note_plan(
        work,
        {**{name: value for name, value in asdict(plan).items() if name not in _FREE},
         'start': start, 'layout of the scans': SCANS_LAYOUT},
    )  # fmt: skip
    box = {'shape': plan.shape}
    taught = {**box, 'large': plan.large, 'rule': {'T2starw': plan.min_parenchyma}}
    seen = {**box, 'lesions': (0, 16), 'wild': 0}
    fill_pools(
        [
            Pool(work / 'pool', plan.seed, plan.scans, taught),
            Pool(work / 'judge', plan.seed + 9500, 2 * plan.judged, seen),
            Pool(
                work / 'lesion-free', plan.seed + 9600, plan.lesion_free,
                {**seen, 'lesions': (0, 0)},
            ),
        ],
        workers=plan.workers,
    )  # fmt: skip
    common: dict[str, Any] = {'size': plan.size, 'seed': plan.seed}
    recipe = Recipe(plan.steps, **common)
    base = train(_source(plan, work, 0, {}), recipe, work / 'base', initial=initial)
    machine = describe_machine()
    precision = safe_precision(recipe.precision, plan.size, bfloat16=computes_bfloat16())
    logger.info('arithmetic: %s', precision)
    predictor = VolumePredictor(plan.shape)
    # the scans made last are those that the start has seen least
    late = range(max(0, plan.scans - plan.mined), plan.scans)
    hard: dict[int, Array] = {}
    recipe = Recipe(plan.sharp_steps, rate=8e-4, warm=20, **common)
    for part in range(1, plan.rounds + 1):
        hard = both(hard, mine(predictor, base, work / 'pool', late, work / f'hard-{part}'))
        source = _source(plan, work, part, hard)
        base = train(source, recipe, work / f'sharp-{part}', initial=base)
    hard = both(hard, mine(predictor, base, work / 'pool', late, work / 'hard'))
    recipe = Recipe(plan.fold_steps, rate=6e-4, warm=20, **common)
    folds = [
        train(
            _source(plan, work, plan.rounds + 1 + fold, hard, fold), recipe,
            work / f'fold-{fold}', initial=base,
        )
        for fold in range(plan.folds)
    ]  # fmt: skip
    mirrored = sides(plan.folds)
    folds = [mirror_network(*fold) for fold in zip(folds, mirrored, strict=True)]
    rule = {'T2starw': plan.min_parenchyma, 'swi': plan.min_parenchyma_swi}
    zones: dict[PooledScan, Array | None] = {}
    pooled = [(work / 'judge', index) for index in range(2 * plan.judged)]
    early, others = pooled[: plan.judged], pooled[plan.judged :]
    free = [(work / 'lesion-free', index) for index in range(plan.lesion_free)]
    raw = choose(judge(predictor, folds, early, rule, zones))
    folds = [round_weights(shift_output(weights, raw.threshold)) for weights in folds]
    chosen = choose(judge(predictor, folds, early, rule, zones))
    result, quiet = (
        next(
            score for score in judge(predictor, folds, scans, rule)
            if (score.threshold, score.min_voxels) == (chosen.threshold, chosen.min_voxels)
        )
        for scans in (others, free)
    )  # fmt: skip
    files = []
    for fold, weights in enumerate(folds):
        model = build_unet3d(plan.shape, **ARCHITECTURE)
        model.set_weights(weights)
        files.append(work / f'fold-{fold}' / 'model.keras')
        save_compact(model, files[-1])
    training = {
        'data': 'simulated heads, lesions and mimics only (shivacmb.simulate)',
        'command': 'python -m shivacmb.train.synth_cmb',
        'hardware': f'{machine["device"]}, {machine["cpu_cores"]} cores of {machine["cpu"]}',
        **{name: value for name, value in asdict(plan).items() if name != 'workers'},
        'start': start, 'precision': precision, MIRRORED: [list(axes) for axes in mirrored],
    }  # fmt: skip
    metrics = {
        'chosen_on_simulated': _numbers(chosen), 'simulated': _numbers(result),
        'lesion_free_simulated': _numbers(quiet),
    }  # fmt: skip
    write_bundle(
        output, files,
        metadata(version=version, threshold=chosen.threshold, min_voxels=chosen.min_voxels,
                 min_parenchyma=rule,
                 training=training, metrics={**metrics, **(extra or {})}, shape=plan.shape),
        overwrite=True,
    )  # fmt: skip
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m shivacmb.train.synth_cmb', description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    plan = Plan()
    parser.add_argument('-o', '--output', type=Path, required=True, help='folder of the bundle')
    parser.add_argument(
        '--bundle-version', default='unreleased', help='version that the bundle calls itself'
    )
    parser.add_argument('--work', type=Path, help='pool and checkpoints; OUTPUT.work by default')
    for name, text in (
        ('steps', 'batches of the shared start'),
        ('sharp_steps', 'batches of a round with hard negatives'),
        ('rounds', 'searches for hard negatives before the folds part'),
        ('fold_steps', 'batches of each fold'),
        ('folds', 'networks of the ensemble'), ('seed', 'decides everything'),
        ('scans', 'simulated scans to train on'), ('mined', 'scans searched for hard negatives'),
        ('judged', 'scans to choose the threshold on, and again to measure on'),
        ('lesion_free', 'simulated scans without a lesion to measure on'),
        ('batch', 'patches per batch'), ('size', 'side of a patch in voxels'),
        ('workers', 'processes that simulate'),
    ):  # fmt: skip
        flag = '--' + name.replace('_', '-')
        parser.add_argument(flag, type=int, default=getattr(plan, name), help=text)
    parser.add_argument(
        '--large', type=float, default=plan.large,
        help='share of additional large lesions to train on',
    )  # fmt: skip
    parser.add_argument(
        '--min-parenchyma', type=float, default=plan.min_parenchyma,
        help='least share of brain tissue around a lesion in T2*-GRE',
    )  # fmt: skip
    parser.add_argument(
        '--min-parenchyma-swi', type=float, default=plan.min_parenchyma_swi,
        help='the same in SWI',
    )  # fmt: skip
    parser.add_argument('--start', type=Path, help='bundle to begin with, instead of from nothing')
    parser.add_argument(
        '--shape', type=int, nargs=3, default=plan.shape, metavar='N', help='box in voxels of 1 mm'
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of ``sys.argv``.

    Returns
    -------
    int
        Exit status.
    """
    options = vars(_parser().parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    output = options.pop('output')
    version = options.pop('bundle_version')
    work = options.pop('work') or output.with_name(output.name + '.work')
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    ask_for_onednn()
    options['shape'] = tuple(options['shape'])
    build(Plan(**options), output, work, version=version)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
