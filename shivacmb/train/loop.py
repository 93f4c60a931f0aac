"""The training loop: resumable at any kill, the same steps from the same seed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import remove_stale, write_text
from shivacmb.exceptions import DataError, TemporaryError
from shivacmb.models.unet3d import build_unet3d
from shivacmb.train.backend import computes_bfloat16
from shivacmb.train.checkpoint import CHECKPOINT, State
from shivacmb.train.curves import damaged_curve
from shivacmb.train.losses import lesion_loss

Array = NDArray[Any]

#: Network of the shipped model: about 713 000 parameters.
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


def safe_precision(precision: str, size: int, *, bfloat16: bool) -> str:
    """Return the arithmetic of a run: float32 where bfloat16 would fail or be slower.

    Parameters
    ----------
    precision : str
        Keras policy asked for.
    size : int
        Smallest side of a patch in voxels.
    bfloat16 : bool
        Whether it is fast here, see :func:`shivacmb.train.backend.computes_bfloat16`.

    Returns
    -------
    str
        Keras policy.
    """
    if precision == 'mixed_bfloat16' and not bfloat16:
        return 'float32'
    return precision if size >= SMALLEST_BFLOAT16 else 'float32'


def learning_rate(step: int, recipe: Recipe) -> float:
    """Learning rate of a step: linear rise, then cosine decay."""
    if step < recipe.warm:
        return recipe.rate * (step + 1) / recipe.warm
    share = (step - recipe.warm) / max(1, recipe.steps - recipe.warm)
    return recipe.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


@dataclass(frozen=True)
class Network:
    """What is trained, and how each step goes; the defaults are those of the shipped detector.

    Attributes
    ----------
    build : callable
        Keras policy to a model with seeded weights.
    loss : callable
        Of targets and predictions.
    optimizer : callable
        Makes a Keras optimizer.
    rate : callable
        Learning rate of a step, counted from 0.
    """

    build: Callable[[str], Any]
    loss: Callable[[Any, Any], Any]
    optimizer: Callable[[], Any]
    rate: Callable[[int], float]


@dataclass(frozen=True)
class Watch:
    """What happens beside the steps.

    Attributes
    ----------
    stop : callable
        Asked after each step: True saves a checkpoint and raises :class:`PausedError`.
    validation : Source, optional
        Its batches are predicted, not learnt.
    batches, every : int
        How many of its batches, and steps between such looks.
    save_seconds : float
        A checkpoint is written after this time even if ``Recipe.save_every`` is not reached.
    workers : int
        Threads that draw batches ahead.
    tell : callable
        Receives a line about each row of the learning curve.
    """

    stop: Callable[[], bool] = lambda: False
    validation: Source | None = None
    batches: int = 1
    every: int = 100
    save_seconds: float = math.inf
    workers: int = 1
    tell: Callable[[str], None] = lambda _: None


class PausedError(TemporaryError):
    """A training stopped at a checkpoint, as it was asked to."""


def shipped_network(recipe: Recipe) -> Network:
    """Return the network, loss and pace of the shipped detector."""
    import keras

    return Network(
        build=lambda precision: new_model(recipe.size, recipe.seed, precision),
        loss=lesion_loss,
        optimizer=lambda: keras.optimizers.Adam(recipe.rate, clipnorm=1.0),
        rate=lambda step: learning_rate(step, recipe),
    )


def seeded(build: Callable[[], Any], seed: int, precision: str, bias: float | None = None) -> Any:
    """Build a network with seeded weights under a policy.

    Parameters
    ----------
    build : callable
        Makes the model.
    seed : int
        Of the weights.
    precision : str
        Keras policy, such as 'float32' or 'mixed_bfloat16'.
    bias : float, optional
        Of the output layer, which is the last; -4 is a prior of 2 %.

    Returns
    -------
    keras.Model
    """
    import keras

    keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy(before)
    if bias is not None:
        kernel, old = model.layers[-1].get_weights()
        model.layers[-1].set_weights([kernel, np.full_like(old, bias)])
    return model


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
    return seeded(lambda: build_unet3d((size,) * 3, **ARCHITECTURE), seed, precision, bias=-4.0)


def _read_curve(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    try:
        rows = path.read_text('utf-8').splitlines()[1:]
        return [row for row in rows if row and int(row.split('\t')[0]) <= step]
    except (OSError, ValueError) as error:
        raise damaged_curve(path) from error


class _Ahead:
    """Batches drawn in other threads, in the order of their steps."""

    def __init__(self, source: Source, first: int, end: int, workers: int) -> None:
        self.source, self.next, self.end = source, first, end
        self.threads = ThreadPoolExecutor(workers)
        self.coming: deque[Future[tuple[Array, Array]]] = deque()
        for _ in range(workers):
            self._order()

    def _order(self) -> None:
        if self.next < self.end:
            self.coming.append(self.threads.submit(self.source.draw, self.next))
            self.next += 1

    def take(self) -> tuple[Array, Array]:
        """Return the next batch; the one after the last ordered begins to be drawn."""
        pair = self.coming.popleft().result()
        self._order()
        return pair

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self.threads.shutdown(wait=True, cancel_futures=True)


def train(
    source: Source,
    recipe: Recipe,
    folder: Path,
    *,
    initial: list[Array] | None = None,
    network: Network | None = None,
    watch: Watch | None = None,
) -> list[Array]:
    """Train one network, or continue where a killed run stopped.

    Parameters
    ----------
    source : Source
        Batches by step.
    recipe : Recipe
        Length and pace.
    folder : Path
        Receives ``checkpoint.npz`` and ``curve.tsv`` (step, learning rate, mean loss, and the
        loss on validation batches where there are any).
    initial : list of ndarray, optional
        Weights to begin with.
    network : Network, optional
        What is trained; that of the shipped detector by default.
    watch : Watch, optional
        Validation, stops, threads.

    Returns
    -------
    list of ndarray
        Weights after the last step, in the order of the network.

    Raises
    ------
    DataError
        When the loss or a weight is not finite, or the checkpoint is of another network. The last
        checkpoint stays.
    OutputError
        When a checkpoint cannot be written, for example because the disk is full. The last one
        stays.
    PausedError
        When ``watch.stop`` said so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder)
    checkpoint, curve = folder / CHECKPOINT, folder / 'curve.tsv'
    network, watch = network or shipped_network(recipe), watch or Watch()
    used = safe_precision(recipe.precision, recipe.size, bfloat16=computes_bfloat16())
    model = network.build(used)
    if initial is not None:
        model.set_weights(initial)
    model.compile(optimizer=network.optimizer(), loss=network.loss)
    # under float16 compiling wraps the optimizer
    model.optimizer.build(model.trainable_variables)
    state = State(model)
    if checkpoint.exists():
        state.restore(checkpoint)
    rows = _read_curve(curve, state.step)
    began = saved = time.monotonic()
    with _Ahead(source, state.step, recipe.steps, watch.workers) as ahead:
        while state.step < recipe.steps:
            images, targets = ahead.take()
            rate = network.rate(state.step)
            model.optimizer.learning_rate = rate
            loss = float(model.train_on_batch(images, targets))
            model.reset_metrics()
            state.step += 1
            if not math.isfinite(loss):
                raise DataError(_not_finite(loss, state.step, checkpoint))
            state.losses.append(loss)
            last = state.step == recipe.steps
            if state.step % recipe.log_every == 0 or last:
                rows.append(f'{state.step}\t{rate:.3e}\t{np.mean(state.losses):.5f}')
                state.losses = []
                if watch.validation is not None:
                    seen = _looked(rows[-1], state.step, watch, model, last=last)
                    rows[-1] = seen
                titles = ['step\tlearning_rate\tloss']
                if watch.validation is not None:
                    titles[0] += '\tvalidation_loss'
                write_text(curve, '\n'.join([*titles, *rows]) + '\n')
                watch.tell(rows[-1])
            stop = not last and watch.stop()
            now = time.monotonic()
            late = now - saved > watch.save_seconds
            if state.step % recipe.save_every == 0 or last or stop or late:
                state.seconds += now - began
                state.save(checkpoint)
                began = saved = now
            if stop:
                raise PausedError(
                    f'stopped after step {state.step} of {recipe.steps} at <{checkpoint}>; run '
                    'the same command again to go on'
                )
    return [np.asarray(weight) for weight in model.get_weights()]


def _not_finite(loss: float, step: int, checkpoint: Path) -> str:
    where = f'continue from <{checkpoint}>' if checkpoint.exists() else 'begin again'
    return f'The loss became {loss} at step {step}; {where} with a lower learning rate.'


def _looked(row: str, step: int, watch: Watch, model: Any, *, last: bool) -> str:
    """Add the loss on validation batches to a row, where it is time for it."""
    if watch.validation is None or not (last or step % watch.every == 0):
        return row + '\tn/a'
    losses = []
    for number in range(watch.batches):
        losses.append(float(model.test_on_batch(*watch.validation.draw(number))))
        model.reset_metrics()
    return f'{row}\t{np.mean(losses):.5f}'
