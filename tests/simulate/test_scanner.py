from __future__ import annotations

import numpy as np
import pytest

from shivacmb.exceptions import UsageError
from shivacmb.simulate.files import reorient_vector
from shivacmb.simulate.scanner import Wishes, draw_scanner


def test_what_is_fixed_is_taken_and_changes_nothing_else() -> None:
    free = draw_scanner(np.random.default_rng(4))
    fixed = draw_scanner(np.random.default_rng(4), Wishes(field_t=7.0, snr=99.0))
    assert fixed.acquisition.protocol.field_t == 7.0
    assert fixed.acquisition.snr == 99.0
    assert fixed.acquisition.voxel_mm == free.acquisition.voxel_mm
    assert (fixed.axes, fixed.flip_deg, fixed.cut_mm) == (free.axes, free.flip_deg, free.cut_mm)


@pytest.mark.parametrize(('orientation', 'axis'), [('axial', 2), ('coronal', 1), ('sagittal', 0)])
def test_the_slice_lies_along_the_axis_of_the_orientation(orientation: str, axis: int) -> None:
    drawn = draw_scanner(
        np.random.default_rng(1), Wishes(voxel_mm=(0.7, 0.8, 3.0), orientation=orientation)
    )
    assert drawn.acquisition.slice_axis == axis
    assert drawn.acquisition.voxel_mm[axis] == 3.0
    assert sorted(drawn.acquisition.voxel_mm) == [0.7, 0.8, 3.0]
    # slices are stored last
    assert drawn.axes[2] in {2: 'SI', 1: 'AP', 0: 'RL'}[axis]


def test_the_field_stays_along_the_scanner_when_the_slices_tilt() -> None:
    drawn = draw_scanner(np.random.default_rng(2), Wishes(oblique_deg=30.0))
    b0 = np.array(drawn.acquisition.protocol.b0)
    np.testing.assert_allclose(drawn.turn @ b0, [0, 0, 1], atol=1e-12)
    assert np.degrees(np.arccos(b0[2])) == pytest.approx(30.0)


@pytest.mark.parametrize('orientation', ['axial', 'coronal', 'sagittal'])
@pytest.mark.parametrize('degrees', [20.0, 45.0])
def test_slices_of_any_orientation_are_tilted_and_stored_last(
    orientation: str, degrees: float
) -> None:
    wishes = Wishes(voxel_mm=(1.0, 1.0, 3.0), orientation=orientation, oblique_deg=degrees)
    drawn = draw_scanner(np.random.default_rng(0), wishes)
    across = drawn.turn[:, drawn.acquisition.slice_axis]
    straight = np.eye(3)[drawn.acquisition.slice_axis]
    assert np.degrees(np.arccos(across @ straight)) == pytest.approx(degrees)
    affine = np.eye(4)
    affine[:3, :3] = drawn.turn @ np.diag(drawn.acquisition.voxel_mm)
    sizes = reorient_vector(drawn.acquisition.voxel_mm, affine, drawn.axes)
    np.testing.assert_allclose(np.abs(sizes), [1.0, 1.0, 3.0])


def test_the_main_echo_is_the_one_nearest_to_20_ms() -> None:
    drawn = draw_scanner(np.random.default_rng(2), Wishes(echoes_s=(0.006, 0.018, 0.030)))
    assert drawn.echoes_s == (0.006, 0.018, 0.030)
    assert drawn.acquisition.protocol.echo_s == 0.018
    assert drawn.repetition_s > 0.030


def test_without_artefacts_there_are_none() -> None:
    for seed in range(30):
        drawn = draw_scanner(np.random.default_rng(seed), Wishes(artefacts=False))
        assert drawn.acquisition.kspace == 1
        assert drawn.acquisition.ghost == 0
        assert drawn.cut_mm == (0, 0)


@pytest.mark.parametrize(
    ('wish', 'message'),
    [
        ({'voxel_mm': (0.1, 1.0, 1.0)}, r'voxel size \(mm\) 0.1 is not between 0.3 and 6'),
        ({'field_t': 30.0}, r'field \(T\) 30'),
        ({'echoes_s': (0.2,)}, r'echo time \(ms\) 200'),
        ({'echoes_s': (0.02, 0.01)}, 'echo times must rise'),
        ({'snr': float('nan')}, 'signal to noise'),
        ({'oblique_deg': 50.0}, r'obliqueness \(degrees\) 50 is not between 0 and 45'),
        ({'orientation': 'diagonal'}, 'take sagittal, coronal, axial'),
    ],
)
def test_impossible_protocols_are_refused(wish: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Wishes(**wish)
