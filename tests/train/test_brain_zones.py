"""Training of the built-in zones."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shivacmb.exceptions import DataError, UsageError
from shivacmb.imaging.zones import Zone
from shivacmb.models.brain_atlas import load_atlas
from shivacmb.models.locate import find_bundle
from shivacmb.simulate.anatomy import Head, random_head
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.train import brain_zones
from shivacmb.train.brain_zones_judge import CONDITIONS, compare, compare_zones, judge
from shivacmb.train.brain_zones_network import ZONES, fold
from shivacmb.train.brain_zones_samples import LEFT, simulate_pairs, zone_map

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (48, 64, 64)


def test_pairs_are_scaled_reproducible_and_differ_in_contrast_only() -> None:
    one, two = simulate_pairs((1, 2), SHAPE, 4.0, contrasts=2)
    again = simulate_pairs((1, 2), SHAPE, 4.0, contrasts=2)[0]
    other = simulate_pairs((1, 3), SHAPE, 4.0, contrasts=1)[0]
    np.testing.assert_array_equal(one.image, again.image)
    for pair in (one, two, other):
        assert pair.image.shape == pair.zones.shape == SHAPE
        assert 0 <= pair.image.min() < pair.image.max() == 1
        assert pair.zones.max() < 2 * LEFT
        assert 300 < (pair.zones % LEFT > 0).sum() * 64 / 1000 < 3000
    assert not np.array_equal(one.image, two.image)
    assert not np.array_equal(one.zones, other.zones)


def test_left_stays_left_when_a_head_is_mirrored() -> None:
    lefts = []
    for index in range(6):
        pair = simulate_pairs((4, index), SHAPE, 4.0, contrasts=1)[0]
        x = np.indices(SHAPE)[0]
        brain = pair.zones % LEFT > 0
        lefts.append(
            x[brain & (pair.zones >= LEFT)].mean() < x[brain & (pair.zones < LEFT)].mean()
        )
    assert all(lefts)


def test_zone_map_merges_tissues_and_gives_narrow_sulci_to_the_tissue_beside() -> None:
    labels = np.full((24, 24, 24), Tissue.CORTEX, np.uint8)
    labels[12:] = Tissue.CEREBELLAR_WM
    labels[4] = Tissue.SULCAL_CSF  # 2 mm
    labels[8:11] = Tissue.SULCAL_CSF  # 6 mm
    labels[18] = Tissue.VENTRICLE
    labels[20:, :3] = Tissue.PALLIDUM
    labels[0] = Tissue.BONE
    brain = labels != Tissue.BONE
    zones = zone_map(Head(labels, np.diag([2.0, 2, 2, 1]), brain, brain))
    assert (zones[0] == Zone.BACKGROUND).all()
    assert (zones[4] == Zone.CORTEX).all()
    assert (zones[9] == Zone.FLUID).all()
    assert (zones[18] == Zone.FLUID).all()
    assert (zones[14] == Zone.CEREBELLUM).all()
    assert (zones[20:, :3] == Zone.DEEP_GREY).all()


def test_zones_of_a_head_have_plausible_volumes() -> None:
    head = random_head(np.random.default_rng(0), voxel_mm=4.0)
    zones = zone_map(head)
    np.testing.assert_array_equal(zones > 0, head.brain)
    millilitres = np.bincount(zones.ravel(), minlength=8) * 64 / 1000
    assert (millilitres[1:] > [300, 250, 3, 3, 10, 60, 10]).all()
    assert (millilitres[1:] < [1200, 900, 60, 40, 80, 300, 300]).all()


def test_brain_is_wanted_only_where_the_scan_has_seen_it() -> None:
    cut = 0
    for index in range(8):
        pair = simulate_pairs((9, index), SHAPE, 4.0, contrasts=1)[0]
        planes = (pair.image > 0).any(axis=(0, 1))
        cut += not planes.all()
        brain = pair.zones % LEFT > 0
        # a skull cut away a little too far takes the last plane of the brain with it
        assert brain[:, :, ~planes].sum() < 0.01 * brain.sum()
    assert cut > 0


def test_stream_is_in_order_and_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_zones, 'simulate_pairs', lambda *job, contrasts: [job[0]])
    assert list(brain_zones.stream(5, 2, 5, 0)) == [[(5, 2)], [(5, 3)], [(5, 4)]]


def test_compare_measures_overlap_and_distance() -> None:
    one, two = np.zeros((2, 10, 10, 10))
    one[2:4, 2:4, 2:4] = 1
    two[3:5, 2:4, 2:4] = 1
    dice, distance = compare(one, two, (3.0, 1.0, 1.0))
    assert dice == pytest.approx(0.5)
    assert distance == pytest.approx(3.0)


def test_zones_are_compared_without_and_with_their_sides() -> None:
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[:, 0], truth[:, 1] = Zone.CORTEX, Zone.BRAINSTEM
    left = np.zeros((4, 4, 4), bool)
    left[:2] = True
    zones = np.zeros((4, 4, 4), np.uint8)
    zones[:, 0] = 11  # all called left: half of the sides wrong
    zones[:2, 1] = 5
    result = compare_zones(zones, truth, left)
    assert result['cortex'] == 1
    assert result['brainstem'] == pytest.approx(2 / 3)
    assert np.isnan(result['thalamus'])
    assert result['side'] == 0.5
    assert result['lobar_recall'] == result['lobar_precision'] == 1
    assert result['infratentorial_recall'] == 1  # where the map shows tissue
    assert np.isnan(result['deep_recall'])


def test_the_capsules_between_the_nuclei_are_deep() -> None:
    labels = np.full((40, 40, 40), Tissue.CEREBRAL_WM, np.uint8)
    labels[14:17, 10:30, 10:30] = Tissue.PUTAMEN
    labels[20:23, 10:30, 10:30] = Tissue.THALAMUS  # 6 mm away
    brain = np.ones(labels.shape, bool)
    zones = zone_map(Head(labels, np.diag([2.0, 2, 2, 1]), brain, brain))
    assert (zones[17:20, 12:28, 12:28] == Zone.DEEP_GREY).all()
    assert (zones[20:23, 10:30, 10:30] == Zone.THALAMUS).all()
    assert (zones[:14] == Zone.WHITE_MATTER).all()
    assert (zones[23:] == Zone.WHITE_MATTER).all()


def test_judge_gives_a_perfect_network_full_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    # the scan is the mask itself, so that the network that returns its input is perfect
    monkeypatch.setattr(
        'shivacmb.train.brain_zones_judge.random_contrast',
        lambda labels, rng, kind, *, brain, **_: brain.astype(np.float32),
    )

    def network(field: np.ndarray) -> np.ndarray:
        maps = np.zeros((*field.shape, 9), np.float32)
        maps[..., 0], maps[..., 1] = 1 - field, field
        return maps

    table = judge(network, (96, 128, 128), 2.0, heads=1, voxel_mm=4.0)
    assert set(table) == set(CONDITIONS)
    for name in ('T2starw, 1 mm', 'any contrast'):
        assert table[name]['dice'] > 0.97
        assert table[name]['centre_mm'] < 1
        assert table[name]['brainstem'] == 0 < table[name]['cortex']


def test_fold_puts_the_voxels_of_a_block_side_by_side() -> None:
    array = np.arange(4 * 2 * 6).reshape(1, 4, 2, 6)
    folded = fold(array)
    assert folded.shape == (1, 2, 1, 3, 8)
    np.testing.assert_array_equal(folded[0, 1, 0, 2], array[0, 2:, :, 4:].ravel())


def _logits(target: np.ndarray, certainty: float) -> np.ndarray:
    """Folded logits that say the target."""
    zones = np.eye(ZONES, dtype=np.float32)[target % LEFT] * certainty
    side = np.where(target >= LEFT, certainty, -certainty).astype(np.float32)
    return np.concatenate([zones.reshape(*target.shape[:-1], -1), side], axis=-1)


@pytest.mark.tensorflow
def test_loss_is_nought_for_the_truth_and_grows_with_error() -> None:
    pytest.importorskip('tensorflow')
    truth = np.zeros((1, 4, 4, 4), np.uint8)
    truth[:, :2] = np.arange(1, 5)
    truth[:, :2, :2] += LEFT
    target = fold(truth)
    mirrored = fold(np.where(truth % LEFT > 0, truth ^ LEFT, truth))
    losses = [
        float(brain_zones.zone_loss(target, _logits(guess, certainty)))
        for guess, certainty in (
            (target, 30.0),
            (mirrored, 30.0),
            (target, 0.0),
            (fold(truth[:, ::-1]), 30.0),
        )
    ]
    # four zones of the eight do not occur: right where the network does not find them either
    assert losses[0] == pytest.approx(0, abs=1e-3)
    assert losses[0] < losses[2] < losses[3]
    assert losses[1] == pytest.approx(0.5 * 30.0 * 32 / 33, rel=1e-3)


@pytest.mark.tensorflow
def test_folded_and_unfolded_network_are_the_same_map() -> None:
    pytest.importorskip('tensorflow')
    import keras

    from shivacmb.train.brain_zones_network import build_zone_network, unfolded

    keras.utils.set_random_seed(0)
    trained = build_zone_network((32, 64, 32), folded=True)
    shipped = build_zone_network((32, 64, 32))
    shipped.set_weights(unfolded(trained.get_weights()))
    image = np.random.default_rng(0).random((1, 32, 64, 32, 1), np.float32)
    logits = trained.predict_on_batch(image)
    maps = shipped.predict_on_batch(image)
    assert maps.shape == (1, 32, 64, 32, ZONES + 1)
    chance = np.exp(logits[..., : 8 * ZONES].reshape(1, 16, 32, 16, 8, ZONES))
    chance /= chance.sum(-1, keepdims=True)
    for zone in range(ZONES):
        np.testing.assert_allclose(fold(maps[..., zone]), chance[..., zone], atol=1e-5)
    side = 1 / (1 + np.exp(-logits[..., 8 * ZONES :]))
    np.testing.assert_allclose(fold(maps[..., ZONES]), side, atol=1e-5)
    with pytest.raises(ValueError, match=r'\(32, 64, 40\) must divide by 32'):
        build_zone_network((32, 64, 40))


def _goes_on_in_the_arithmetic_of_another_machine(
    work: Path, recipe: brain_zones.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setattr(brain_zones, 'computes_bfloat16', lambda: True)
    there = dataclasses.replace(recipe, precision='mixed_bfloat16')
    model = brain_zones.train(work, steps=4, seed=20240, workers=0, recipe=there)
    saved = keras.models.load_model(
        work / 'checkpoint.keras', custom_objects={recipe.loss.__name__: recipe.loss}
    )
    assert {layer.compute_dtype for layer in saved.layers} == {'float32'}
    assert 'bfloat16' in {layer.compute_dtype for layer in model.layers}
    assert int(model.optimizer.iterations) == 4
    for own, kept in zip(model.variables, saved.variables, strict=True):
        np.testing.assert_array_equal(own, kept)
    moments = zip(model.optimizer.variables, saved.optimizer.variables, strict=True)
    assert all(np.array_equal(own, kept) for own, kept in moments)


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_bundle_is_made_from_nothing_and_training_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('tensorflow')
    monkeypatch.setattr(brain_zones, 'SHAPE', (32, 32, 32))
    monkeypatch.setattr(brain_zones, 'NET_MM', 6.0)
    card = {**brain_zones.CARD, 'grid': {'shape': [32, 32, 32], 'voxel_mm': [6.0] * 3}}
    # patches this small give NaN gradients in bfloat16 on some processors
    recipe = dataclasses.replace(brain_zones.ZONE_RECIPE, card=card, precision='float32')
    work = tmp_path / 'brain-zones-work'
    command = ['-o', str(tmp_path / 'zones'), '--judge', '0', '--workers', '0', '--threads', '1']
    command += ['--heads', '1']
    brain_zones.train(work, steps=2, seed=20240, workers=0, recipe=recipe)
    assert brain_zones.main([*command, '--steps', '4'], recipe) == 0
    progress = json.loads((work / 'progress.json').read_text())
    assert progress['step'] == 4
    rows = (work / 'loss.tsv').read_text().splitlines()
    assert [row.split('\t')[0] for row in rows] == ['2', '4']
    _goes_on_in_the_arithmetic_of_another_machine(work, recipe, monkeypatch)
    bundle = find_bundle(tmp_path / 'zones')
    bundle.verify()
    assert bundle.target == 'brain'
    assert bundle.training['precision'] == 'float32'
    assert bundle.training['steps'] == 4
    assert bundle.version == 'unreleased'
    with pytest.raises(UsageError, match=r'begun with other settings: heads \(1 before, 2 now\)'):
        brain_zones.main([*command, '--heads', '2', '--steps', '4'], recipe)
    assert 'never shown' in bundle.description
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 5e6
    atlas = bundle.architecture['atlas']
    assert len(load_atlas(bundle.path / atlas['file'], atlas['sha256']).layers) == 6


@pytest.mark.tensorflow
def test_the_shipped_network_is_of_this_form() -> None:
    pytest.importorskip('tensorflow')
    import keras

    from shivacmb.train.brain_zones_network import build_zone_network

    bundle = find_bundle('brain-zones')
    shipped = keras.models.load_model(bundle.path / 'fold-0.keras')
    built = build_zone_network(brain_zones.SHAPE)
    assert [w.shape for w in built.weights] == [w.shape for w in shipped.weights]
    assert [entry.name for entry in bundle.classes][2:4] == ['deep_grey', 'thalamus']


@pytest.mark.tensorflow
def test_a_loss_that_is_no_number_stops_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip('tensorflow')

    class Broken:
        optimizer = type('Optimizer', (), {'learning_rate': 0.0})()

        def compile(self, *_: object) -> None:
            """Take any loss."""

        def train_on_batch(self, *_: object) -> float:
            return float('nan')

    monkeypatch.setattr(brain_zones, 'new_network', lambda _: Broken())
    monkeypatch.setattr(brain_zones, 'SHAPE', (32, 32, 32))
    monkeypatch.setattr(brain_zones, 'NET_MM', 6.0)
    with pytest.raises(DataError, match=r'the loss became nan at step 1; <.*checkpoint\.keras>'):
        brain_zones.train(tmp_path, steps=4, seed=1, workers=0)

    class Late(Broken):
        def train_on_batch(self, *_: object) -> float:
            return 1.0

        def get_weights(self) -> list[np.ndarray]:
            return [np.array([1.0, np.nan])]

    monkeypatch.setattr(brain_zones, 'new_network', lambda _: Late())
    with pytest.raises(DataError, match='the weights are not finite any more after step 4; <'):
        brain_zones.train(tmp_path, steps=4, seed=1, workers=0)
    assert not list(tmp_path.glob('*.keras'))
