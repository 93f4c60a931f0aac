from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from shivacmb.simulate import dataset_scan
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.dataset import BRAIN, LESION, MIMIC, UNSURE, cut_box, make_example
from shivacmb.simulate.dataset_head import carve_sulci, lesion_zones, scene_masks
from shivacmb.simulate.dataset_scan import (
    Acquisition,
    Scan,
    draw_acquisition,
    isotropic_truth,
    shares_as_dark,
    simulate_scan,
)
from shivacmb.simulate.distances import depth_within
from shivacmb.simulate.mimics import gaussian_field

QUIET = Acquisition(voxel_mm=(0.9, 0.9, 2.0), snr=200.0, mimics=0.0, lesions=4)


@pytest.fixture(scope='module')
def ball() -> tuple[np.ndarray, np.ndarray]:
    grid = np.indices((64, 64, 64)) - 32
    radius = np.sqrt((grid**2).sum(axis=0))
    labels = np.zeros((64, 64, 64), np.uint8)
    labels[radius < 25] = Tissue.SULCAL_CSF
    labels[radius < 23] = Tissue.CORTEX
    labels[radius < 18] = Tissue.CEREBRAL_WM
    return labels, radius < 24


def scan_ball(ball: tuple[np.ndarray, np.ndarray], acquisition: Acquisition, seed: int) -> Scan:
    labels, brain = ball
    signal = brain.astype(np.float32)
    return simulate_scan(
        np.random.default_rng(seed), signal, scene_masks(labels, brain), lesion_zones(labels),
        acquisition, positions=[(32, 32, 32, 'white_matter'), (40, 32, 26, 'white_matter')],
        radii=[2.5, 2.0], least_chi=1.5,
    )  # fmt: skip


def test_labels_lie_on_the_darkened_voxels(ball: tuple[np.ndarray, np.ndarray]) -> None:
    scan = scan_ball(ball, QUIET, 0)
    image, labels, _, brain = isotropic_truth(scan, QUIET.snr)
    for number, lesion in enumerate(scan.lesions, start=1):
        where = np.argwhere(labels == number)
        assert np.linalg.norm(where.mean(axis=0) - lesion.centre) < 1.5
        assert image[labels == number].mean() < 0.75 * np.median(image[brain])


def test_what_cannot_be_told_from_a_lesion_is_neither_that_nor_background(
    ball: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    lesion = scan_ball(ball, QUIET, 0).lesions[0]
    calcium = replace(lesion, chi=-lesion.chi, zone='calcification_brain')
    monkeypatch.setattr(dataset_scan, 'draw_calcifications', lambda *_: [calcium])
    labels, brain = ball
    scan = simulate_scan(
        np.random.default_rng(0), brain.astype(np.float32), scene_masks(labels, brain),
        lesion_zones(labels), QUIET, positions=[],
    )  # fmt: skip
    image, truth, unsure, _ = isotropic_truth(scan, QUIET.snr)
    assert not truth.any()
    # its middle too, where it leaves no signal to fall
    assert unsure[tuple(np.rint(calcium.centre).astype(int))]
    around = ndimage.binary_dilation(unsure, iterations=3) & ~unsure
    assert image[unsure].mean() < 0.75
    assert image[around].min() > 0.9
    example = make_example(scan, QUIET, (64, 64, 64))
    assert (example.flags & (UNSURE | LESION) == UNSURE).sum() == unsure.sum()


def test_a_scan_places_the_brain_in_its_field_of_view(
    ball: tuple[np.ndarray, np.ndarray],
) -> None:
    scan = scan_ball(ball, replace(QUIET, tilt=(0.2, 0.1, 0.1)), 1)
    wanted = float(ball[1].sum())
    assert scan.brain.sum() * np.prod(scan.voxel_mm) == pytest.approx(wanted, rel=0.03)
    middle = np.argwhere(scan.brain).mean(axis=0)
    position = scan.affine[:3, :3] @ middle + scan.affine[:3, 3]
    np.testing.assert_allclose(position, 0, atol=0.6)


def test_the_same_seed_gives_the_same_bytes(ball: tuple[np.ndarray, np.ndarray]) -> None:
    acquisition = replace(QUIET, mimics=1.0, kspace=0.8, ghost=0.03, strip=True)
    one, two = (scan_ball(ball, acquisition, 5).image for _ in range(2))
    other = scan_ball(ball, acquisition, 6).image
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_a_stripped_scan_is_empty_outside(ball: tuple[np.ndarray, np.ndarray]) -> None:
    scan = scan_ball(ball, replace(QUIET, strip=True, snr=15.0), 2)
    assert (scan.image[0] == 0).all()
    assert (scan_ball(ball, replace(QUIET, snr=15.0), 2).image[0] > 0).all()


def test_noise_follows_the_asked_ratio(ball: tuple[np.ndarray, np.ndarray]) -> None:
    scan = scan_ball(ball, replace(QUIET, snr=20.0, voxel_mm=(1.0, 1.0, 1.0)), 3)
    deep = scan.clean > 0.999
    assert scan.image[deep].std() == pytest.approx(1 / 20, rel=0.3)
    air = scan.image[:4]
    # Rayleigh: mean of the magnitude of complex noise
    assert air.mean() == pytest.approx(np.sqrt(np.pi / 2) / 20, rel=0.03)


def test_invisible_lesions_are_neither_lesion_nor_background(
    ball: tuple[np.ndarray, np.ndarray],
) -> None:
    scan = scan_ball(ball, QUIET, 0)
    _, labels, unsure, _ = isotropic_truth(scan, snr=1.0)
    assert not labels.any()
    assert unsure.any()


def test_share_of_the_surroundings_as_dark_as_a_lesion() -> None:
    image = np.full((15, 15, 15), 0.8, np.float32)
    labels = np.zeros(image.shape, np.uint16)
    labels[7, 7, 7] = 3
    image[7, 7, 7] = 0.2
    everywhere = np.ones(image.shape, bool)
    assert shares_as_dark(image, labels, everywhere) == {3: 0.0}
    squares = ((np.indices(image.shape) - 7) ** 2).sum(axis=0)
    ring = (squares >= 3) & (squares <= 16)
    image[:7] = 0.1
    dark = int(ring[:7].sum())
    assert shares_as_dark(image, labels, everywhere)[3] == pytest.approx(dark / ring.sum())
    # as dark counts, not only darker
    image[:7] = 0.2
    assert shares_as_dark(image, labels, everywhere)[3] == pytest.approx(dark / ring.sum())
    # neither what is no brain nor another lesion counts, and nothing at all hides nothing
    assert shares_as_dark(image, labels, image > 0.5) == {3: 0.0}
    assert shares_as_dark(image, labels, np.zeros_like(everywhere)) == {3: 0.0}
    labels[:7] = 1
    assert shares_as_dark(image, labels, everywhere)[3] == 0.0


def test_a_lesion_among_surroundings_as_dark_is_neither_lesion_nor_background(
    ball: tuple[np.ndarray, np.ndarray],
) -> None:
    scan = scan_ball(ball, QUIET, 0)
    _, before, _, _ = isotropic_truth(scan, QUIET.snr)
    assert set(np.unique(before)) == {0, 1, 2}
    void = ndimage.binary_dilation(before == 1, iterations=5)
    assert not void[before == 2].any()
    points = np.stack(np.indices(scan.image.shape), axis=-1) * scan.voxel_mm
    nearest = [np.clip(np.rint(points[..., n]), 0, size - 1).astype(int) for n, size in
               enumerate(void.shape)]  # fmt: skip
    image = np.where(void[tuple(nearest)], 0, scan.image)
    _, labels, unsure, _ = isotropic_truth(replace(scan, image=image), QUIET.snr)
    assert not (labels == 1).any()
    assert unsure[before == 1].all()
    np.testing.assert_array_equal(labels == 2, before == 2)


def test_an_example_is_scaled_cropped_and_flagged(ball: tuple[np.ndarray, np.ndarray]) -> None:
    acquisition = replace(QUIET, mimics=1.0)
    scan = scan_ball(ball, acquisition, 4)
    example = make_example(scan, acquisition, (48, 52, 56))
    assert example.image.shape == example.flags.shape == (48, 52, 56)
    brain = (example.flags & BRAIN) > 0
    np.testing.assert_allclose(
        np.argwhere(brain).mean(axis=0), np.array((48, 52, 56)) // 2, atol=0.6
    )
    assert example.image.max() == 255
    assert ((example.flags & MIMIC) > 0).any()
    np.testing.assert_array_equal((example.flags & LESION) > 0, example.labels > 0)
    for row in example.lesions:
        if row['visible']:
            assert (example.labels == row['number']).any()


def test_cut_box_keeps_each_voxel_at_its_place() -> None:
    array = np.arange(5 * 6 * 7).reshape(5, 6, 7) + 1
    box = cut_box(array, np.array([2, 3, 3]), (9, 4, 7))
    np.testing.assert_array_equal(box[2:7], array[:, 1:5])
    assert not box[:2].any()
    assert not box[7:].any()


def test_sulci_are_cut_into_cortex_only(ball: tuple[np.ndarray, np.ndarray]) -> None:
    labels, brain = ball
    cut = carve_sulci(np.random.default_rng(8), labels, brain)
    new = (cut == Tissue.SULCAL_CSF) & (labels != Tissue.SULCAL_CSF)
    assert new.any()
    depth = np.sqrt(((np.indices(labels.shape) - 32) ** 2).sum(axis=0))
    assert depth[new].min() > 3
    np.testing.assert_array_equal(cut[~brain], labels[~brain])


def test_sulci_are_drawn_in_order_and_carved_by_threads_to_the_same(
    ball: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, brain = ball
    rng, again = np.random.default_rng(8), np.random.default_rng(8)
    cut = carve_sulci(rng, labels, brain)
    assert again.random() >= 0.1  # as often as this nothing is cut
    sheet = gaussian_field(again, labels.shape, again.uniform(4.5, 8.0))
    width = again.uniform(0.04, 0.22) * np.exp(0.5 * gaussian_field(again, labels.shape, 12.0))
    reach = again.uniform(6.0, 16.0) * np.exp(0.3 * gaussian_field(again, labels.shape, 15.0))
    assert rng.random() == again.random()
    grey = np.isin(labels, (Tissue.CORTEX, Tissue.CEREBELLAR_GM))
    white = np.isin(labels, (Tissue.CEREBRAL_WM, Tissue.CEREBELLAR_WM))
    shallow = depth_within(brain)
    fold = (np.abs(sheet) < width) & (shallow < reach)
    fold &= grey | (white & (shallow < 0.7 * reach))
    assert fold.any()
    np.testing.assert_array_equal(cut[fold], Tissue.SULCAL_CSF)
    np.testing.assert_array_equal(
        (cut == Tissue.SULCAL_CSF) & ~fold, (labels == Tissue.SULCAL_CSF) & ~fold
    )


def test_sulci_are_carved_to_the_depth_below_the_surface_of_the_brain() -> None:
    brain = np.zeros((12, 9, 10), bool)
    brain[0:7, 2:8, 3:] = True
    brain[4, 5, 6] = False
    whole = ndimage.distance_transform_edt(brain)
    np.testing.assert_array_equal(depth_within(brain), whole)
    assert not depth_within(np.zeros((3, 4, 5), bool)).any()


def test_protocols_stay_in_range() -> None:
    rng = np.random.default_rng(9)
    for _ in range(200):
        acquisition = draw_acquisition(rng)
        assert max(acquisition.voxel_mm) <= 5
        assert min(acquisition.voxel_mm) >= 0.65
        assert np.linalg.norm(acquisition.protocol.b0) == pytest.approx(1)
        assert acquisition.voxel_mm[acquisition.slice_axis] == max(acquisition.voxel_mm)
