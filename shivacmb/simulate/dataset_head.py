"""From a labelled head to what a scan needs: masks, zones and finer sulci."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from shivacmb.simulate.anatomy_labels import Tissue
from shivacmb.simulate.distances import depth_within
from shivacmb.simulate.mimics import draw_field

Array = NDArray[Any]


def carve_sulci(rng: np.random.Generator, labels: Array, brain: Array) -> Array:
    """Cut thin fluid-filled folds into the cortex.

    The template is a mean of many people, so its narrow sulci are closed; a detector trained on it
    takes every real one for a lesion. Level sets of a smooth random field are curved sheets that
    end, meet and pinch as sulci do.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every draw.
    labels : ndarray, uint8 [X, Y, Z]
        :class:`Tissue` values at 1 mm.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.

    Returns
    -------
    ndarray, uint8 [X, Y, Z]
        A new label map; white matter beside a fold becomes cortex.
    """
    out: Array = labels.copy()
    if rng.random() < 0.1:
        return out
    sheet = draw_field(rng, labels.shape, float(rng.uniform(4.5, 8.0)))
    typical_width = float(rng.uniform(0.04, 0.22))
    wider = draw_field(rng, labels.shape, 12.0)
    typical_reach = float(rng.uniform(6.0, 16.0))
    deeper = draw_field(rng, labels.shape, 15.0)
    with ThreadPoolExecutor(1) as pool:
        fold_later = pool.submit(lambda: np.abs(sheet()) < typical_width * np.exp(0.5 * wider()))
        shallow = depth_within(brain)
        reach = typical_reach * np.exp(0.3 * deeper())
        fold = fold_later.result()
    grey = np.isin(labels, (Tissue.CORTEX, Tissue.CEREBELLAR_GM))
    white = np.isin(labels, (Tissue.CEREBRAL_WM, Tissue.CEREBELLAR_WM))
    fold &= (shallow < reach) & (grey | (white & (shallow < 0.7 * reach)))
    beside = ndimage.binary_dilation(fold, iterations=2) & white
    out[beside & (labels == Tissue.CEREBRAL_WM)] = Tissue.CORTEX
    out[beside & (labels == Tissue.CEREBELLAR_WM)] = Tissue.CEREBELLAR_GM
    out[fold] = Tissue.SULCAL_CSF
    return out


def scene_masks(labels: Array, brain: Array) -> dict[str, Array]:
    """Masks that mimics are placed by.

    Parameters
    ----------
    labels : ndarray, uint8 [X, Y, Z]
        :class:`Tissue` values.
    brain : ndarray, bool [X, Y, Z]
        Brain mask.

    Returns
    -------
    dict of ndarray, bool [X, Y, Z]
        By the names of :class:`shivacmb.simulate.mimics_place.Scene`.
    """
    return {
        'brain': brain,
        'fluid': labels == Tissue.SULCAL_CSF,
        'ventricle': labels == Tissue.VENTRICLE,
        'white': labels == Tissue.CEREBRAL_WM,
        'pallidum': labels == Tissue.PALLIDUM,
        'putamen': labels == Tissue.PUTAMEN,
        'thalamus': labels == Tissue.THALAMUS,
    }


def lesion_zones(labels: Array) -> dict[str, Array]:
    """Masks that lesions are placed by.

    Parameters
    ----------
    labels : ndarray, uint8 [X, Y, Z]
        :class:`Tissue` values.

    Returns
    -------
    dict of ndarray, bool [X, Y, Z]
        By the names of :data:`shivacmb.simulate.lesions_place.ZONES`.
    """
    deep = (Tissue.CAUDATE, Tissue.PUTAMEN, Tissue.PALLIDUM)
    return {
        'white_matter': labels == Tissue.CEREBRAL_WM,
        'cortex': labels == Tissue.CORTEX,
        'cerebellum': np.isin(labels, (Tissue.CEREBELLAR_GM, Tissue.CEREBELLAR_WM)),
        'basal_ganglia': np.isin(labels, deep),
        'thalamus': labels == Tissue.THALAMUS,
        'brainstem': labels == Tissue.BRAINSTEM,
    }
