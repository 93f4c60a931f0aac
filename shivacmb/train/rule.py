"""What the rule for surroundings leaves out need not be taught (docs/decisions/0125)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from shivacmb.exceptions import DataError
from shivacmb.lesions.surroundings import parenchyma
from shivacmb.simulate.dataset import LESION, MIMIC, UNSURE

Array = NDArray[Any]

#: Radius of a ball, voxels of 1 mm: the surroundings of the rule and half of a mimic of 4 mm.
REACH = 4


def find_zones(image: Array) -> Array | None:
    """Find the zones of the brain in an image of the pool as the app does.

    Parameters
    ----------
    image : ndarray, uint8 [X, Y, Z]
        In RAS order, voxels of 1 mm.

    Returns
    -------
    ndarray, uint8 [X, Y, Z], or None
        Values of :data:`shivacmb.imaging.zones.REGIONS`; None where no brain is seen.
    """
    import nibabel as nib

    from shivacmb.models.brain_mask import find_brain

    try:
        found = find_brain(nib.Nifti1Image(np.asarray(image, np.float32), np.eye(4)))
    except DataError:
        return None
    return np.asarray(found.zones(found.mask()))


def leave_out(flags: Array, zones: Array, least: float) -> Array:
    """Let mimics count neither way where the rule leaves them out.

    A calcified plexus looks like a lesion, and the rule of :func:`parenchyma_fractions
    <shivacmb.lesions.parenchyma_fractions>` knows that it is none; a network that must know it,
    too, is sure of no lesion. What lies in fluid itself with tissue around stays background: most
    of it are vessels of the sulci, which a network has to know.

    Parameters
    ----------
    flags : ndarray, uint8 [X, Y, Z]
        Of a simulated scan, see :class:`shivacmb.simulate.dataset.Example`.
    zones : ndarray, uint8 [X, Y, Z]
        Of :func:`find_zones`.
    least : float
        Share of brain tissue, at least, of what may count.

    Returns
    -------
    ndarray, uint8 [X, Y, Z]
        The flags, with ``UNSURE`` where the mimics and what touches them have less tissue within
        :data:`REACH`; never in a lesion.
    """
    squares = ((np.indices((2 * REACH + 1,) * 3) - REACH) ** 2).sum(axis=0)
    ball = (squares <= REACH**2).astype(np.float32)
    tissue = parenchyma(zones, np.eye(4)).astype(np.float32)
    share = signal.fftconvolve(tissue, ball / ball.sum(), 'same')
    may = (share < least) & ((flags & LESION) == 0)
    mimics = may & ((flags & MIMIC) > 0)
    lost = ndimage.binary_dilation(mimics) & may
    return np.where(lost, flags | UNSURE, flags).astype(flags.dtype)
