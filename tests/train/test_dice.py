"""The Dice loss against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('keras')
pytestmark = pytest.mark.tensorflow


def target(*maps: list[float], weight: list[float] | None = None) -> np.ndarray:
    rows = [*maps, weight or [1.0] * len(maps[0])]
    return np.array(rows, np.float32).T.reshape(1, -1, 1, 1, len(rows))


def guess(*maps: list[float]) -> np.ndarray:
    return np.array(maps, np.float32).T.reshape(1, -1, 1, 1, len(maps))


def test_dice_by_hand() -> None:
    from shivacmb.train.dice import dice_loss

    # 2 (1*0.8 + 1*0.4) / (2 + 0.8 + 0.4 + 0.2) = 2.4 / 3.4
    loss = float(dice_loss(target([1, 1, 0, 0]), guess([0.8, 0.4, 0.2, 0.0])))
    assert loss == pytest.approx(1 - 2.4 / 3.4, abs=1e-6)


def test_the_smoothing_makes_an_empty_scan_right_when_nothing_is_found() -> None:
    from shivacmb.train.dice import dice_loss

    assert float(dice_loss(target([0, 0, 0]), guess([0, 0, 0]))) == pytest.approx(0, abs=1e-6)
    # s / (1 + s) with s = 1e-6
    assert float(dice_loss(target([0, 0, 0]), guess([1, 0, 0]))) == pytest.approx(1, abs=1e-5)


def test_classes_are_averaged_and_ignored_voxels_do_not_count() -> None:
    from shivacmb.train.dice import dice_loss

    truth = target([1, 0, 0], [0, 1, 0], weight=[1, 1, 0])
    # first class perfect but for an ignored voxel, second missed
    loss = float(dice_loss(truth, guess([1, 0, 1], [0, 0, 0])))
    assert loss == pytest.approx(0.5, abs=1e-5)


def test_balanced_loss_of_one_class_is_the_loss_of_the_shipped_detector() -> None:
    from shivacmb.train.dice import balanced_loss
    from shivacmb.train.losses import lesion_loss

    rng = np.random.default_rng(0)
    truth = np.stack([rng.random((2, 4, 4, 4)) < 0.2, np.ones((2, 4, 4, 4))], -1).astype('f4')
    found = rng.random((2, 4, 4, 4, 1)).astype('f4')
    assert float(balanced_loss(truth, found)) == pytest.approx(float(lesion_loss(truth, found)))
