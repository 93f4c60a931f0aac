"""Node that draws the pictures of one scan."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from shivacmb.imaging import SpatialChain, uncrop
from shivacmb.interfaces.base import ScanInterface
from shivacmb.lesions import Lesion
from shivacmb.reports import write_figures


class _FiguresInputSpec(BaseInterfaceInputSpec):
    iso_file = File(exists=True, mandatory=True, desc='reoriented isotropic image')
    mask_file = File(exists=True, mandatory=True, desc='brain mask on the isotropic grid')
    labels_file = File(exists=True, mandatory=True, desc='.npy of int32 [X, Y, Z] in the box')
    chain_file = File(exists=True, mandatory=True, desc='JSON of the grids')
    table_file = File(exists=True, mandatory=True, desc='JSON list of lesions')
    title = traits.Str('', usedefault=True, desc='heading of the pictures')


class _FiguresOutputSpec(TraitedSpec):
    files = traits.List(
        File, desc='PNG: slices with mask, box and lesions; then, if any, one row per lesion'
    )


class Figures(ScanInterface):
    """Draw the overview and the close-up of each lesion."""

    input_spec = _FiguresInputSpec
    output_spec = _FiguresOutputSpec

    def _run(self, cwd: Path) -> None:
        inputs = self.inputs
        chain = SpatialChain.from_dict(json.loads(Path(inputs.chain_file).read_text('utf-8')))
        iso = nib.load(inputs.iso_file)
        rows = json.loads(Path(inputs.table_file).read_text('utf-8'))
        written = write_figures(
            np.asarray(iso.dataobj, dtype=np.float32),
            uncrop(np.load(inputs.labels_file), chain.placed_box, iso.shape),
            np.asarray(nib.load(inputs.mask_file).dataobj) > 0,
            chain.placed_box,
            [Lesion(**row) for row in rows],
            iso.affine,
            cwd / 'overview.png',
            cwd / 'lesions.png',
            title=inputs.title,
        )
        self._results['files'] = [str(path) for path in written]
