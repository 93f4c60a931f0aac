"""Stops, damaged checkpoints, a full disk: nothing is lost, and the message says what to do."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shivacmb.exceptions import DataError, OutputError, TemporaryError
from shivacmb.processes import machine
from shivacmb.train.checkpoint import CHECKPOINT, saved_weights
from shivacmb.train.dataset import Query
from shivacmb.train.lock import locked
from shivacmb.train.loop import Network, PausedError, Recipe, Watch, seeded, train
from shivacmb.train.losses import lesion_loss
from shivacmb.train.plan import Plan
from shivacmb.train.run import Task, _train_fold
from shivacmb.train.runs import note_rate, read_rates

keras = pytest.importorskip('keras')
pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

RECIPE = Recipe(steps=5, warm=2, save_every=100, log_every=2, size=16, precision='float32')


def tiny() -> Network:
    """One convolution: what is tested is the loop."""

    def build() -> Any:
        inputs = keras.layers.Input((16, 16, 16, 1))
        hidden = keras.layers.BatchNormalization()(
            keras.layers.Conv3D(2, 3, padding='same')(inputs)
        )
        return keras.Model(inputs, keras.layers.Conv3D(1, 1, activation='sigmoid')(hidden))

    return Network(
        build=lambda precision: seeded(build, 0, precision),
        loss=lesion_loss,
        optimizer=lambda: keras.optimizers.Adam(),
        rate=lambda step: 1e-2 / (step + 1),
    )


class Dots:
    """Dark dots on grey; draws are noted."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        self.drawn.append(step)
        rng = np.random.default_rng(step)
        lesion = rng.random((2, 16, 16, 16)) < 0.01
        image = np.where(lesion, 0.1, 0.8).astype(np.float32)
        return image[..., None], np.stack([lesion, np.ones_like(lesion)], -1).astype(np.float32)


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[np.ndarray], str]:
    folder = tmp_path_factory.mktemp('whole')
    weights = train(
        Dots(), RECIPE, folder, network=tiny(), watch=Watch(validation=Dots(), every=4, workers=3)
    )
    return weights, (folder / 'curve.tsv').read_text()


def test_a_stop_at_every_step_changes_nothing(
    whole: tuple[list[np.ndarray], str], tmp_path: Path
) -> None:
    watch = Watch(stop=lambda: True, validation=Dots(), every=4)
    for step in range(1, 5):
        with pytest.raises(
            PausedError, match=rf'stopped after step {step} of 5 at <.*run the same'
        ):
            train(Dots(), RECIPE, tmp_path, network=tiny(), watch=watch)
        assert saved_weights(tmp_path)[1] == step
    source = Dots()
    weights = train(source, RECIPE, tmp_path, network=tiny(), watch=watch)
    assert source.drawn == [4]
    for ours, theirs in zip(weights, whole[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    curves = [[line.split('\t') for line in text.splitlines()]
              for text in (whole[1], (tmp_path / 'curve.tsv').read_text())]  # fmt: skip
    assert curves[0][0] == ['step', 'learning_rate', 'loss', 'validation_loss']
    assert [row[0] for row in curves[0][1:]] == ['2', '4', '5']
    assert [row[3] == 'n/a' for row in curves[0][1:]] == [True, False, False]
    # the mean loss of a row survives a stop in its middle
    for ours, theirs in zip(curves[0][1:], curves[1][1:], strict=True):
        assert ours[:2] == theirs[:2]
        assert float(ours[2]) == pytest.approx(float(theirs[2]), abs=2e-5)


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PausedError):
        train(Dots(), RECIPE, tmp_path, network=tiny(), watch=Watch(stop=lambda: True))
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr('shivacmb.train.checkpoint.os.fsync', full)
        with pytest.raises(OutputError, match=r'cannot write <.*checkpoint.npz> \(No space left'):
            train(Dots(), RECIPE, tmp_path, network=tiny(), watch=Watch(stop=lambda: True))
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, 'curve.tsv']
    train(Dots(), RECIPE, tmp_path, network=tiny())
    assert saved_weights(tmp_path)[1] == 5


def test_weights_that_are_not_finite_leave_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(PausedError):
        train(Dots(), RECIPE, tmp_path, network=tiny(), watch=Watch(stop=lambda: True))
    before = (tmp_path / CHECKPOINT).read_bytes()

    def poisoned(target: Any, predicted: Any) -> Any:
        # its value is 0, its gradient 0/0
        zero = keras.ops.sqrt(keras.ops.sum(predicted * 0.0))
        return lesion_loss(target, predicted) + zero

    with pytest.raises(
        DataError, match=r'not finite any more after step 2; continue from <.*npz>'
    ):
        train(Dots(), replace(RECIPE, save_every=1), tmp_path,
              network=replace(tiny(), loss=poisoned))  # fmt: skip
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    train(Dots(), RECIPE, tmp_path, network=tiny())
    assert saved_weights(tmp_path)[1] == 5


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b'PK\x03\x04 cut')
    with pytest.raises(DataError, match=r'The checkpoint <.*> cannot be read .*copy it again, or'):
        train(Dots(), RECIPE, tmp_path, network=tiny())


def test_a_damaged_checkpoint_does_not_cost_the_record_of_the_rates(tmp_path: Path) -> None:
    plan = Plan(
        architecture={'filters': 1, 'stages': 1, 'convolutions': 1, 'growth': 1.0}, patch=16
    )
    folder = tmp_path / 'fold-0'
    for high, steps in ((0.1, 0), (1e-3, 30)):
        note_rate(folder, {**plan.described_rate(4), 'high': high}, steps)
    before = read_rates(folder)
    (folder / CHECKPOINT).write_bytes(b'PK\x03\x04 cut')
    task = Task(plan, Query(plan.inputs, plan.classes), (), tmp_path)
    with pytest.raises(DataError, match=r'The checkpoint <.*> cannot be read'):
        _train_fold(task, 0, ['a'] * 4, ['b'], None, lambda: False, lambda _: None)
    assert read_rates(folder) == before


def test_what_a_killed_run_was_writing_is_swept_away(tmp_path: Path) -> None:
    left = tmp_path / f'.tmp-{machine()}-999999999-0123abcd-checkpoint.npz'
    left.write_bytes(b'half')
    train(Dots(), replace(RECIPE, steps=1), tmp_path, network=tiny())
    assert not left.exists()


@pytest.mark.parametrize('precision', ['mixed_float16', 'float32'])
def test_the_arithmetic_may_change_between_runs(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaled = replace(
        tiny(), optimizer=lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    )
    one, two = (tiny(), scaled) if precision == 'mixed_float16' else (scaled, tiny())
    with pytest.raises(PausedError):
        train(Dots(), RECIPE, tmp_path, network=one, watch=Watch(stop=lambda: True))
    # Adam's own numbers go on, those that scale the loss begin anew
    train(Dots(), RECIPE, tmp_path, network=two)
    assert saved_weights(tmp_path)[1] == 5


def test_a_training_with_scaled_losses_goes_on_bit_by_bit(tmp_path: Path) -> None:
    scaled = replace(
        tiny(),
        optimizer=lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(), dynamic_growth_steps=2
        ),
    )
    whole = train(Dots(), RECIPE, tmp_path / 'whole', network=scaled)
    watch = Watch(stop=lambda: True)
    for _ in range(4):
        with pytest.raises(PausedError):
            train(Dots(), RECIPE, tmp_path / 'parts', network=scaled, watch=watch)
    parts = train(Dots(), RECIPE, tmp_path / 'parts', network=scaled, watch=watch)
    for ours, theirs in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with (
        np.load(tmp_path / 'parts' / CHECKPOINT) as mine,
        np.load(tmp_path / 'whole' / CHECKPOINT) as other,
    ):
        names = [name for name in mine.files if name[0] == 's' and name[1:].isdigit()]
        assert names
        for name in names:
            np.testing.assert_array_equal(mine[name], other[name])


def test_a_lock_is_waited_for_as_long_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    held = locked(tmp_path)
    held.__enter__()

    def wait() -> bool:
        asked.append(1)
        if len(asked) == 2:
            held.__exit__(None, None, None)
        return True

    monkeypatch.setattr('shivacmb.train.lock.POLL_S', 0.001)
    with locked(tmp_path, wait=wait):
        assert len(asked) == 2


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr('shivacmb.train.lock.fcntl.flock', none)
    with (
        pytest.raises(OutputError, match=r'cannot be locked \(No locks available\).*with --work'),
        locked(tmp_path),
    ):
        pass


def test_one_training_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with (
        locked(tmp_path / 'work'),
        pytest.raises(TemporaryError, match='another training works in <'),
        locked(tmp_path / 'work'),
    ):
        pass
    with locked(tmp_path / 'work'):
        pass
