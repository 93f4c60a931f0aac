"""Contrasts: each step does what its name says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from shivacmb.simulate.anatomy import Head, random_head
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.contrast import random_contrast, tissue_image, tissue_means
from shivacmb.simulate.contrast_acquire import acquire, cover, receive, strip_skull


@pytest.fixture(scope='module')
def head() -> Head:
    return random_head(np.random.default_rng(8), voxel_mm=3.0)


@pytest.mark.parametrize('kind', ['T2starw', 'swi', 'any'])
def test_images_are_finite_positive_and_reproducible(head: Head, kind: str) -> None:
    one, two = (
        random_contrast(head.labels, np.random.default_rng(4), kind, voxel_mm=3.0)
        for _ in range(2)
    )
    assert one.dtype == np.float32
    assert one.shape == head.labels.shape
    assert np.isfinite(one).all()
    assert one.min() >= 0
    np.testing.assert_array_equal(one, two)


def test_t2star_order_of_tissues() -> None:
    rng = np.random.default_rng(0)
    means = np.array([tissue_means(rng, 'T2starw') for _ in range(200)])
    assert (means[:, Tissue.CEREBRAL_WM] == 1).all()
    assert (means[:, [Tissue.AIR, Tissue.CAVITY]] == 0).all()
    assert means[:, Tissue.BONE].max() < 0.3
    assert (means[:, Tissue.PALLIDUM] < 1).all()
    swi = np.array([tissue_means(rng, 'swi') for _ in range(200)])
    assert swi[:, Tissue.PALLIDUM].mean() < means[:, Tissue.PALLIDUM].mean()


def test_any_contrast_reverses_grey_and_white() -> None:
    rng = np.random.default_rng(0)
    means = np.array([tissue_means(rng, 'any') for _ in range(200)])
    brighter = (means[:, Tissue.CORTEX] > means[:, Tissue.CEREBRAL_WM]).mean()
    assert 0.3 < brighter < 0.7
    assert (means[:, Tissue.AIR] == 0).all()


def test_tissue_image_keeps_tissue_means(head: Head) -> None:
    image = tissue_image(head.labels, np.random.default_rng(2), 'T2starw', voxel_mm=3.0)
    means = tissue_means(np.random.default_rng(2), 'T2starw')
    white = head.labels == Tissue.CEREBRAL_WM
    assert np.median(image[white]) == pytest.approx(means[Tissue.CEREBRAL_WM], rel=0.05)
    assert image[head.labels == Tissue.AIR].mean() < 0.05


def test_slices_average_what_they_cover() -> None:
    ramp = np.zeros((2, 2, 41), np.float32)
    ramp[:] = np.arange(41)
    out = acquire(ramp, np.random.default_rng(0), voxel_mm=(1, 1, 1), slice_mm=5.0)
    # box averages of a ramp, joined linearly, are the ramp again; the cut end slices apart
    np.testing.assert_allclose(out[0, 0, 8:33], np.arange(8, 33), atol=1e-4)
    spike = np.zeros((1, 1, 41), np.float32)
    spike[0, 0, 20] = 1
    out = acquire(spike, np.random.default_rng(0), voxel_mm=(1, 1, 1), slice_mm=5.0)
    assert 0.15 < out.max() < 0.25
    assert out.sum() == pytest.approx(1, abs=0.05)


def test_thin_slices_and_no_noise_change_nothing() -> None:
    image = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    out = acquire(image, np.random.default_rng(1), voxel_mm=(2, 2, 2), slice_mm=1.0)
    np.testing.assert_array_equal(out, image)


def test_noise_is_rician() -> None:
    rng = np.random.default_rng(0)
    none = np.zeros((40, 40, 40), np.float32)
    air = acquire(none, rng, voxel_mm=(1, 1, 1), slice_mm=1, noise=0.1)
    # Rayleigh: mean sigma sqrt(pi/2)
    assert air.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.01)
    tissue = acquire(none + 1, rng, voxel_mm=(1, 1, 1), slice_mm=1, noise=0.1)
    assert tissue.std() == pytest.approx(0.1, rel=0.02)


def test_signal_is_lost_next_to_cavities_only() -> None:
    labels = np.full((60, 60, 60), Tissue.CEREBRAL_WM, np.uint8)
    labels[:20, 20:40, 20:40] = Tissue.CAVITY
    ones = np.ones(labels.shape, np.float32)
    with_cavity = receive(ones, labels, np.random.default_rng(3), voxel_mm=(1, 1, 1))
    without = receive(ones, np.full_like(labels, 2), np.random.default_rng(3), voxel_mm=(1, 1, 1))
    assert (with_cavity / without)[22, 30, 30] < 0.9
    assert (with_cavity / without)[58, 30, 30] == pytest.approx(1, abs=0.01)


def test_coverage_cuts_whole_planes() -> None:
    image = np.ones((20, 20, 20), np.float32)
    whole = 0
    for seed in range(20):
        seen = cover(image, np.random.default_rng(seed)) > 0
        sides = [seen.any(axis=axes).sum() for axes in ((1, 2), (0, 2), (0, 1))]
        assert seen.sum() == np.prod(sides)
        assert min(sides) >= 10
        whole += seen.all()
    assert 0 < whole < 20


def test_stripping_cuts_sharply_near_the_brain(head: Head) -> None:
    image = np.ones(head.labels.shape, np.float32)
    out = strip_skull(
        image, head.labels, np.random.default_rng(0), voxel_mm=(3, 3, 3), brain=head.brain
    )
    assert set(np.unique(out)) == {0.0, 1.0}
    dice = 2 * (out[head.brain] > 0).sum() / ((out > 0).sum() + head.brain.sum())
    assert dice > 0.9
