from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.train import loop
from shivacmb.train.loop import (
    Network,
    Recipe,
    learning_rate,
    new_model,
    safe_precision,
    train,
)
from shivacmb.train.losses import lesion_loss


class Dots:
    """Dark dots on grey; a step may be poisoned."""

    def __init__(self, poison: int | None = None) -> None:
        self.poison = poison
        self.drawn: list[int] = []

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        self.drawn.append(step)
        rng = np.random.default_rng(step)
        lesion = rng.random((2, 16, 16, 16)) < 0.01
        image = np.where(lesion, 0.1, 0.8).astype(np.float32)
        target = np.stack([lesion, np.ones_like(lesion)], axis=-1).astype(np.float32)
        if step == self.poison:
            target[:] = np.nan
        return image[..., None], target


def test_learning_rate_rises_then_falls() -> None:
    recipe = Recipe(steps=100, rate=1.0, warm=10)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[9] == max(rates)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.02


@pytest.mark.tensorflow
def test_loss_is_least_for_the_truth_and_ignores_weight_0() -> None:
    rng = np.random.default_rng(0)
    lesion = (rng.random((2, 8, 8, 8)) < 0.05).astype(np.float32)
    target = np.stack([lesion, np.ones_like(lesion)], axis=-1)
    right = float(lesion_loss(target, lesion[..., None]))
    wrong = float(lesion_loss(target, 1 - lesion[..., None]))
    empty = float(lesion_loss(target, np.zeros_like(lesion)[..., None]))
    assert right < 0.01 < empty < wrong
    off = target.copy()
    off[0, ..., 1] = 0
    changed = lesion[..., None].copy()
    changed[0] = 1 - changed[0]
    assert float(lesion_loss(off, changed)) == pytest.approx(
        float(lesion_loss(off, lesion[..., None])), abs=1e-6
    )


@pytest.mark.tensorflow
def test_the_output_starts_near_zero() -> None:
    model = new_model(16, 0)
    start = model.predict_on_batch(np.random.default_rng(0).random((1, 16, 16, 16, 1)))
    assert float(np.median(start)) < 0.1


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path: Path) -> None:
    recipe = Recipe(steps=6, warm=2, save_every=3, log_every=1, size=16, precision='float32')
    whole = train(Dots(), recipe, tmp_path / 'whole')
    with pytest.raises(DataError, match=r'The loss became nan at step 5; continue from <'):
        train(Dots(poison=4), recipe, tmp_path / 'cut')
    source = Dots()
    resumed = train(source, recipe, tmp_path / 'cut')
    assert min(source.drawn) == 3
    for ours, theirs in zip(resumed, whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    curves = [
        (tmp_path / name / 'curve.tsv').read_text().splitlines() for name in ('whole', 'cut')
    ]
    assert [row.split('\t')[0] for row in curves[1]] == ['step', '1', '2', '3', '4', '5', '6']
    assert len(curves[0]) == 7
    # a finished run is not trained again
    again = train(Dots(poison=0), recipe, tmp_path / 'whole')
    np.testing.assert_array_equal(again[0], whole[0])


@pytest.mark.tensorflow
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / 'checkpoint.npz', step=1, w000=np.zeros(3), o000=np.zeros(2))
    with pytest.raises(DataError, match='belongs to another network'):
        train(Dots(), Recipe(steps=2, size=16), tmp_path)


@pytest.mark.parametrize(
    ('size', 'expected'), [(16, 'float32'), (24, 'mixed_bfloat16'), (48, 'mixed_bfloat16')]
)
def test_small_patches_are_trained_in_float32(size: int, expected: str) -> None:
    assert safe_precision('mixed_bfloat16', size, bfloat16=True) == expected


def test_bfloat16_is_left_where_it_is_slow() -> None:
    assert safe_precision('mixed_bfloat16', 48, bfloat16=False) == 'float32'
    assert safe_precision('mixed_float16', 48, bfloat16=False) == 'mixed_float16'


@pytest.mark.parametrize(('fast', 'used'), [(True, 'mixed_bfloat16'), (False, 'float32')])
def test_the_loop_asks_what_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fast: bool, used: str
) -> None:
    def build(precision: str) -> Any:
        raise RuntimeError(precision)

    monkeypatch.setattr(loop, 'computes_bfloat16', lambda: fast)
    network = Network(build, loss=len, optimizer=list, rate=float)
    with pytest.raises(RuntimeError, match=f'^{used}$'):
        train(Dots(), Recipe(steps=2, size=32), tmp_path, network=network)
