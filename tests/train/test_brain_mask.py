"""Training of the built-in brain mask."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shivacmb.models.locate import find_bundle
from shivacmb.train import brain_mask, brain_zones
from shivacmb.train.brain_zones_judge import judge

if TYPE_CHECKING:
    from pathlib import Path


def test_judge_takes_a_network_without_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    # the scan is the mask itself, so that the network that returns its input is perfect
    monkeypatch.setattr(
        'shivacmb.train.brain_zones_judge.random_contrast',
        lambda labels, rng, kind, *, brain, **_: brain.astype(np.float32),
    )
    table = judge(lambda field: field[..., None], (96, 128, 128), 2.0, heads=1, voxel_mm=4.0)
    assert set(table['any contrast']) == {'dice', 'dice_least', 'centre_mm', 'centre_mm_most'}
    assert table['any contrast']['dice'] > 0.97


@pytest.mark.tensorflow
def test_loss_is_nought_for_the_truth_and_grows_with_error() -> None:
    pytest.importorskip('tensorflow')
    truth = np.zeros((1, 4, 4, 4, 1), np.float32)
    truth[:, :2] = 1
    perfect, half, wrong = (
        float(brain_mask.mask_loss(truth, guess)) for guess in (truth, truth * 0 + 0.5, 1 - truth)
    )
    assert perfect == pytest.approx(0, abs=1e-3)
    assert perfect < half < wrong


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_bundle_is_made_from_nothing_and_training_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('tensorflow')
    monkeypatch.setattr(brain_zones, 'SHAPE', (32, 32, 32))
    monkeypatch.setattr(brain_zones, 'NET_MM', 6.0)
    card = {**brain_mask.CARD, 'grid': {'shape': [32, 32, 32], 'voxel_mm': [6.0] * 3}}
    recipe = dataclasses.replace(brain_mask.MASK_RECIPE, card=card)
    work, command = tmp_path / 'brain-mask-work', ['-o', str(tmp_path / 'mask'), '--judge', '0']
    command += ['--workers', '0', '--threads', '1']
    brain_zones.train(work, steps=2, seed=20240, workers=0, recipe=recipe)
    assert brain_zones.main([*command, '--steps', '4'], recipe) == 0
    assert json.loads((work / 'progress.json').read_text())['step'] == 4
    bundle = find_bundle(tmp_path / 'mask')
    bundle.verify()
    assert (bundle.name, bundle.target) == ('brain-mask', 'brain')
    assert len(bundle.classes) == 1
    assert bundle.training['steps'] == 4
    assert 'soft Dice' in bundle.training['loss']
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 2.4e6


@pytest.mark.tensorflow
def test_the_shipped_network_is_of_this_form() -> None:
    pytest.importorskip('tensorflow')
    import keras

    from shivacmb.train.brain_zones_network import build_mask_network

    shipped = keras.models.load_model(find_bundle('brain-mask').path / 'fold-0.keras')
    built = build_mask_network(brain_zones.SHAPE)
    assert built.output_shape == (None, *brain_zones.SHAPE, 1)
    assert [w.shape for w in built.weights] == [w.shape for w in shipped.weights]
    with pytest.raises(ValueError, match=r'\(32, 64, 40\) must divide by 32'):
        build_mask_network((32, 64, 40))
