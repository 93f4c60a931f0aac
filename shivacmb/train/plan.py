"""All choices of a training, and which of them may change while it is under way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shivacmb.bids import write_text
from shivacmb.exceptions import UsageError
from shivacmb.models import Grid, Input, Intensity
from shivacmb.models.unet3d import build_unet3d, stage_filters
from shivacmb.train.augment import Augmentation
from shivacmb.train.dataset import LabelClass
from shivacmb.train.dice import balanced_loss, dice_loss
from shivacmb.train.loop import ARCHITECTURE, Network, Recipe, seeded
from shivacmb.train.schedule import Cycle

PRECISIONS = ('float32', 'mixed_bfloat16', 'mixed_float16')
#: The network of Tsuchida 2024, and a small one for trainings without a GPU.
NETWORKS: dict[str, dict[str, Any]] = {
    'shiva-paper': {'filters': 10, 'stages': 7, 'convolutions': 2, 'growth': 1.8},
    'small': ARCHITECTURE,
}
#: Patches that make an epoch of one scan.
PATCHES_PER_SCAN = 8
#: Epochs from the low to the high learning rate; Smith 2017 advises 2 to 10.
HALF_CYCLE_EPOCHS = 4
#: What is left of the height of the cycles at the end.
LAST_HEIGHT = 0.01
_LOSSES = {'dice': dice_loss, 'balanced': balanced_loss}
#: What a run that continues may change: how long and how fast, not what is learnt.
_MAY_CHANGE = ('epochs', 'steps', 'low', 'high', 'cycle', 'decay', 'precision', 'deterministic')


@dataclass(frozen=True)
class Plan:
    """A training of all folds; defaults follow Tsuchida 2024 where the paper says something.

    Attributes
    ----------
    inputs : tuple of Input
        Channels.
    classes : tuple of LabelClass
        Classes, in the order of the network's maps.
    grid, intensity
        As the bundle will say.
    ignore : tuple of int
        Values of label maps that count neither way.
    architecture : mapping
        Arguments of ``build_unet3d``.
    folds, seed : int
        Networks, and the number that decides every draw.
    epochs : int
        Times that each scan is seen (whole), or eight patches of it.
    steps : int or None
        Batches of each fold, instead of ``epochs``.
    batch : int
        Images per step.
    patch : int or None
        Side of patches in voxels; None trains on whole boxes.
    loss : {'dice', 'balanced'}
        See :mod:`shivacmb.train.dice`.
    low, high : float
        Ends of the cyclical learning rate.
    cycle : int or None
        Steps of a whole cycle; None takes eight epochs.
    decay : float or None
        Factor per step; None leaves 1 % of the height at the last step.
    augmentation : Augmentation
        Movements and curves.
    precision : str
        Keras policy.
    deterministic : bool
        The same bits from the same seed on the same machine.
    """

    inputs: tuple[Input, ...] = (Input('swi', ('T2starw', 'swi')),)
    classes: tuple[LabelClass, ...] = (LabelClass('CMB'),)
    grid: Grid = field(default_factory=lambda: Grid((160, 216, 176)))
    intensity: Intensity = field(default_factory=Intensity)
    ignore: tuple[int, ...] = ()
    architecture: Mapping[str, Any] = field(default_factory=lambda: NETWORKS['shiva-paper'])
    folds: int = 3
    seed: int = 0
    epochs: int = 200
    steps: int | None = None
    batch: int = 1
    patch: int | None = None
    loss: str = 'dice'
    low: float = 1e-6
    high: float = 1e-3
    cycle: int | None = None
    decay: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: str = 'float32'
    deterministic: bool = True

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises
        ------
        UsageError
            Naming the option.
        """
        if self.folds < 2:
            raise UsageError(
                '--folds must be at least 2: the threshold is chosen on scans that a network did '
                'not see'
            )
        if self.seed * 1000 + self.folds >= 2**32:
            raise UsageError(f'--seed must be below {2**32 // 1000 - self.folds}')
        for item in self.classes:
            if shared := sorted({*self.ignore} & {*item.values}):
                raise UsageError(
                    f'--ignore {shared[0]} is a value of the class {item.name}; leave it out of '
                    'one of them'
                )
        if not 0 < self.low <= self.high:
            raise UsageError('the learning rates must satisfy 0 < --min-rate <= --max-rate')
        if self.decay is not None and not 0 < self.decay <= 1:
            raise UsageError(f'--decay must be above 0 and at most 1, not {self.decay:g}')
        sizes = {**NETWORKS['shiva-paper'], **self.architecture}
        if min(stage_filters(sizes['filters'], sizes['stages'], sizes['growth'])) < 1:
            raise UsageError('--growth leaves a stage without filters; raise it, or --filters')
        stem = int(self.architecture.get('stem', 1))
        sides = self.grid.shape if self.patch is None else (*self.grid.shape, self.patch)
        if any(side % stem for side in sides):
            raise UsageError(
                f'this network folds {stem}x{stem}x{stem} voxels: --shape and --patch-size must '
                f'divide by {stem}, which {tuple(sides)} do not'
            )
        if self.patch is not None and self.patch > min(self.grid.shape):
            raise UsageError(
                f'--patch-size {self.patch} is larger than the box {self.grid.shape}; lower it, '
                'or leave it out to train on whole boxes'
            )
        halvings = int(sizes['stages']) - 1
        widest = max(self.grid.shape if self.patch is None else (self.patch,))
        option = 'a side of --shape' if self.patch is None else '--patch-size'
        if self.batch == 1 and widest <= stem * 2**halvings:
            # the mean of one value is that value: nothing is left of it, and nothing is learnt
            raise UsageError(
                f'{sizes["stages"]} stages leave one voxel of {widest}, which batch normalisation '
                f'of a single image takes away: give {option} above {stem * 2**halvings}, '
                'fewer --stages (--network small has three), or a larger --batch'
            )

    @property
    def top(self) -> float:
        """Largest value of the scaled images."""
        return self.intensity.clip / self.intensity.divide

    def epoch(self, scans: int) -> int:
        """Steps of an epoch."""
        return math.ceil(scans * (1 if self.patch is None else PATCHES_PER_SCAN) / self.batch)

    def total(self, scans: int) -> int:
        """Steps of a fold that learns from so many scans."""
        return self.steps if self.steps is not None else self.epochs * self.epoch(scans)

    def rate(self, scans: int) -> Cycle:
        """Learning rate of a fold that learns from so many scans."""
        total = self.total(scans)
        half = HALF_CYCLE_EPOCHS * self.epoch(scans) if self.cycle is None else self.cycle // 2
        half = max(1, min(half, total // 2) if self.cycle is None else half)
        decay = LAST_HEIGHT ** (1 / total) if self.decay is None else self.decay
        return Cycle(self.low, self.high, half, decay)

    def described_rate(self, scans: int) -> dict[str, float]:
        """Return the same in plain numbers, for records."""
        rate = self.rate(scans)
        return {'low': rate.low, 'high': rate.high, 'cycle': 2 * rate.half, 'decay': rate.decay}

    def recipe(self, scans: int, fold: int) -> Recipe:
        """Length of a fold's training."""
        total = self.total(scans)
        return Recipe(
            steps=total, rate=self.high, save_every=max(50, self.epoch(scans)),
            log_every=max(1, total // 500), seed=self.seed * 1000 + fold,
            size=self.patch or min(self.grid.shape), precision=self.precision,
        )  # fmt: skip

    def build(self, shape: tuple[int, int, int] | None = None) -> Any:
        """Build the network, on its training size by default."""
        if shape is None:
            shape = self.grid.shape if self.patch is None else (self.patch,) * 3
        return build_unet3d(
            shape, channels=len(self.inputs), classes=len(self.classes), **self.architecture
        )

    def network(self, scans: int, fold: int) -> Network:
        """Return what the loop needs to train a fold."""
        import keras

        # The balanced loss begins better near 0; the paper says nothing, so Keras's default it is
        bias = -4.0 if self.loss == 'balanced' else None
        seed = self.recipe(scans, fold).seed
        make: Callable[[str], Any] = lambda precision: seeded(  # noqa: E731
            self.build, seed, precision, bias
        )
        return Network(
            build=make,
            loss=_LOSSES[self.loss],
            optimizer=lambda: keras.optimizers.Adam(
                self.high, beta_1=0.9, beta_2=0.999, epsilon=1e-7
            ),
            rate=self.rate(scans),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content


def note_plan(work: Path, plan: dict[str, Any]) -> None:
    """Write down what a work folder is for, or refuse one that was begun for something else.

    Parameters
    ----------
    work : Path
        Created when missing.
    plan : dict
        What decides its content.

    Raises
    ------
    UsageError
        Naming what differs, or that the file cannot be read.
    OutputError
        When it cannot be written.
    """
    path = work / 'plan.json'
    now = json.loads(json.dumps(plan, default=str))
    if path.exists():
        try:
            before = dict(json.loads(path.read_text('utf-8')))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(
                f'<{path}> cannot be read; give another folder with --work'
            ) from error
        check_same(now, before, str(work), may_change=())
    else:
        work.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(now, indent=1) + '\n')


def check_same(
    now: dict[str, Any],
    before: dict[str, Any],
    work: str,
    may_change: Sequence[str] = _MAY_CHANGE,
) -> None:
    """Refuse to continue a training with other choices than it began with.

    Parameters
    ----------
    now, before : dict
        Of :meth:`Plan.to_json`.
    work : str
        Where the training is, for the message.
    may_change : sequence of str
        What may differ: by default length, learning rate and precision.

    Raises
    ------
    UsageError
        Naming what differs.
    """
    changed = [
        f'{name} ({json.dumps(before.get(name))} before, {json.dumps(now[name])} now)'
        for name in now
        if name not in may_change and now[name] != before.get(name)
    ]
    if changed:
        raise UsageError(
            f'the training in <{work}> was begun with other settings: {"; ".join(changed)}; run '
            'the command it was begun with, or give another folder with --work'
        )
