"""Magnetic properties of the tissues of a simulated head, and the signals they give.

Susceptibilities after the values collected for the QSM reconstruction challenge 2.0 (Marques
2021), the rest textbook values at 3 T, rounded. People differ, so each is drawn around its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.simulate.anatomy_labels import Tissue

Array = NDArray[Any]

#: Susceptibility of air relative to water in ppm.
AIR_PPM = 9.4
#: R2* in 1/s that 1 ppm of iron in tissue adds at 3 T.
R2STAR_PER_IRON_PPM = 125.0

# chi ppm relative to water, R2* 1/s, T1 s, T2 s, proton density; all at 3 T
_T = Tissue
_VALUES: dict[Tissue, tuple[float, float, float, float, float]] = {
    _T.AIR: (AIR_PPM, 1.0, 1.0, 0.1, 0.0),
    _T.CORTEX: (0.02, 17.0, 1.40, 0.090, 0.82),
    _T.CEREBRAL_WM: (-0.03, 20.0, 0.90, 0.070, 0.70),
    _T.CAUDATE: (0.044, 21.0, 1.30, 0.080, 0.82),
    _T.PUTAMEN: (0.045, 23.0, 1.25, 0.075, 0.80),
    _T.PALLIDUM: (0.13, 35.0, 1.05, 0.060, 0.74),
    _T.THALAMUS: (0.02, 20.0, 1.15, 0.075, 0.78),
    _T.BRAINSTEM: (-0.01, 20.0, 1.00, 0.074, 0.74),
    _T.CEREBELLAR_GM: (0.02, 18.0, 1.35, 0.088, 0.82),
    _T.CEREBELLAR_WM: (-0.02, 20.5, 0.92, 0.073, 0.71),
    _T.SULCAL_CSF: (0.019, 2.5, 4.0, 1.5, 1.0),
    _T.VENTRICLE: (0.019, 2.0, 4.0, 1.5, 1.0),
    _T.VENOUS_SINUS: (0.19, 35.0, 1.6, 0.060, 0.55),
    _T.BONE: (-2.1, 400.0, 0.30, 0.005, 0.15),
    _T.MARROW: (0.2, 70.0, 0.40, 0.050, 0.55),
    _T.FAT: (0.65, 30.0, 0.38, 0.060, 0.80),
    _T.MUSCLE: (0.0, 32.0, 1.20, 0.035, 0.75),
    _T.SKIN: (0.0, 45.0, 1.0, 0.035, 0.60),
    _T.EYE: (0.0, 4.0, 3.6, 0.9, 1.0),
    _T.CAVITY: (AIR_PPM, 1.0, 1.0, 0.1, 0.0),
    _T.MUCOSA: (0.0, 20.0, 1.8, 0.12, 0.85),
    _T.CORD: (-0.01, 21.0, 0.95, 0.073, 0.72),
}


@dataclass(frozen=True)
class Properties:
    """Tissue properties, each an ndarray of float32 indexed by label value.

    Attributes
    ----------
    chi : ndarray
        Susceptibility relative to water, ppm.
    r2star : ndarray
        1/s, without what the simulated field adds.
    t1, t2 : ndarray
        Seconds.
    density : ndarray
        Protons relative to water.
    """

    chi: Array
    r2star: Array
    t1: Array
    t2: Array
    density: Array


def draw_properties(rng: np.random.Generator, field_t: float, spread: float = 1.0) -> Properties:
    """Draw the tissues of one person.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    field_t : float
        Main field: R2* grows with its power 0.75 (measured 1.5 to 7 T: almost linear), T1 with its
        cube root, T2 falls a little.
    spread : float
        0 gives the table's values.

    Returns
    -------
    Properties
    """
    table = np.array([_VALUES[tissue] for tissue in Tissue])
    chi, r2star, t1, t2, density = table.T
    count = len(Tissue)
    relative = field_t / 3.0
    iron = np.isin(np.arange(count), [Tissue.CAUDATE, Tissue.PUTAMEN, Tissue.PALLIDUM])
    # iron gathers with age, unevenly between people and together in all nuclei
    more = np.exp(spread * (rng.normal(0, 0.25) + rng.normal(0, 0.15, count))) - 1.0
    added = np.where(iron, chi * more, 0.0)
    jitter = spread * rng.normal(0, 0.006, count)
    air = chi == AIR_PPM
    outside = spread * rng.normal(0, 0.1, count) * (np.arange(count) >= Tissue.BONE)
    return Properties(
        np.where(air, AIR_PPM, chi + added + jitter + outside).astype(np.float32),
        (np.maximum(r2star * np.exp(spread * rng.normal(0, 0.06, count))
         + R2STAR_PER_IRON_PPM * added, 1.0) * relative**0.75).astype(np.float32),
        (t1 * np.exp(spread * rng.normal(0, 0.05, count)) * np.cbrt(relative)).astype(np.float32),
        (t2 * np.exp(spread * rng.normal(0, 0.05, count)) * relative**-0.2).astype(np.float32),
        (density * np.exp(spread * rng.normal(0, 0.02, count))).astype(np.float32),
    )  # fmt: skip


def gradient_echo(properties: Properties, repetition_s: float, flip_deg: float) -> Array:
    """Signal of a spoiled gradient echo at echo time 0, per label.

    Parameters
    ----------
    properties : Properties
    repetition_s : float
        Repetition time.
    flip_deg : float
        Flip angle in degrees.

    Returns
    -------
    ndarray, float32
        Cerebral white matter is 1.
    """
    angle = np.deg2rad(flip_deg)
    recovery = np.exp(-repetition_s / properties.t1)
    signal = properties.density * (1 - recovery) / (1 - np.cos(angle) * recovery)
    return np.asarray(signal / signal[Tissue.CEREBRAL_WM], np.float32)


def spin_echo(properties: Properties, repetition_s: float = 5.0, echo_s: float = 0.09) -> Array:
    """Signal of a spin echo, per label; cerebral white matter is 1.

    Blood that flows through the slice between the two pulses gives none (flow void).
    """
    signal = (
        properties.density
        * (1 - np.exp(-repetition_s / properties.t1))
        * np.exp(-echo_s / properties.t2)
    )
    signal = signal / signal[Tissue.CEREBRAL_WM]
    signal[Tissue.VENOUS_SINUS] *= 0.15
    return np.asarray(signal, np.float32)
