"""Images of a simulated head: what T2*-GRE, SWI or any other scan might make of its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from shivacmb.simulate.anatomy_atlas import Array
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.anatomy_warp import smooth_noise
from shivacmb.simulate.contrast_acquire import acquire, cover, receive, strip_skull

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal['T2starw', 'swi', 'any']

# Ranges of the signal relative to cerebral white matter; wide, because echo time, flip angle and
# field strength differ between sites more than tissues do. Fluid is bright at long repetition
# times and mid or dark on T1-weighted 3-D sequences.
_T2STARW: dict[Tissue, tuple[float, float]] = {
    Tissue.CORTEX: (0.98, 1.35),
    Tissue.CAUDATE: (0.85, 1.20),
    Tissue.PUTAMEN: (0.70, 1.15),
    Tissue.PALLIDUM: (0.45, 0.95),
    Tissue.THALAMUS: (0.90, 1.15),
    Tissue.BRAINSTEM: (0.90, 1.10),
    Tissue.CEREBELLAR_GM: (0.95, 1.30),
    Tissue.CEREBELLAR_WM: (0.92, 1.05),
    Tissue.SULCAL_CSF: (0.55, 1.90),
    Tissue.VENOUS_SINUS: (0.15, 1.80),
    Tissue.BONE: (0.02, 0.22),
    Tissue.MARROW: (0.05, 0.90),
    Tissue.FAT: (0.20, 1.40),
    Tissue.MUSCLE: (0.25, 0.95),
    Tissue.SKIN: (0.20, 1.10),
    Tissue.EYE: (0.50, 1.90),
    Tissue.MUCOSA: (0.50, 1.60),
    Tissue.CORD: (0.80, 1.10),
}
_SWI = {
    **_T2STARW,
    Tissue.CORTEX: (0.95, 1.20),
    Tissue.PUTAMEN: (0.60, 1.05),
    Tissue.PALLIDUM: (0.35, 0.85),
    Tissue.SULCAL_CSF: (0.45, 1.40),
    Tissue.VENOUS_SINUS: (0.05, 1.50),
}


def tissue_means(rng: np.random.Generator, kind: Kind) -> Array:
    """Draw the mean signal of every tissue.

    Parameters
    ----------
    rng : numpy.random.Generator
    kind : {'T2starw', 'swi', 'any'}
        'any' draws every tissue on its own, in the manner of SynthStrip (Hoopes 2022).

    Returns
    -------
    ndarray, float32 [22]
        Indexed by label value; air is 0, white matter 1 (for 'any': each 0 to 1.5).
    """
    means = np.zeros(len(Tissue), np.float32)
    if kind == 'any':
        means[1:] = rng.uniform(0.0, 1.5, len(Tissue) - 1)
        # grey nuclei, cord and the two halves of the brain seldom differ without any order
        means[Tissue.CEREBELLAR_GM] = means[Tissue.CORTEX] * rng.uniform(0.8, 1.2)
        means[Tissue.CEREBELLAR_WM] = means[Tissue.CEREBRAL_WM] * rng.uniform(0.8, 1.2)
        means[Tissue.BRAINSTEM] = means[Tissue.CEREBRAL_WM] * rng.uniform(0.7, 1.3)
        means[Tissue.CAVITY] = 0.0
        if rng.random() < 0.7:
            means[Tissue.BONE] *= 0.2
    else:
        means[Tissue.CEREBRAL_WM] = 1.0
        for tissue, (low, high) in (_SWI if kind == 'swi' else _T2STARW).items():
            means[tissue] = rng.uniform(low, high)
    means[Tissue.VENTRICLE] = means[Tissue.SULCAL_CSF] * rng.uniform(0.9, 1.15)
    return means


def tissue_image(
    labels: Array,
    rng: np.random.Generator,
    kind: Kind = 'T2starw',
    *,
    voxel_mm: Sequence[float] | Array | float = 1.0,
) -> Array:
    """Noise-free image of the labels: means, texture, shared voxels at the borders.

    Lesions and vessels belong into this image, before :func:`receive` and :func:`acquire`.

    Parameters
    ----------
    labels : ndarray, uint8 [X, Y, Z]
    rng : numpy.random.Generator
    kind : {'T2starw', 'swi', 'any'}
    voxel_mm : float or sequence of three float

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        Signal relative to white matter, not negative.
    """
    size = np.broadcast_to(np.asarray(voxel_mm, np.float64), (3,))
    means = tissue_means(rng, kind)
    image = means[labels]
    # the strength of the texture differs between tissues: fat and muscle are coarser than brain
    grain = rng.uniform(0.005, 0.05, len(Tissue)).astype(np.float32)
    grain[Tissue.BONE :] *= 4.0
    fine = rng.standard_normal(labels.shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(fine, rng.uniform(0.6, 1.5) / size, truncate=2.5)
    fine /= max(float(fine[::3, ::3, ::3].std()), 1e-6)
    coarse = smooth_noise(rng, labels.shape, size, rng.uniform(12.0, 30.0))
    image *= 1.0 + grain[labels] * (fine + coarse)
    image = ndimage.gaussian_filter(image, rng.uniform(0.4, 0.8) / size, truncate=2.5)
    return np.asarray(np.maximum(image, 0.0), np.float32)


def random_contrast(
    labels: Array,
    rng: np.random.Generator,
    kind: Kind = 'T2starw',
    *,
    voxel_mm: Sequence[float] | Array | float = 1.0,
    slice_mm: float | None = None,
    snr: float | None = None,
    stripped: bool | None = None,
    coverage: bool | None = None,
    brain: Array | None = None,
) -> Array:
    """Simulate a whole scan of a head, on the head's own grid.

    Tissue contrast, coil sensitivity, signal loss near air, slice thickness, Rician noise, partial
    coverage and skull-stripping, in that order. What is left at None is drawn.

    Parameters
    ----------
    labels : ndarray, uint8 [X, Y, Z]
        Of :func:`shivacmb.simulate.anatomy.random_head`.
    rng : numpy.random.Generator
    kind : {'T2starw', 'swi', 'any'}
    voxel_mm : float or sequence of three float
        Voxel size of ``labels``.
    slice_mm : float, optional
        Slice thickness; else 1 to 5 mm.
    snr : float, optional
        White-matter signal over the noise's deviation; else 10 to 60.
    stripped, coverage : bool, optional
        Whether the skull is cut away (else 15 %) and slices or sides are missing (else 25 %).
    brain : ndarray of bool [X, Y, Z], optional
        Mask for the cutting; else guessed from the labels.

    Returns
    -------
    ndarray, float32 [X, Y, Z]
        Not negative, 0 where nothing was acquired.
    """
    size = np.broadcast_to(np.asarray(voxel_mm, np.float64), (3,))
    image = tissue_image(labels, rng, kind, voxel_mm=size)
    image = receive(image, labels, rng, voxel_mm=size, strong=kind == 'swi')
    thick = (
        float(rng.choice([1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])) if slice_mm is None else slice_mm
    )
    axis = 2 if rng.random() < 0.85 else int(rng.integers(0, 2))
    noise = 1.0 / float(np.exp(rng.uniform(np.log(10), np.log(60))) if snr is None else snr)
    image = acquire(image, rng, voxel_mm=size, slice_mm=thick, axis=axis, noise=noise)
    if rng.random() < 0.25 if coverage is None else coverage:
        image = cover(image, rng)
    if rng.random() < 0.15 if stripped is None else stripped:
        image = strip_skull(image, labels, rng, voxel_mm=size, brain=brain)
    return image
