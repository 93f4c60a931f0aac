"""The MNI152 tissue maps that nilearn packages (ICBM 2009a; free to use with the notice)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Where in nilearn's package the images lie.
FOLDER = 'datasets/data'
_NAME = 'mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz'
#: Above this share of its maximum the T1 is brain, as for nilearn's ``load_mni152_brain_mask``.
_BRAIN = 0.2


@dataclass(frozen=True)
class Mni152:
    """Maps on the 1 mm grid.

    Attributes
    ----------
    affine : ndarray, float64 [4, 4]
        Voxel to MNI mm.
    grey, white : ndarray, float32 [X, Y, Z]
        Tissue fractions, 0 to 1.
    mask : ndarray, bool [X, Y, Z]
        The brain.
    """

    affine: Array
    grey: Array
    white: Array
    mask: Array


def _from_files() -> Mni152:
    folder = files('nilearn') / FOLDER
    maps = {}
    for tissue in ('gm', 'wm', 't1'):
        with as_file(folder / _NAME.format(tissue)) as path:
            image = nib.load(path)
            data = image.get_fdata().astype(np.float32)
        maps[tissue] = data / data.max()
    return Mni152(image.affine, maps['gm'], maps['wm'], maps['t1'] > _BRAIN)


def _from_nilearn() -> Mni152:
    from nilearn import datasets

    grey = datasets.load_mni152_gm_template(resolution=1)
    white = datasets.load_mni152_wm_template(resolution=1)
    mask = datasets.load_mni152_brain_mask(resolution=1)
    return Mni152(
        np.asarray(grey.affine, np.float64),
        np.asarray(grey.dataobj, np.float32),
        np.asarray(white.dataobj, np.float32),
        np.asarray(mask.dataobj) > 0,
    )


def read_mni152() -> Mni152:
    """Read the maps.

    The files are opened directly: nilearn's own functions for them import scikit-learn and the
    rest of its data sets, a tenth of the time in which a subject is made. A release of nilearn
    that keeps the files elsewhere is asked through those functions.
    """
    try:
        return _from_files()
    except FileNotFoundError:
        return _from_nilearn()
