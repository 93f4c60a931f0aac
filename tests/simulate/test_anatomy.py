"""Random heads: the truth behind everything simulated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from shivacmb.simulate.anatomy import Head, random_head
from shivacmb.simulate.anatomy_atlas import _inside, _signed_distance
from shivacmb.simulate.anatomy_labels import LABEL_NAMES, Tissue
from shivacmb.simulate.anatomy_warp import WarpRange, expand, random_affine, smooth_noise

STILL = WarpRange(
    rotation_deg=0.0, size=0.0, shear=0.0, shift_mm=0.0, warp_mm=(), ventricle_mm=(0.0, 0.0)
)


@pytest.fixture(scope='module')
def head() -> Head:
    return random_head(np.random.default_rng(5), voxel_mm=2.0)


def volume_ml(mask: np.ndarray, voxel_mm: float) -> float:
    return float(mask.sum()) * voxel_mm**3 / 1000


def test_the_same_seed_gives_the_same_head_and_another_seed_another() -> None:
    one, two, three = (
        random_head(np.random.default_rng(seed), voxel_mm=4.0).labels for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != three).mean() > 0.05


def test_a_head_has_every_tissue_and_a_name_for_it(head: Head) -> None:
    assert head.labels.dtype == np.uint8
    assert set(np.unique(head.labels)) == {tissue.value for tissue in Tissue}
    assert head.names == LABEL_NAMES
    assert head.names[2] == 'cerebral_wm'


def test_brain_tissue_lies_inside_the_mask_and_nothing_else_does(head: Head) -> None:
    inside = set(np.unique(head.labels[head.brain]))
    # the sinus runs in the dura and the cord ends at the mask: neither enters it
    assert inside <= set(range(Tissue.CORTEX, Tissue.VENTRICLE + 1))
    outside = set(np.unique(head.labels[~head.brain]))
    assert not outside & (set(range(1, Tissue.VENTRICLE + 1)) - {Tissue.SULCAL_CSF})


def test_volumes_are_those_of_people() -> None:
    heads = [random_head(np.random.default_rng(seed), voxel_mm=4.0) for seed in range(8)]
    brains = [volume_ml(head.brain, 4.0) for head in heads]
    assert min(brains) > 900
    assert max(brains) < 2300
    assert np.std(brains) > 60
    for head in heads:
        little = np.isin(head.labels, (Tissue.CEREBELLAR_GM, Tissue.CEREBELLAR_WM))
        assert 0.06 < little.sum() / head.brain.sum() < 0.14
        stem = (head.labels == Tissue.BRAINSTEM).sum() / head.brain.sum()
        assert 0.008 < stem < 0.035


def test_brain_is_wrapped_in_fluid_then_bone_then_scalp(head: Head) -> None:
    shells = ndimage.distance_transform_edt(~head.brain, sampling=2.0)
    _, _, top = np.argwhere(head.brain).mean(axis=0)
    upper = np.zeros(head.brain.shape, bool)
    upper[:, :, int(top) :] = True
    assert set(np.unique(head.labels[upper & (shells > 0) & (shells <= 2)])) <= {
        Tissue.SULCAL_CSF,
        Tissue.VENOUS_SINUS,
        Tissue.BONE,
        Tissue.MARROW,
    }
    depth = {
        tissue: shells[upper & (head.labels == tissue)].mean()
        for tissue in (Tissue.BONE, Tissue.SKIN)
    }
    assert 1.0 < depth[Tissue.BONE] < depth[Tissue.SKIN] < 40.0


def test_ventricles_follow_their_range() -> None:
    volumes = []
    for width in (-1.0, 0.0, 5.0):
        spread = WarpRange(warp_mm=(), ventricle_mm=(width, width))
        head = random_head(np.random.default_rng(3), voxel_mm=3.0, spread=spread)
        volumes.append(volume_ml(head.labels == Tissue.VENTRICLE, 3.0))
    assert volumes[0] < volumes[1] < volumes[2] / 1.5
    assert 5 < volumes[1] < 60


def test_without_spread_the_head_is_the_template_and_symmetric() -> None:
    from nilearn import datasets

    # an even number of voxels: no plane lies on the midline
    head = random_head(np.random.default_rng(0), shape=(96, 116, 110), voxel_mm=2.0, spread=STILL)
    mask = datasets.load_mni152_brain_mask(resolution=2)
    # the mean head is smaller than the template by exp(-0.04) along each axis
    expected = float(np.asarray(mask.dataobj).sum()) * 8 / 1000 * np.exp(-0.12)
    assert volume_ml(head.brain, 2.0) == pytest.approx(expected, rel=0.03)
    assert volume_ml(head.brain & head.left, 2.0) == pytest.approx(expected / 2, rel=0.03)


def test_grid_follows_shape_voxel_and_centre() -> None:
    head = random_head(
        np.random.default_rng(0), shape=(60, 50, 40), voxel_mm=(3, 4, 5), centre_mm=(1, 2, 3)
    )
    assert head.labels.shape == (60, 50, 40)
    assert head.voxel_mm == (3.0, 4.0, 5.0)
    middle = head.affine @ [29.5, 24.5, 19.5, 1]
    np.testing.assert_allclose(middle[:3], [1, 2, 3])


def test_left_is_on_the_left(head: Head) -> None:
    x = head.affine[0, 0] * np.arange(head.labels.shape[0]) + head.affine[0, 3]
    assert (x[:, None, None] * head.left).sum() < 0 < (x[:, None, None] * ~head.left).sum()


def test_expand_is_exact_for_linear_fields_and_keeps_corners() -> None:
    ticks = [np.linspace(-1, 1, n) for n in (4, 5, 6)]
    nodes = sum(np.meshgrid(*ticks, indexing='ij')).astype(np.float32)
    fine = [np.linspace(-1, 1, n) for n in (13, 17, 9)]
    for order in (1, 3):
        full = expand(nodes, (13, 17, 9), order=order)
        assert full.shape == (13, 17, 9)
        assert full[0, 0, 0] == pytest.approx(-3, abs=1e-5)
        assert full[-1, -1, -1] == pytest.approx(3, abs=1e-5)
    linear = expand(nodes, (13, 17, 9), order=1)
    np.testing.assert_allclose(linear, sum(np.meshgrid(*fine, indexing='ij')), atol=1e-5)


def test_smooth_noise_is_smooth_over_its_scale() -> None:
    rng = np.random.default_rng(0)
    field = smooth_noise(rng, (60, 60, 60), (1.0, 1.0, 1.0), 20.0)
    assert 0.3 < field.std() < 1.5
    assert np.abs(np.diff(field, axis=0)).max() < 0.5


def test_affine_without_spread_moves_the_centre_only() -> None:
    matrix = random_affine(np.random.default_rng(0), STILL)
    np.testing.assert_allclose(matrix[:3, :3], np.eye(3) * np.exp(0.04), atol=1e-12)
    np.testing.assert_allclose(matrix[:3, 3], [0, -18, 4])


@pytest.mark.parametrize(
    ('centre', 'radii'),
    [
        ((3.0, -2.0, 1.0), (4.0, 2.5, 6.0)),
        ((9.0, 7.0, 8.0), (5.0, 5.0, 3.0)),
        ((40.0, 0.0, 0.0), (3.0, 3.0, 3.0)),
    ],
)
def test_ellipsoids_are_those_of_the_formula(
    centre: tuple[float, ...], radii: tuple[float, ...]
) -> None:
    line = np.arange(-10, 11, dtype=np.float32)
    axes = [np.abs(line).reshape(-1, 1, 1), line.reshape(1, -1, 1), line.reshape(1, 1, -1)]
    squares = [((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)]
    wanted = squares[0] + squares[1] + squares[2] < 1
    np.testing.assert_array_equal(_inside(axes, centre, radii), wanted)
    assert wanted.any() == (centre[0] < 40)


def test_distances_of_the_template_are_those_without_boxes() -> None:
    rng = np.random.default_rng(2)
    masks = [rng.random((14, 11, 12)) < share for share in (0.02, 0.3, 0.9)]
    masks.append(np.zeros((14, 11, 12), bool))
    masks[-1][0:6, 3:, 4:9] = True  # touches three edges of the array
    for mask in masks:
        distance = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
        distance -= 0.5 * np.sign(distance)
        wanted = ndimage.gaussian_filter(distance.astype(np.float32), 0.7)
        np.testing.assert_array_equal(_signed_distance(mask), wanted)
