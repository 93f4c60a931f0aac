"""Training of the built-in brain mask."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shivacmb.models.locate import find_bundle
from shivacmb.train import brain_mask
from shivacmb.train.brain_mask_judge import CONDITIONS, compare, judge
from shivacmb.train.brain_mask_samples import simulate_pairs

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (48, 64, 64)


def test_pairs_are_scaled_reproducible_and_differ_in_contrast_only() -> None:
    one, two = simulate_pairs((1, 2), SHAPE, 4.0)
    again = simulate_pairs((1, 2), SHAPE, 4.0)[0]
    other = simulate_pairs((1, 3), SHAPE, 4.0, contrasts=1)[0]
    np.testing.assert_array_equal(one.image, again.image)
    for pair in (one, two, other):
        assert pair.image.shape == pair.brain.shape == SHAPE
        assert 0 <= pair.image.min() < pair.image.max() == 1
        assert set(np.unique(pair.brain)) == {0, 1}
        assert 300 < pair.brain.sum() * 64 / 1000 < 2600
    assert not np.array_equal(one.image, two.image)
    assert not np.array_equal(one.brain, other.brain)


def test_brain_is_wanted_only_where_the_scan_has_seen_it() -> None:
    cut = 0
    for index in range(8):
        pair = simulate_pairs((9, index), SHAPE, 4.0, contrasts=1)[0]
        planes = (pair.image > 0).any(axis=(0, 1))
        cut += not planes.all()
        assert not pair.brain[:, :, ~planes].any()
    assert cut > 0


def test_stream_is_in_order_and_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_mask, 'simulate_pairs', lambda *job, contrasts: [job[0]])
    assert list(brain_mask.stream(5, 2, 5, 0)) == [[(5, 2)], [(5, 3)], [(5, 4)]]


def test_compare_measures_overlap_and_distance() -> None:
    one, two = np.zeros((2, 10, 10, 10))
    one[2:4, 2:4, 2:4] = 1
    two[3:5, 2:4, 2:4] = 1
    dice, distance = compare(one, two, (3.0, 1.0, 1.0))
    assert dice == pytest.approx(0.5)
    assert distance == pytest.approx(3.0)


def test_judge_gives_a_perfect_network_full_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    # the scan is the mask itself, so that the network that returns its input is perfect
    monkeypatch.setattr(
        'shivacmb.train.brain_mask_judge.random_contrast',
        lambda labels, rng, kind, *, brain, **_: brain.astype(np.float32),
    )
    table = judge(lambda field: field, (96, 128, 128), 2.0, heads=1, voxel_mm=4.0)
    assert set(table) == set(CONDITIONS)
    for name in ('T2starw, 1 mm', 'any contrast'):
        assert table[name]['dice'] > 0.97
        assert table[name]['centre_mm'] < 1


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
def test_a_bundle_is_made_from_nothing_and_training_goes_on_after_a_stop(tmp_path: Path) -> None:
    pytest.importorskip('tensorflow')
    command = ['-o', str(tmp_path / 'mask'), '--judge', '0', '--workers', '0', '--threads', '1']
    brain_mask.train(tmp_path / 'brain-mask-work', steps=2, seed=20240, workers=0)
    assert brain_mask.main([*command, '--steps', '4']) == 0
    progress = json.loads((tmp_path / 'brain-mask-work' / 'progress.json').read_text())
    assert progress['step'] == 4
    rows = (tmp_path / 'brain-mask-work' / 'loss.tsv').read_text().splitlines()
    assert [row.split('\t')[0] for row in rows] == ['2', '4']
    bundle = find_bundle(tmp_path / 'mask')
    bundle.verify()
    assert bundle.target == 'brain'
    assert bundle.training['steps'] == 4
    assert 'never shown' in bundle.description
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 2.4e6


@pytest.mark.tensorflow
def test_network_keeps_its_grid_and_refuses_one_that_does_not_divide() -> None:
    pytest.importorskip('tensorflow')
    from shivacmb.train.brain_mask_network import build_brain_network

    model = build_brain_network((32, 64, 32))
    assert model.input_shape == model.output_shape == (None, 32, 64, 32, 1)
    with pytest.raises(ValueError, match=r'\(32, 64, 40\) must divide by 32'):
        build_brain_network((32, 64, 40))
