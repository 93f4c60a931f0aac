"""Making the atlas of the zones, with networks whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shivacmb.imaging.zones import Zone
from shivacmb.models.brain_atlas import ZONES, place_zones
from shivacmb.train import brain_atlas
from shivacmb.train.brain_atlas import make_atlas, read_sample, simulate_samples, train_classifier
from shivacmb.train.brain_zones_samples import LEFT

GRID, MM = (48, 64, 64), 4.0


def perfect(path: Path) -> None:
    """Give a stored sample the fields of a network that is right but for the deep zones."""
    with np.load(path) as stored:
        content = dict(stored)
    fields = np.eye(ZONES, dtype=np.float16)[content['zones'] % LEFT]
    for zone in (Zone.DEEP_GREY, Zone.THALAMUS):
        fields[..., Zone.WHITE_MATTER] += fields[..., zone]
        fields[..., zone] = 0
    left = (content['zones'] >= LEFT)[..., None]
    np.savez(path, **{**content, 'fields': np.concatenate([fields, left], -1)})


@pytest.fixture(scope='module')
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp('samples')
    calls = []

    def network(field: np.ndarray) -> np.ndarray:
        calls.append(field.shape)
        return np.zeros((*field.shape, ZONES + 1))

    paths = simulate_samples(network, GRID, MM, 3, 7, folder)
    assert calls == [GRID] * 6
    assert paths == simulate_samples(network, GRID, MM, 3, 7, folder)
    assert len(calls) == 6  # those that are there are kept
    for path in paths:
        perfect(path)
    return paths


def test_samples_know_where_in_the_template_they_lie(samples: list[Path]) -> None:
    for path in samples:
        sample = read_sample(path)
        left = np.repeat(np.repeat(np.repeat(sample.places[..., 0] < 0, 2, 0), 2, 1), 2, 2)
        brain = sample.zones % LEFT > 0
        assert (left == (sample.zones >= LEFT))[brain].mean() > 0.95


def test_atlas_of_simulated_heads_finds_the_zones_that_the_network_leaves_out(
    samples: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brain_atlas, '_BATCH', 512)
    atlas = make_atlas(samples[:4], MM, seed=1, epochs=8)
    middle = len(atlas.prior) // 2
    np.testing.assert_allclose(atlas.prior, atlas.prior[::-1], atol=1e-5)
    assert atlas.prior[middle, ..., Zone.BRAINSTEM].max() > 0.8
    sample = read_sample(samples[4])
    fields = place_zones(sample.fields, sample.image, MM, atlas)
    zones, brain = sample.zones % LEFT, sample.zones % LEFT > 0
    best = fields[..., 1:-1].argmax(-1) + 1
    deep = np.isin(best, (Zone.DEEP_GREY, Zone.THALAMUS)) & brain
    wanted = np.isin(zones, (Zone.DEEP_GREY, Zone.THALAMUS))
    assert 2 * (deep & wanted).sum() / (deep.sum() + wanted.sum()) > 0.5
    sure = brain & (zones == Zone.CEREBELLUM)
    assert (best[sure] == Zone.CEREBELLUM).mean() > 0.8


def test_classifier_learns_and_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_atlas, '_BATCH', 200)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((4000, 5)).astype(np.float32)
    wanted = (inputs[:, 0] * inputs[:, 1] > 0).astype(np.intp)
    counts = np.ones(len(wanted))
    start = np.zeros((len(wanted), 7), np.float32)
    start[:, 3] = 2  # a wrong belief to overcome
    layers, again = (
        train_classifier(inputs, start, wanted, counts, seed=1, epochs=60, hidden=(16,))
        for _ in range(2)
    )
    for one, two in zip(layers, again, strict=True):
        np.testing.assert_array_equal(one, two)
    hidden = np.maximum(inputs @ layers[0] + layers[1], 0)
    found = (start + hidden @ layers[2] + layers[3]).argmax(1)
    assert (found == wanted).mean() > 0.9


def test_slopes_are_those_of_the_weighted_cross_entropy() -> None:
    rng = np.random.default_rng(2)
    layers = [rng.standard_normal(size) for size in ((3, 4), (4,), (4, 7), (7,))]
    inputs, wanted = rng.standard_normal((9, 3)), rng.integers(0, 7, 9)
    counts, start = rng.uniform(1, 3, 9), rng.standard_normal((9, 7))

    def loss() -> float:
        out = start + np.maximum(inputs @ layers[0] + layers[1], 0) @ layers[2] + layers[3]
        logs = out - np.log(np.exp(out).sum(1, keepdims=True))
        return float(-(counts * logs[np.arange(9), wanted]).sum() / counts.sum())

    slopes = brain_atlas._slopes(layers, inputs, start, wanted, counts)
    for layer, slope in zip(layers, slopes, strict=True):
        for index in np.ndindex(layer.shape):
            before = layer[index]
            layer[index] = before + 1e-5
            more = loss()
            layer[index] = before - 1e-5
            less = loss()
            layer[index] = before
            assert slope[index] == pytest.approx((more - less) / 2e-5, abs=1e-6)
