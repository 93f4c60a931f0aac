"""Train the built-in zones from nothing: ``python -m shivacmb.train.brain_zones -o DIR``.

In the manner of SynthStrip (Hoopes 2022) and SynthSeg (Billot 2023): the network never sees a
scan, only simulated heads whose contrasts vary far more than real ones do. The atlas and the
classifier of ``brain_atlas`` follow when it is trained.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shivacmb.exceptions import DataError
from shivacmb.imaging.zones import Zone
from shivacmb.models.brain_atlas import load_atlas, save_atlas
from shivacmb.models.checksums import sha256_of
from shivacmb.models.write import write_bundle
from shivacmb.simulate.allocation import keep_freed_memory
from shivacmb.train.backend import computes_bfloat16
from shivacmb.train.brain_atlas import FILE, make_atlas, simulate_samples
from shivacmb.train.brain_zones_judge import judge
from shivacmb.train.brain_zones_network import (
    WIDTHS,
    ZONES,
    build_zone_network,
    fold,
    unfolded,
)
from shivacmb.train.brain_zones_samples import LEFT, Array, Pair, simulate_pairs
from shivacmb.train.loop import safe_precision
from shivacmb.train.plan import note_plan
from shivacmb.train.processor import ask_for_onednn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

logger = logging.getLogger(__name__)

SHAPE = (96, 128, 128)
NET_MM = 2.0
POOL = 120
CONTRASTS = 3
FRESH_EVERY = 2
#: How much a voxel of background and of each zone counts in the cross-entropy of the zones.
WEIGHTS = (0.0, 1.0, 1.0, 6.0, 6.0, 4.0, 2.0, 3.0)
CHECKPOINT_EVERY = 25

TRAINING = {
    'data': (
        'simulated heads only: the MNI152 tissue maps that nilearn packages under random affine'
        ' and smooth warps, with simulated skull, scalp, face and neck; a third of the images of'
        ' arbitrary contrast, the others T2*-GRE and SWI. No scan of a person was shown.'
    ),
    'batch': 1,
    'optimiser': 'Adam, 2e-3 with a linear start and a cosine end, gradient norm at most 1',
}
CARD: dict[str, Any] = {
    'name': 'brain-zones',
    'version': '1.0.0',
    'description': (
        'Brain mask and coarse zones for T2*-GRE, SWI and other contrasts: cerebral cortex and'
        ' white matter, basal ganglia with the capsules, thalamus, brainstem, cerebellum, fluid,'
        ' left and right. The zones come from an atlas that is laid on what the network sees.'
        " Trained on simulated heads only, never shown a patient's scan; no reader has checked it"
        ' on patients.'
    ),
    'license': 'Apache-2.0',
    'citation': '',
    'url': '',
    'intended_use': (
        'To place and scale the box in which microbleeds are sought, and to name the zone that a'
        ' microbleed lies in. At their borders zones are a guess: on simulated heads one deep'
        ' lesion in five is called lobar. Research only; not for volumetry.'
    ),
    'target': 'brain',
    'architecture': {'family': 'brain-zones', 'widths': list(WIDTHS)},
    'inputs': [{'name': 'head', 'contrasts': ['T2starw', 'swi', 'T1w', 'T2w']}],
    'grid': {'shape': list(SHAPE), 'voxel_mm': [NET_MM] * 3, 'orientation': 'RAS'},
    'intensity': {'percentile': 99.5, 'clip': 1.0, 'divide': 1.0, 'masked': False},
    'classes': [
        *({'value': int(zone), 'name': zone.name.lower()} for zone in Zone if zone),
        {'value': LEFT, 'name': 'left'},
    ],
    'postprocess': {'threshold': 0.5, 'min_voxels': 12500, 'connectivity': 26},
}


def _simulate(job: tuple[tuple[int, int], tuple[int, int, int], float]) -> list[Pair]:
    return simulate_pairs(*job, contrasts=CONTRASTS)


def stream(seed: int, first: int, last: int, workers: int) -> Iterator[list[Pair]]:
    """Pairs of heads ``first`` to ``last`` in order, made by other processes when asked."""
    jobs = (((seed, index), SHAPE, NET_MM) for index in range(first, last))
    if workers < 1:
        yield from map(_simulate, jobs)
        return
    import multiprocessing

    # spawn: TensorFlow's threads do not survive a fork
    with multiprocessing.get_context('spawn').Pool(workers, keep_freed_memory) as pool:
        pending = []
        for job in jobs:
            pending.append(pool.apply_async(_simulate, (job,)))
            if len(pending) > 2 * workers + 2:
                yield pending.pop(0).get()
        for result in pending:
            yield result.get()


def zone_loss(truth: Any, logits: Any) -> Any:
    """Cross-entropy and soft Dice of brain, of the zones inside it, and of the side.

    Brain against background is not weighted, so that the mask is not biased; small zones count
    more inside it, or the first thousand steps would leave them out.

    Parameters
    ----------
    truth : tensor, uint8 [N, X, Y, Z, 8]
        Folded zones, :data:`LEFT` added on the left.
    logits : tensor, float32 [N, X, Y, Z, 72]
        As of the folded network.

    Returns
    -------
    tensor
        One number: 0 for certain and right.
    """
    from keras import ops

    truth = ops.cast(ops.reshape(truth, (-1,)), 'int32')
    zones = ops.reshape(logits[..., : 8 * ZONES], (-1, ZONES))
    side = ops.reshape(logits[..., 8 * ZONES :], (-1,))
    left = ops.cast(truth >= LEFT, 'float32')
    wanted = ops.one_hot(truth % LEFT, ZONES)
    logs = ops.log_softmax(zones)
    found = ops.exp(logs)
    shared = ops.sum(wanted * found, axis=0)
    total = ops.sum(wanted, axis=0) + ops.sum(found, axis=0)
    dice = (2.0 * shared + 1.0) / (total + 1.0)
    outside, beyond = wanted[:, 0], found[:, 0]
    inside = 1.0 - outside
    both = ops.sum(inside * (1.0 - beyond))
    brain = (2.0 * both + 1.0) / (ops.sum(2.0 - outside - beyond) + 1.0)
    # log of the probability of brain, and of the zone given brain
    within = ops.logsumexp(zones[:, 1:], axis=-1) - ops.logsumexp(zones, axis=-1)
    entropy = -ops.mean(outside * logs[:, 0] + inside * within)
    weight = inside * ops.take(ops.convert_to_tensor(WEIGHTS), truth % LEFT)
    surprise = within - ops.sum(wanted * logs, axis=-1)
    entropy += 0.5 * ops.sum(weight * surprise) / (ops.sum(weight) + 1.0)
    wrong = ops.softplus(side) - left * side
    sides = ops.sum(inside * wrong) / (ops.sum(inside) + 1.0)
    return entropy + (1.0 - ops.mean(dice)) + (1.0 - brain) + 0.5 * sides


def _rate(step: int, steps: int, top: float) -> float:
    """Linear start, cosine end."""
    warm = min(50, max(1, steps // 20))
    if step < warm:
        return top * (step + 1) / warm
    return float(top * 0.5 * (1.0 + np.cos(np.pi * (step - warm) / max(1, steps - warm))) + 1e-6)


def _shipped(model: Any) -> Any:
    network = build_zone_network(SHAPE)
    network.set_weights(unfolded(model.get_weights()))
    return network


@dataclass(frozen=True)
class Recipe:
    """Network, target and loss; tests put smaller ones in their place.

    Attributes
    ----------
    card : dict
        ``model.json`` without training and figures.
    loss : callable
        Target and output of the network in training to a number.
    build : callable
        Makes that network.
    target : callable
        Zones of a pair, uint8 [1, X, Y, Z], to the target.
    ship : callable
        That network, trained, to the one that ships, without the optimiser's state.
    loss_name : str
        For the card.
    steps : int
        By default.
    precision : str
        Keras policy of the arithmetic in training where bfloat16 is fast, else it is float32; the
        weights are kept in float32.
    """

    card: dict[str, Any]
    loss: Callable[[Any, Any], Any]
    build: Callable[[], Any]
    target: Callable[[Array], Array]
    ship: Callable[[Any], Any]
    loss_name: str
    steps: int = 3000
    precision: str = 'mixed_bfloat16'


ZONE_RECIPE = Recipe(
    card=CARD,
    loss=zone_loss,
    build=lambda: build_zone_network(SHAPE, folded=True),
    target=fold,
    ship=_shipped,
    loss_name='cross-entropy and soft Dice of the brain, of the zones in it and of the side',
)


def _precision(recipe: Recipe) -> str:
    return safe_precision(recipe.precision, min(SHAPE), bfloat16=computes_bfloat16())


def new_network(recipe: Recipe = ZONE_RECIPE) -> Any:
    """Build the network in the form for training, in float32 where the recipe would be slow."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_precision(recipe))
    try:
        return recipe.build()
    finally:
        keras.config.set_dtype_policy(before)


def train(
    folder: Path,
    *,
    steps: int,
    seed: int,
    workers: int = 1,
    learning_rate: float = 2e-3,
    recipe: Recipe = ZONE_RECIPE,
) -> Any:
    """Train, with checkpoints, and go on from one if it is there.

    Every other step sees a new image, the others one from a pool of earlier ones: drawing heads
    costs as much as learning from them. A resumed run starts with an empty pool, so it is not
    bit-identical.

    Parameters
    ----------
    folder : Path
        Gets ``checkpoint.keras``, ``progress.json`` and ``loss.tsv``.
    steps : int
    seed : int
    workers : int
        Processes that draw heads; 0 draws in this one.
    learning_rate : float
    recipe : Recipe
        Network, target, loss and precision.

    Returns
    -------
    keras.Model
        In the form for training.

    Raises
    ------
    DataError
        When the loss is not finite; the last checkpoint stays.
    """
    import keras

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, progress = folder / 'checkpoint.keras', folder / 'progress.json'
    keras.utils.set_random_seed(seed)
    first = 0
    model = new_network(recipe)
    model.compile(keras.optimizers.Adam(learning_rate, clipnorm=1.0), recipe.loss)
    if checkpoint.exists() and progress.exists():
        first = int(json.loads(progress.read_text())['step'])
        saved = keras.models.load_model(
            checkpoint, custom_objects={recipe.loss.__name__: recipe.loss}, safe_mode=True
        )
        logger.info('going on from step %d', first)
        # its arithmetic is that of the machine that saved it
        model.set_weights(saved.get_weights())
        model.optimizer.build(model.trainable_variables)
        for own, kept in zip(model.optimizer.variables, saved.optimizer.variables, strict=True):
            own.assign(kept)
    rng = np.random.default_rng([seed, 1, first])
    pool: list[Pair] = []
    started = time.monotonic()
    losses: list[float] = []
    # a head serves for so many steps
    share = CONTRASTS * FRESH_EVERY
    heads = stream(seed, first // share, -(-steps // share) + 1, workers)
    fresh = (pair for pairs in heads for pair in pairs)
    for step in range(first, steps):
        if step % FRESH_EVERY and pool:
            pair = pool[int(rng.integers(len(pool)))]
        else:
            pair = next(fresh)
            pool.append(pair)
            del pool[: max(0, len(pool) - POOL)]
        model.optimizer.learning_rate = _rate(step, steps, learning_rate)
        image = pair.image.astype(np.float32)[None, ..., None]
        losses.append(float(model.train_on_batch(image, recipe.target(pair.zones[None]))))
        if not np.isfinite(losses[-1]):
            raise DataError(
                f'the loss became {losses[-1]} at step {step + 1}; <{checkpoint}> is of an'
                ' earlier step: start again from it with another seed'
            )
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            # the loss is counted before the step, whose gradient may be none
            if not all(np.isfinite(weight).all() for weight in model.get_weights()):
                raise DataError(
                    f'the weights are not finite any more after step {step + 1}; <{checkpoint}> '
                    'is of an earlier step: start again from it with a lower learning rate'
                )
            _save(model, checkpoint, progress, step + 1)
            with (folder / 'loss.tsv').open('a') as table:
                table.write(f'{step + 1}\t{np.mean(losses):.5f}\n')
            logger.info(
                'step %d of %d, loss %.4f, %.2f s a step',
                step + 1,
                steps,
                np.mean(losses),
                (time.monotonic() - started) / (step + 1 - first),
            )
            losses.clear()
    return model


def _save(model: Any, checkpoint: Path, progress: Path, step: int) -> None:
    """Model first, then the step that it stands for, each by renaming."""
    new = checkpoint.with_name('new.keras')
    model.save(new)
    new.replace(checkpoint)
    text = progress.with_name('progress.new')
    text.write_text(json.dumps({'step': step}))
    text.replace(progress)


def main(arguments: Sequence[str] | None = None, recipe: Recipe = ZONE_RECIPE) -> int:
    """Run from a command line."""
    name = recipe.card['name']
    parser = argparse.ArgumentParser(prog=f'python -m shivacmb.train.{name.replace("-", "_")}')
    parser.add_argument('-o', '--output', type=Path, required=True, help='folder of the bundle')
    parser.add_argument('--work', type=Path, help=f'checkpoints (default: OUTPUT/../{name}-work)')
    parser.add_argument(
        '--bundle-version', default='unreleased', help='version that the bundle calls itself'
    )
    parser.add_argument('--steps', type=int, default=recipe.steps)
    parser.add_argument('--seed', type=int, default=20240)
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--heads', type=int, default=24, help='heads that the atlas is made of')
    parser.add_argument(
        '--judge', type=int, default=6, help='simulated heads per condition to measure on; 0: none'
    )
    parser.add_argument(
        '--history', help='what the card says where the steps were not one run of this program'
    )
    parser.add_argument('--threads', type=int, default=2, help='threads of the network')
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    ask_for_onednn()
    # read by TensorFlow when it first computes
    os.environ['TF_NUM_INTRAOP_THREADS'] = str(options.threads)
    work = options.work or options.output.parent / f'{name}-work'
    note_plan(work, {'seed': options.seed, 'heads': options.heads})
    model = train(
        work, steps=options.steps, seed=options.seed, workers=options.workers, recipe=recipe
    )
    network = recipe.ship(model)
    predict = _predictor(network)
    file = work / f'atlas-{options.steps}' / FILE
    if not file.exists():
        samples = simulate_samples(
            predict, SHAPE, NET_MM, options.heads, options.seed, file.parent
        )
        save_atlas(make_atlas(samples, NET_MM, seed=options.seed), file)
    # as it was stored, in 8 bits
    checksum = sha256_of(file)
    atlas = load_atlas(file, checksum)
    metrics = (
        judge(predict, SHAPE, NET_MM, heads=options.judge, atlas=atlas) if options.judge else {}
    )
    for condition, values in metrics.items():
        logger.info('%s: %s', condition, values)
    training = {
        **TRAINING,
        'loss': recipe.loss_name,
        'precision': _precision(recipe),
        'steps': options.steps,
        'seed': options.seed,
        'atlas': f'{options.heads} further heads of usual variety, two images each',
    }
    if options.history:
        training['history'] = options.history
    write_bundle(
        options.output,
        [network],
        {
            **recipe.card,
            'version': options.bundle_version,
            'architecture': {
                **recipe.card['architecture'],
                'atlas': {'file': FILE, 'sha256': checksum},
            },
            'training': training,
            'metrics': {'simulated heads, other seeds': metrics},
        },
        overwrite=True,
        extra_files=[file],
    )
    return 0


def _predictor(model: Any) -> Callable[[Array], Array]:
    def predict(field: Array) -> Array:
        return np.asarray(model.predict_on_batch(field[None, ..., None])[0])

    return predict


if __name__ == '__main__':
    raise SystemExit(main())
