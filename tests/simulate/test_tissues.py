from __future__ import annotations

import numpy as np
import pytest

from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.tissues import AIR_PPM, draw_properties, gradient_echo, spin_echo

T = Tissue


def test_without_spread_the_table_is_given() -> None:
    plain = draw_properties(np.random.default_rng(0), 3.0, spread=0.0)
    assert plain.chi[T.PALLIDUM] == pytest.approx(0.13)
    assert plain.chi[T.CAVITY] == plain.chi[T.AIR] == pytest.approx(AIR_PPM)
    assert plain.r2star[T.CEREBRAL_WM] == pytest.approx(20.0)


def test_iron_bearing_nuclei_are_paramagnetic_and_bone_is_not() -> None:
    for seed in range(20):
        drawn = draw_properties(np.random.default_rng(seed), 3.0)
        assert drawn.chi[T.PALLIDUM] > drawn.chi[T.CORTEX] > drawn.chi[T.CEREBRAL_WM]
        assert drawn.chi[T.BONE] < -1
        assert drawn.chi[T.CAVITY] == pytest.approx(AIR_PPM)


def test_decay_is_faster_in_a_stronger_field() -> None:
    rates = [
        draw_properties(np.random.default_rng(1), field, spread=0).r2star[T.CORTEX]
        for field in (1.5, 3.0, 7.0)
    ]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] / rates[1] == pytest.approx((7 / 3) ** 0.75, rel=1e-4)


def test_gradient_echo_is_the_ernst_equation_relative_to_white_matter() -> None:
    plain = draw_properties(np.random.default_rng(0), 3.0, spread=0.0)
    signal = gradient_echo(plain, 10.0, 90.0)
    # full recovery: proton density alone
    expected = plain.density[T.SULCAL_CSF] * (1 - np.exp(-10 / 4.0)) / plain.density[T.CEREBRAL_WM]
    assert signal[T.SULCAL_CSF] == pytest.approx(expected, rel=1e-3)
    assert signal[T.CEREBRAL_WM] == 1
    assert signal[T.AIR] == 0


def test_fluid_is_bright_on_spin_echoes_and_dark_on_fast_gradient_echoes() -> None:
    plain = draw_properties(np.random.default_rng(0), 3.0, spread=0.0)
    assert spin_echo(plain)[T.VENTRICLE] > 2
    assert gradient_echo(plain, 0.03, 20.0)[T.VENTRICLE] < 0.6
    assert spin_echo(plain)[T.VENOUS_SINUS] < 0.3
