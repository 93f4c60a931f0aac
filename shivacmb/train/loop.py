"""The training loop: resumable at any kill, the same steps from the same seed."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shivacmb.exceptions import DataError
from shivacmb.models.unet3d import build_unet3d
from shivacmb.train.losses import lesion_loss

Array = NDArray[Any]

#: Network of the shipped model: about 690 000 parameters.
ARCHITECTURE: dict[str, Any] = {
    'filters': 32, 'stages': 3, 'convolutions': 2, 'growth': 1.5, 'stem': 2,
}  # fmt: skip


class Source(Protocol):
    """What the loop asks of its data."""

    def draw(self, step: int) -> tuple[Array, Array]:
        """Images [N, X, Y, Z, C] and targets [N, X, Y, Z, 2] of a step."""


# With patches of 16 voxels (2 at the deepest stage) the bfloat16 convolutions of TensorFlow 2.21
# on a CPU gave NaN gradients in 6 of 12 runs; in float32, and from 24 voxels on, in none of 44
SMALLEST_BFLOAT16 = 24


@dataclass(frozen=True)
class Recipe:
    """Length and pace of a training run.

    Attributes
    ----------
    steps : int
        Batches.
    rate : float
        Highest learning rate.
    warm : int
        Steps of linear rise; then a cosine fall to 1 % of ``rate``.
    save_every, log_every : int
        Steps between checkpoints and between rows of the learning curve.
    seed : int
        Of the initial weights.
    size : int
        Side of a patch in voxels.
    precision : str
        Keras policy of the arithmetic; the weights are kept in float32.
    """

    steps: int
    rate: float = 1e-3
    warm: int = 50
    save_every: int = 200
    log_every: int = 20
    seed: int = 0
    size: int = 32
    precision: str = 'mixed_bfloat16'


def safe_precision(recipe: Recipe) -> str:
    """Return the arithmetic of a run: float32 for patches too small for bfloat16.

    Parameters
    ----------
    recipe : Recipe
        Patch size and the precision asked for.

    Returns
    -------
    str
        Keras policy.
    """
    return recipe.precision if recipe.size >= SMALLEST_BFLOAT16 else 'float32'


def learning_rate(step: int, recipe: Recipe) -> float:
    """Learning rate of a step: linear rise, then cosine decay."""
    if step < recipe.warm:
        return recipe.rate * (step + 1) / recipe.warm
    share = (step - recipe.warm) / max(1, recipe.steps - recipe.warm)
    return recipe.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def new_model(size: int, seed: int, precision: str = 'float32') -> Any:
    """Build the network with seeded weights and an output that starts near 0.

    Parameters
    ----------
    size : int
        Side of a patch in voxels.
    seed : int
        Of the weights.
    precision : str
        Keras policy, such as 'float32' or 'mixed_bfloat16'.

    Returns
    -------
    keras.Model
        Sigmoid output; its bias starts at -4, a prior of 2 %.
    """
    import keras

    keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = build_unet3d((size,) * 3, **ARCHITECTURE)
    finally:
        keras.config.set_dtype_policy(before)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, np.full_like(bias, -4.0)])
    return model


def _save(path: Path, step: int, model: Any, optimizer: Any) -> None:
    scratch = path.with_suffix('.tmp')
    arrays = {f'w{i:03d}': value for i, value in enumerate(model.get_weights())}
    arrays |= {f'o{i:03d}': np.asarray(v) for i, v in enumerate(optimizer.variables)}
    with scratch.open('wb') as stream:
        np.savez(stream, step=step, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def _restore(path: Path, model: Any, optimizer: Any) -> int:
    with np.load(path) as saved:
        weights = [saved[name] for name in sorted(saved.files) if name.startswith('w')]
        state = [saved[name] for name in sorted(saved.files) if name.startswith('o')]
        if len(state) != len(optimizer.variables) or len(weights) != len(model.get_weights()):
            raise DataError(
                f'The checkpoint <{path}> belongs to another network; '
                'remove it or give another output folder.'
            )
        model.set_weights(weights)
        for variable, value in zip(optimizer.variables, state, strict=True):
            variable.assign(value)
        return int(saved['step'])


def _read_curve(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    rows = path.read_text().splitlines()[1:]
    return [row for row in rows if int(row.split('\t')[0]) <= step]


def train(
    source: Source,
    recipe: Recipe,
    folder: Path,
    *,
    initial: list[Array] | None = None,
) -> list[Array]:
    """Train one network, or continue where a killed run stopped.

    Parameters
    ----------
    source : Source
        Batches by step.
    recipe : Recipe
        Length and pace.
    folder : Path
        Receives ``checkpoint.npz`` and ``curve.tsv`` (step, learning rate, mean loss).
    initial : list of ndarray, optional
        Weights to begin with.

    Returns
    -------
    list of ndarray
        Weights after the last step, in the order of ``build_unet3d``.

    Raises
    ------
    DataError
        When the loss is not finite, or the checkpoint is of another network. The last checkpoint
        stays.
    """
    import keras

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, curve = folder / 'checkpoint.npz', folder / 'curve.tsv'
    model = new_model(recipe.size, recipe.seed, safe_precision(recipe))
    if initial is not None:
        model.set_weights(initial)
    optimizer = keras.optimizers.Adam(recipe.rate, clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer, loss=lesion_loss)
    step = _restore(checkpoint, model, optimizer) if checkpoint.exists() else 0
    rows = _read_curve(curve, step)
    losses: list[float] = []
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(source.draw, step)
        while step < recipe.steps:
            images, targets = coming.result()
            coming = ahead.submit(source.draw, step + 1)
            optimizer.learning_rate = learning_rate(step, recipe)
            losses.append(float(model.train_on_batch(images, targets)))
            model.reset_metrics()
            step += 1
            if not math.isfinite(losses[-1]):
                raise DataError(
                    f'The loss became {losses[-1]} at step {step}; continue from <{checkpoint}> '
                    'with a lower learning rate.'
                )
            if step % recipe.log_every == 0 or step == recipe.steps:
                rows.append(
                    f'{step}\t{learning_rate(step - 1, recipe):.3e}\t{np.mean(losses):.5f}'
                )
                losses = []
                curve.write_text('\n'.join(['step\tlearning_rate\tloss', *rows]) + '\n')
            if step % recipe.save_every == 0 or step == recipe.steps:
                _save(checkpoint, step, model, optimizer)
    return [np.asarray(weight) for weight in model.get_weights()]
