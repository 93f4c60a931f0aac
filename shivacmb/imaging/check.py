"""Stand-in."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np


@dataclass(frozen=True)
class LoadedScan:
    image: object
    warnings: tuple


def load_scan(path):
    im = nib.load(path)
    h = im.header.copy()
    h.set_data_dtype(np.float32)
    h['scl_slope'] = 1
    h['scl_inter'] = 0
    return LoadedScan(nib.Nifti1Image(np.asarray(im.dataobj, dtype=np.float32), None, h), ())


def same_grid(a, b, c, d):
    return tuple(a) == tuple(c) and np.allclose(b, d, atol=1e-3)
