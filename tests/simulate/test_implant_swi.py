from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shivacmb.imaging.swi import susceptibility_weighted
from shivacmb.simulate.detectability import Grid, try_scan
from shivacmb.simulate.implant import Host, Implanted, implant
from shivacmb.simulate.implant_swi import slice_axis, weighting
from shivacmb.simulate.lesions import (
    VISIBLE_PHASE,
    Lesion,
    Protocol,
    blooming,
    lesion_signal,
    phase_reach,
    visible_label,
)


def even(
    shape: tuple[int, int, int], voxel_mm: tuple[float, float, float], b0: tuple[float, ...]
) -> Host:
    """A scan of tissue that is the same everywhere."""
    x, y, z = b0
    protocol = Protocol(3.0, 0.02, (x, y, z))
    affine = np.diag([*voxel_mm, 1.0])
    return Host(np.full(shape, 100, np.float32), affine, np.ones(shape, bool), protocol)


def sphere(host: Host, radius: float, chi: float) -> Lesion:
    x, y, z = (n * size / 2 for n, size in zip(host.shape, host.voxel_mm, strict=True))
    seen = radius * blooming(chi, host.protocol, VISIBLE_PHASE)
    return Lesion((x, y, z), seen, radius, chi, 1.0, ((0.0, 0.0, 0.0, radius),))


def reconstructed(host: Host, lesion: Lesion, axis: int) -> np.ndarray:
    """The SWI of a whole scan with that lesion, made of its magnitude and phase."""
    box, factor, _ = lesion_signal(
        lesion, host.voxel_mm, host.shape, host.protocol, reach_mm=phase_reach(lesion)
    )
    signal = np.ones(host.shape, complex)
    signal[box] = factor
    window = 64 / max(n for k, n in enumerate(host.shape) if k != axis)
    return susceptibility_weighted(
        np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32),
        window=window, slice_axis=axis,
    )  # fmt: skip


def put(host: Host, lesion: Lesion, contrast: str) -> Implanted:
    scan = replace(host, swi=contrast == 'swi')
    return implant(np.random.default_rng(0), scan, [lesion])


@pytest.mark.parametrize(
    ('shape', 'voxel_mm', 'b0', 'axis'),
    [((128, 128, 32), (0.8, 0.8, 1.5), (0, 0, 1), 2),
     ((32, 128, 128), (1.5, 0.8, 0.8), (0, 0, 1), 0),
     ((128, 32, 96), (1.0, 1.0, 1.0), (0, 1, 0), 1)],
)  # fmt: skip
@pytest.mark.parametrize(('radius', 'chi'), [(0.6, 1.0), (0.9, 1.0), (2.0, 2.0)])
def test_a_lesion_looks_as_in_an_swi_that_was_made_with_it(
    shape: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
    b0: tuple[float, ...],
    axis: int,
    radius: float,
    chi: float,
) -> None:
    host = even(shape, voxel_mm, b0)
    lesion = sphere(host, radius, chi)
    expected = reconstructed(host, lesion, axis)
    new = put(host, lesion, 'swi')
    np.testing.assert_allclose(new.magnitude / 100, expected, atol=0.015)
    # the truth is that of the image
    np.testing.assert_array_equal(new.labels > 0, visible_label(1 - new.magnitude / 100))
    ((_, visible, peak),) = new.lesions
    assert visible
    assert peak == pytest.approx(1 - expected.min(), abs=0.015)


def test_the_phase_more_than_doubles_what_is_dark() -> None:
    host = even((128, 128, 32), (0.8, 0.8, 1.5), (0, 0, 1))
    lesion = sphere(host, 0.9, 1.0)
    dark = {name: int((put(host, lesion, name).magnitude < 70).sum())
            for name in ('swi', 'T2starw')}  # fmt: skip
    assert dark == {'swi': 27, 'T2starw': 11}


@pytest.mark.parametrize('sign', [1, -1])
def test_what_darkens_does_not_depend_on_the_sign_of_the_phase(sign: int) -> None:
    host = even((128, 128, 32), (0.8, 0.8, 1.5), (0, 0, 1))
    lesion = sphere(host, 0.9, 1.0)
    turned = replace(host, phase=np.full(host.shape, 0.5, np.float32), phase_sign=sign)
    np.testing.assert_allclose(
        put(turned, lesion, 'swi').magnitude, put(host, lesion, 'swi').magnitude, atol=1e-3
    )


def test_slices_lie_across_the_largest_side_else_across_the_field() -> None:
    assert slice_axis((0.5, 0.5, 2.0), (1, 0, 0)) == 2
    assert slice_axis((1.0, 1.0, 1.0), (0.1, -0.9, 0.2)) == 1
    assert weighting(np.ones((0, 3, 3), complex), (9, 9, 9), 2).shape == (0, 3, 3)


def test_detectability_sees_the_swi() -> None:
    rng = np.random.default_rng(0)
    host = even((80, 80, 60), (1.0, 1.0, 1.0), (0, 0, 1))
    values = (host.magnitude + rng.normal(size=host.shape)).astype(np.float32)
    grid = Grid((0.9,), (0.4, 1.0), repeats=2)
    peaks = []
    for swi in (True, False):
        scan = replace(host, magnitude=values, swi=swi)
        tried = try_scan('s', 'swi' if swi else 'T2starw', scan, grid, lambda *_: [])
        peaks.append(sum(trial.peak_drop for trial in tried.trials))
    assert peaks[0] > 1.2 * peaks[1] > 0
