"""How much of what surrounds a lesion is brain tissue."""

from __future__ import annotations

import numpy as np
import pytest

from shivacmb.imaging.zones import Zone
from shivacmb.lesions import FoundLesions, find_lesions, parenchyma, parenchyma_fractions
from shivacmb.lesions.surroundings import keep_labels

SHAPE = (15, 15, 15)
# within 2 mm of a point on a grid of 1 mm, itself left out
NEIGHBOURS = 32


def one(*voxels: tuple[int, int, int]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    for n, voxel in enumerate(voxels, 1):
        labels[voxel] = n
    return labels


def fractions(labels: np.ndarray, zones: np.ndarray, voxel_mm: float = 1.0) -> np.ndarray:
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    return parenchyma_fractions(labels, parenchyma(zones, affine), voxel_mm)


def test_one_voxel_at_a_flat_border() -> None:
    zones = np.full(SHAPE, Zone.WHITE_MATTER, np.uint8)
    zones[:7] = Zone.FLUID
    # of 33 voxels of the ball 1 + 9 + 13 + 9 + 1 lie in its layers along the first axis
    assert fractions(one((7, 7, 7)), zones) == pytest.approx(22 / NEIGHBOURS)
    # with a voxel on the other side of the border: as much here as there
    labels = one((7, 7, 7))
    labels[6, 7, 7] = 1
    assert fractions(labels, zones).tolist() == [0.5]


def test_what_is_fluid_itself_lies_in_fluid() -> None:
    zones = np.full(SHAPE, Zone.WHITE_MATTER, np.uint8)
    labels = one((7, 7, 7))
    labels[7, 7, 8:11] = 1
    zones[7, 7, 8:11] = Zone.FLUID
    # a quarter of it is tissue, and all around
    assert fractions(labels, zones).tolist() == [0.5]
    zones[7, 7, 8] = Zone.WHITE_MATTER
    assert fractions(labels, zones).tolist() == [1.0]
    zones[7, 7, 7:9] = Zone.BACKGROUND
    assert fractions(labels, zones).tolist() == [0.0]


def test_the_pineal_gland_is_no_brain_tissue() -> None:
    shape = (60, 50, 40)
    zones = np.full(shape, Zone.WHITE_MATTER, np.uint8)
    zones[15:26, 15:36, 15:26] = 14
    zones[35:46, 15:36, 15:26] = 24
    labels = np.zeros(shape, np.int32)
    # the gland is between the hind ends of the thalami: at 30, 17, 16
    for number, voxel in enumerate([(30, 17, 16), (30, 30, 20), (42, 17, 16)], 1):
        labels[voxel] = number
    assert fractions(labels, zones).tolist() == [0.0, 1.0, 1.0]
    zones[zones == 24] = Zone.WHITE_MATTER
    assert fractions(labels, zones).tolist() == [1.0, 1.0, 1.0]


def test_outside_the_brain_is_no_tissue_and_sides_do_not_matter() -> None:
    zones = np.full(SHAPE, 11, np.uint8)
    zones[:, :, 8:] = 21
    assert fractions(one((7, 7, 7)), zones).tolist() == [1.0]
    zones[8:] = Zone.BACKGROUND
    assert fractions(one((7, 7, 7)), zones) == pytest.approx(22 / NEIGHBOURS)


def test_each_lesion_has_its_own_and_its_voxels_do_not_surround_it() -> None:
    zones = np.full(SHAPE, Zone.FLUID, np.uint8)
    zones[10:] = Zone.BRAINSTEM
    labels = one((3, 7, 7), (12, 7, 7))
    labels[3, 8, 7] = 1
    zones[3, 7:9, 7] = Zone.BRAINSTEM
    assert fractions(labels, zones).tolist() == [0.0, 1.0]


def test_where_the_array_ends() -> None:
    zones = np.full(SHAPE, Zone.CEREBELLUM, np.uint8)
    zones[1] = Zone.FLUID
    # layers 0, 1 and 2 remain: 12 + 9 + 1
    assert fractions(one((0, 7, 7)), zones) == pytest.approx(13 / 22)
    full = np.ones((1, 1, 1), np.int32)
    assert np.isnan(fractions(full, full.astype(np.uint8))).all()


def test_coarse_grids_count_the_voxels_beside() -> None:
    zones = np.full(SHAPE, Zone.CORTEX, np.uint8)
    zones[8] = Zone.FLUID
    assert fractions(one((7, 7, 7)), zones, 4.0) == pytest.approx(5 / 6)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match='tissue has shape'):
        fractions(one((1, 1, 1)), np.zeros((3, 3, 3), np.uint8))


def test_kept_labels_are_numbered_on() -> None:
    labels = one((1, 1, 1), (2, 2, 2), (3, 3, 3))
    kept = keep_labels(labels, np.array([True, False, True]))
    assert (kept[1, 1, 1], kept[2, 2, 2], kept[3, 3, 3]) == (1, 0, 2)
    assert not keep_labels(labels, np.zeros(3, bool)).any()
    assert keep_labels(np.zeros(SHAPE, np.int32), np.zeros(0, bool)).shape == SHAPE


@pytest.mark.parametrize(
    ('least', 'names', 'left_out'),
    [(0.0, ['CMB1', 'CMB2'], 0), (0.5, ['CMB1'], 1), (1.0, ['CMB1'], 1)],
)
def test_lesions_in_fluid(least: float, names: list[str], left_out: int) -> None:
    folds = np.zeros((2, *SHAPE), np.float32)
    folds[:, 3, 7, 7:9] = 0.9  # the larger one, in fluid
    folds[:, 12, 7, 7] = 0.9
    zones = np.full(SHAPE, Zone.FLUID, np.uint8)
    zones[9:] = 14
    how = {'threshold': 0.5, 'min_voxels': 1, 'connectivity': 26, 'min_parenchyma': least}
    found = find_lesions(
        folds, to_whole=lambda array: array, affine=np.eye(4), brain_mask=np.ones(SHAPE, bool),
        zones=zones, **how,
    )  # fmt: skip
    assert [lesion.name for lesion in found.lesions] == names
    assert found.left_out == left_out
    assert found.lesions[-1].region == 'left thalamus'
    assert found.lesions[-1].parenchyma_fraction == 1.0
    assert found.labels[12, 7, 7] == len(names)
    assert np.count_nonzero(found.labels) == (3 if least == 0 else 1)
    for unknown in (None, np.zeros(SHAPE, np.uint8)):
        found = find_lesions(
            folds, to_whole=lambda array: array, affine=np.eye(4),
            brain_mask=np.ones(SHAPE, bool), zones=unknown, **how,
        )  # fmt: skip
        assert len(found.lesions) == 2
        assert found.left_out is None
        assert np.isnan(found.lesions[0].parenchyma_fraction)


def test_outlines_change_neither_number_nor_what_is_left_out() -> None:
    folds = np.zeros((2, *SHAPE), np.float32)
    folds[:, 3, 7, 7:9] = 0.9  # in fluid, beside the first lesion
    folds[:, 3, 7, 9:12] = 0.4
    folds[:, 3, 7, 12] = 0.9
    folds[:, 12, 7, 7:9] = 0.9  # the larger one, until the other grows
    folds[:, 3, 5:12, 12] = np.maximum(folds[:, 3, 5:12, 12], 0.4)
    folds[:, 8, 8, 8] = 0.4  # found by nobody
    zones = np.full(SHAPE, 14, np.uint8)
    zones[:6, :, :10] = Zone.FLUID
    zones[3, :7] = zones[3, 8:] = 16  # most of what the first grows over
    folds[1, 3, 5, 12] = 0.55  # the other network alone, outside of what is found
    folds[1, 3, 7, 12] = 0.45
    how = {'threshold': 0.5, 'min_voxels': 1, 'connectivity': 26, 'min_parenchyma': 0.5}

    def find(outline: float | None) -> FoundLesions:
        return find_lesions(
            folds, to_whole=lambda array: array, affine=np.eye(4),
            brain_mask=np.ones(SHAPE, bool), zones=zones, outline_threshold=outline, **how,
        )  # fmt: skip

    plain, outlined = find(None), find(0.4)
    assert [len(found.lesions) for found in (plain, outlined)] == [2, 2]
    assert plain.left_out == outlined.left_out == 1
    assert [lesion.voxels for lesion in plain.lesions] == [2, 1]
    assert plain.labels[12, 7, 7] == 1
    # numbered by what is outlined; what is left out keeps its side
    assert outlined.labels[12, 7, 7] == 2
    assert outlined.labels[3, 7, 12] == outlined.labels[3, 5, 12] == 1
    assert not outlined.labels[3, 7, 7:10].any()
    assert not outlined.labels[8, 8, 8]
    shares = [
        {lesion.x: lesion.parenchyma_fraction for lesion in found.lesions}
        for found in (plain, outlined)
    ]
    assert shares[0] == shares[1]
    for name in ('region', 'fold_agreement'):
        values = [
            sorted(getattr(row, name) for row in found.lesions) for found in (plain, outlined)
        ]
        assert values[0] == values[1]
    assert outlined.lesions[0].fold_agreement == 0.5
    # a threshold below it outlines nothing
    np.testing.assert_array_equal(find(0.5).labels, plain.labels)
