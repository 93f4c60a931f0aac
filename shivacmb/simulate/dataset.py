"""Whole simulated scans as a detector sees them: 1 mm, cropped, scaled, with their truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.simulate.anatomy import Head, random_head
from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.contrast import Kind, tissue_image, tissue_means
from shivacmb.simulate.contrast_acquire import receive
from shivacmb.simulate.dataset_head import carve_sulci, lesion_zones, scene_masks
from shivacmb.simulate.dataset_scan import (
    Acquisition,
    Scan,
    draw_acquisition,
    isotropic_truth,
    simulate_scan,
)
from shivacmb.simulate.scanner import draw_scanner
from shivacmb.simulate.subject import LesionWishes, simulate_subject

Array = NDArray[Any]

#: Bits of :attr:`Example.flags`.
LESION, UNSURE, MIMIC, BRAIN = 1, 2, 4, 8


@dataclass(frozen=True)
class Example:
    """One scan ready for a network.

    Attributes
    ----------
    image : ndarray, uint8 [X, Y, Z]
        Scaled intensity times 255: the 99th percentile inside the brain is 255, clipped.
    flags : ndarray, uint8 [X, Y, Z]
        Bits LESION, UNSURE, MIMIC and BRAIN.
    labels : ndarray, uint16 [X, Y, Z]
        Lesion numbers from 1.
    lesions : list of dict
        Number, zone, apparent radius, chi, depth and centre voxel of every lesion in the box;
        ``visible`` tells whether it has a label.
    contrast : {'T2starw', 'swi', 'any'}
        What the image shows; 'any' where no scanner gives it.
    """

    image: Array
    flags: Array
    labels: Array
    lesions: list[dict[str, Any]]
    contrast: str = 'any'


def _plausible(rng: np.random.Generator, kind: Kind) -> int:
    """Seed of a contrast in which brain tissue is bright enough to show a loss of signal."""
    inside = [Tissue.CORTEX, Tissue.CEREBRAL_WM, Tissue.THALAMUS, Tissue.PUTAMEN]
    while True:
        seed = int(rng.integers(2**31))
        means = tissue_means(np.random.default_rng(seed), kind)
        grey, white = means[Tissue.CORTEX], means[Tissue.CEREBRAL_WM]
        if means[inside].min() > 0.4 and abs(grey - white) < 0.5:
            return seed


def head_signal(
    rng: np.random.Generator, head: Head, kind: Kind | None = None
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Draw finer sulci and one contrast of a head.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    head : Head
        At 1 mm.
    kind : {'T2starw', 'swi', 'any'}, optional
        Drawn when not given: 45, 25 and 30 %.

    Returns
    -------
    signal : ndarray, float32 [X, Y, Z]
        Noise-free, the 99th percentile of the brain at 1.
    masks, zones : dict of ndarray
        See :func:`shivacmb.simulate.dataset_scan.simulate_scan`.
    """
    labels = carve_sulci(rng, head.labels, head.brain)
    drawn: tuple[Kind, ...] = ('T2starw', 'swi', 'any')
    what: Kind = kind or drawn[int(rng.choice(3, p=[0.45, 0.25, 0.3]))]
    image = tissue_image(labels, np.random.default_rng(_plausible(rng, what)), what)
    image = receive(image, labels, rng, voxel_mm=(1.0, 1.0, 1.0), strong=what == 'swi')
    image /= max(float(np.percentile(image[head.brain], 99)), 1e-6)
    return image, scene_masks(labels, head.brain), lesion_zones(labels)


def cut_box(array: Array, middle: Array, shape: tuple[int, int, int]) -> Array:
    """Cut a box around a voxel, zero where it leaves the array.

    Parameters
    ----------
    array : ndarray [X, Y, Z]
        Any.
    middle : ndarray, int [3]
        Voxel that becomes ``shape // 2``.
    shape : tuple of three int
        Of the box.

    Returns
    -------
    ndarray
        A copy of that shape.
    """
    out = np.zeros(shape, array.dtype)
    start = np.asarray(middle) - np.array(shape) // 2
    low = np.maximum(start, 0)
    high = np.minimum(start + shape, array.shape)
    if (high > low).all():
        source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        target = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        out[target] = array[source]
    return out


def make_example(
    scan: Scan, acquisition: Acquisition, shape: tuple[int, int, int], contrast: str = 'any'
) -> Example:
    """Resample, scale and crop a simulated scan and its truth.

    Parameters
    ----------
    scan : Scan
        From :func:`shivacmb.simulate.dataset_scan.simulate_scan`.
    acquisition : Acquisition
        The one it was made with.
    shape : tuple of three int
        Box in voxels of 1 mm, centred on the brain's centre of mass.
    contrast : {'T2starw', 'swi', 'any'}
        What it shows.

    Returns
    -------
    Example
        Image, flags and lesions.
    """
    image, labels, unsure, brain = isotropic_truth(scan, acquisition.snr)
    top = max(float(np.percentile(image[brain], 99)), 1e-6)
    scaled = np.rint(np.clip(image / top, 0, 1) * 255).astype(np.uint8)
    size = np.asarray(scan.voxel_mm)
    grid = np.ix_(
        *[
            np.clip(np.rint(np.arange(n) / s).astype(int), 0, m - 1)
            for n, s, m in zip(image.shape, size, scan.image.shape, strict=True)
        ]
    )
    flags = (
        LESION * (labels > 0)
        + UNSURE * (unsure & (labels == 0))
        + MIMIC * (np.abs(scan.mimic_loss[grid]) > 0.15)
        + BRAIN * brain
    ).astype(np.uint8)
    middle = np.rint(np.argwhere(brain).mean(axis=0)).astype(int)
    labels = cut_box(labels, middle, shape)
    seen = set(np.unique(labels).tolist())
    start = middle - np.array(shape) // 2
    rows = []
    for number, lesion in enumerate(scan.lesions, start=1):
        voxel = np.rint(lesion.centre).astype(int) - start
        if ((voxel >= 0) & (voxel < shape)).all():
            rows.append({
                'number': number, 'zone': lesion.zone, 'visible': number in seen,
                'radius': round(lesion.apparent_radius, 3), 'chi': round(lesion.chi, 3),
                'depth': round(lesion.depth, 3), 'voxel': [int(v) for v in voxel],
            })  # fmt: skip
    return Example(
        cut_box(scaled, middle, shape), cut_box(flags, middle, shape), labels, rows, contrast
    )


def random_example(
    rng: np.random.Generator,
    head: Head | None = None,
    *,
    shape: tuple[int, int, int] = (160, 216, 176),
    lesions: tuple[int, int] = (6, 30),
    large: float = 0.0,
) -> Example:
    """Draw a head (unless given), a protocol, lesions and mimics.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw: the same state gives the same bytes.
    head : Head, optional
        To scan one head more than once.
    shape : tuple of three int
        Of the result, 1 mm voxels.
    lesions : tuple of two int
        Least and largest number of lesions.
    large : float
        Share of additional large lesions, see :func:`shivacmb.simulate.lesions.draw_radius`.

    Returns
    -------
    Example
        Image, flags and lesions.
    """
    head = random_head(rng) if head is None else head
    signal, masks, zones = head_signal(rng, head)
    acquisition = draw_acquisition(rng, lesions=lesions)
    scan = simulate_scan(rng, signal, masks, zones, acquisition, large=large)
    return make_example(scan, acquisition, shape)


def random_subject_example(
    rng: np.random.Generator,
    head: Head | None = None,
    *,
    shape: tuple[int, int, int] = (160, 216, 176),
    lesions: tuple[int, int] = (6, 30),
) -> Example:
    """Draw a scan by way of a susceptibility map: slower, and nearer to what a scanner measures.

    Veins, lesions and tissue bend one field, and a SWI is made from magnitude and phase (see
    :mod:`shivacmb.simulate.subject`); :func:`random_example` draws wilder contrasts instead.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw: the same state gives the same bytes.
    head : Head, optional
        To scan one head more than once.
    shape : tuple of three int
        Of the result, 1 mm voxels.
    lesions : tuple of two int
        Least and largest number of lesions.

    Returns
    -------
    Example
        T2*-GRE magnitude, or SWI in one of three; image, flags and lesions.
    """
    head = random_head(rng) if head is None else head
    scanner = draw_scanner(rng)
    wishes = LesionWishes(int(rng.integers(lesions[0], lesions[1] + 1)))
    contrast = 'swi' if rng.random() < 1 / 3 else 'T2starw'
    subject = simulate_subject(rng, head, scanner, wishes, contrasts=(contrast,), workers=1)
    acquisition = scanner.acquisition
    image = subject.images[contrast][0]
    scan = Scan(
        image, subject.brain, acquisition.voxel_mm, subject.affine,
        [(seen.box, seen.drop) for seen in subject.lesions],
        [seen.lesion for seen in subject.lesions], subject.mimic_loss,
        [(kind, point) for kind, point, _ in subject.mimics], np.ones_like(image),
    )  # fmt: skip
    return make_example(scan, acquisition, shape, contrast)
