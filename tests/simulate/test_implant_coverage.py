"""Lesions in scans of a part of the brain that lie on a grid with its whole mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shivacmb.simulate.implant import Host, Implanted, implant
from shivacmb.simulate.lesions import Lesion, Protocol


def host() -> Host:
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*[np.arange(n) - n / 2 for n in (48, 52, 26)], indexing='ij')
    brain = (x / 20) ** 2 + (y / 22) ** 2 + (2 * z / 20) ** 2 < 1
    noise = 20.0 * (rng.normal(size=x.shape) + 1j * rng.normal(size=x.shape))
    magnitude = np.abs(np.where(brain, 500.0, 0.0) + noise).astype(np.float32)
    return Host(magnitude, np.diag([1.0, 1.0, 2.0, 1.0]), brain, Protocol(3.0, 0.02))


@pytest.mark.parametrize('slices', [14, 12])
def test_noise_and_signal_are_those_of_what_was_scanned(slices: int) -> None:
    """With half of the mask empty both were 0, with a little less far too low."""
    whole = host()
    magnitude = whole.magnitude.copy()
    magnitude[:, :, slices:] = 0.0
    part = replace(whole, magnitude=magnitude)
    lesion = Lesion((24.0, 26.0, 18.0), 4.5, 2.0, 2.4, 1.0, ((0.0, 0.0, 0.0, 2.0),))
    dark: dict[str, list[float]] = {'whole': [], 'part': []}
    for seed in range(12):
        new: dict[str, Implanted] = {
            name: implant(np.random.default_rng(seed), scan, [lesion])
            for name, scan in (('whole', whole), ('part', part))
        }
        assert new['part'].lesions[0][1]
        assert new['part'].lesions[0][2] == pytest.approx(new['whole'].lesions[0][2], rel=0.05)
        for name, item in new.items():
            dark[name].append(float(item.magnitude[23:26, 25:28, 9].mean()))
    assert np.mean(dark['part']) == pytest.approx(np.mean(dark['whole']), rel=0.15)


def test_a_mask_without_any_signal_is_no_error() -> None:
    empty = replace(host(), magnitude=np.zeros((48, 52, 26), np.float32))
    assert implant(np.random.default_rng(0), empty, []).lesions == []
