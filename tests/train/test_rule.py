"""What the rule for surroundings leaves out counts neither way in training."""

from __future__ import annotations

import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging.zones import Zone
from shivacmb.simulate.dataset import BRAIN, LESION, MIMIC, UNSURE
from shivacmb.train.rule import find_zones, leave_out

SHAPE = (24, 24, 24)


@pytest.fixture
def zones() -> np.ndarray:
    """Fluid below, white matter above."""
    zones = np.full(SHAPE, Zone.WHITE_MATTER, np.uint8)
    zones[:, :, :12] = 7  # lateral ventricle
    return zones


def test_only_mimics_in_fluid_are_left_out(zones: np.ndarray) -> None:
    flags = np.full(SHAPE, BRAIN, np.uint8)
    for z in (6, 11, 12, 18):
        flags[12, 12, z] |= MIMIC
    flags[6, 6, 6] |= MIMIC | LESION
    out = leave_out(flags, zones, 0.5)
    unsure = (out & UNSURE) > 0
    # at 11 fluid is the larger half by the plane of the voxel itself, at 12 the smaller
    assert [bool(unsure[12, 12, z]) for z in (6, 11, 12, 18)] == [True, True, False, False]
    assert unsure[13, 12, 6], 'blurred margins belong to it'
    assert not unsure[14, 12, 6]
    assert not unsure[6, 6, 6], 'a lesion'
    assert (out & ~np.uint8(UNSURE) == flags).all()
    assert out.dtype == np.uint8


def test_more_tissue_may_be_asked_for(zones: np.ndarray) -> None:
    flags = np.zeros(SHAPE, np.uint8)
    flags[12, 12, 13] = MIMIC
    assert not (leave_out(flags, zones, 0.5) & UNSURE).any()
    assert (leave_out(flags, zones, 0.9) & UNSURE).any()


def test_lesions_keep_their_neighbourhood_where_no_mimic_is(zones: np.ndarray) -> None:
    flags = np.zeros(SHAPE, np.uint8)
    flags[12, 12, 6] = LESION
    np.testing.assert_array_equal(leave_out(flags, zones, 0.5), flags)


def test_no_brain_means_no_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(_: object) -> None:
        raise DataError('sees no brain')

    monkeypatch.setattr('shivacmb.models.brain_mask.find_brain', blind)
    assert find_zones(np.zeros((8, 8, 8), np.uint8)) is None
