"""Nodes for steps 9 to 11: binarise, find lesions, return to the scan's own grid."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from shivacmb.imaging import (
    SpatialChain,
    labels_to_input,
    mask_to_input,
    probability_to_input,
    uncrop,
    zones_to_input,
)
from shivacmb.interfaces.base import ScanInterface
from shivacmb.lesions import find_lesions


class _FindLesionsInputSpec(BaseInterfaceInputSpec):
    folds_file = File(exists=True, mandatory=True, desc='.npy of float32 [F, X, Y, Z]')
    mask_file = File(exists=True, mandatory=True, desc='.npy of bool [X, Y, Z], the brain')
    iso_mask_file = File(
        exists=True, mandatory=True, desc='brain mask on the isotropic grid, not cut by the box'
    )
    zones_file = File(exists=True, desc='zones of the brain on the isotropic grid')
    chain_file = File(exists=True, mandatory=True, desc='JSON of the grids')
    threshold = traits.Float(mandatory=True, desc='probability from which a voxel counts')
    min_voxels = traits.Int(mandatory=True, desc='smallest cluster kept, isotropic voxels')
    connectivity = traits.Enum(26, 18, 6, usedefault=True, desc='neighbours of a voxel')
    min_parenchyma = traits.Float(
        0.0, usedefault=True, desc='least share of brain tissue in the surroundings of a lesion'
    )

    outline_threshold = traits.Float(
        1.0,
        usedefault=True,
        desc='probability down to which lesions then grow; from the threshold on they do not',
    )


class _FindLesionsOutputSpec(TraitedSpec):
    labels_file = File(desc='.npy of int32 [X, Y, Z] in the box, one value per lesion')
    mean_file = File(desc='.npy of float32 [X, Y, Z], mean of the folds inside the brain')
    sd_file = File(desc='.npy of float32 [X, Y, Z], standard deviation of the folds')
    table_file = File(desc='JSON list of lesions')
    left_out = traits.Int(desc='candidates with too little brain tissue around; -1: not known')


class FindLesions(ScanInterface):
    """Average the folds inside the brain, binarise, cluster, leave out, measure."""

    input_spec = _FindLesionsInputSpec
    output_spec = _FindLesionsOutputSpec

    def _run(self, cwd: Path) -> None:
        inputs = self.inputs
        chain = SpatialChain.from_dict(json.loads(Path(inputs.chain_file).read_text('utf-8')))
        brain = np.load(inputs.mask_file)
        folds = np.load(inputs.folds_file)
        folds *= brain
        iso_mask = nib.load(inputs.iso_mask_file)
        zones = None
        if isdefined(inputs.zones_file):
            zones = np.asarray(nib.load(inputs.zones_file).dataobj)
        found = find_lesions(
            folds,
            to_whole=lambda array: uncrop(array, chain.placed_box, chain.iso_shape),
            affine=iso_mask.affine,
            brain_mask=np.asarray(iso_mask.dataobj),
            zones=zones,
            threshold=inputs.threshold,
            min_voxels=inputs.min_voxels,
            connectivity=inputs.connectivity,
            min_parenchyma=inputs.min_parenchyma,
            outline_threshold=inputs.outline_threshold,
        )
        np.save(cwd / 'labels.npy', found.labels)
        np.save(cwd / 'mean.npy', found.mean)
        np.save(cwd / 'sd.npy', folds.std(axis=0, dtype=np.float32))
        rows = [dataclasses.asdict(lesion) for lesion in found.lesions]
        (cwd / 'lesions.json').write_text(json.dumps(rows), encoding='utf-8')
        self._results.update(
            labels_file=str(cwd / 'labels.npy'),
            mean_file=str(cwd / 'mean.npy'),
            sd_file=str(cwd / 'sd.npy'),
            table_file=str(cwd / 'lesions.json'),
            left_out=-1 if found.left_out is None else found.left_out,
        )


# Sigmoids are never quite zero: below this a map is stored as 0, which makes it a hundred times
# smaller on disk and changes no voxel by more than the published script's own tolerance
PROBABILITY_FLOOR = 1e-4


def _floored(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    array[array < PROBABILITY_FLOOR] = 0
    return array


class _ToInputGridInputSpec(BaseInterfaceInputSpec):
    scan_file = File(exists=True, mandatory=True, desc='the checked scan on its own grid')
    mask_file = File(exists=True, mandatory=True, desc='brain mask on the isotropic grid')
    zones_file = File(exists=True, desc='zones of the brain on the isotropic grid')
    labels_file = File(exists=True, mandatory=True, desc='.npy of int32 [X, Y, Z] in the box')
    mean_file = File(exists=True, mandatory=True, desc='.npy of float32 [X, Y, Z] in the box')
    sd_file = File(exists=True, mandatory=True, desc='.npy of float32 [X, Y, Z] in the box')
    chain_file = File(exists=True, mandatory=True, desc='JSON of the grids')


class _ToInputGridOutputSpec(TraitedSpec):
    labels_file = File(desc="one value per lesion, on the scan's own grid")
    probability_file = File(desc="mean probability, on the scan's own grid")
    sd_file = File(desc="standard deviation of the folds, on the scan's own grid")
    brain_file = File(desc="brain mask, on the scan's own grid")
    zones_file = File(desc="zones of the brain, on the scan's own grid")


class ToInputGrid(ScanInterface):
    """Bring every map back to the grid of the scan; no lesion is lost on thick slices."""

    input_spec = _ToInputGridInputSpec
    output_spec = _ToInputGridOutputSpec

    def _run(self, cwd: Path) -> None:
        inputs = self.inputs
        chain = SpatialChain.from_dict(json.loads(Path(inputs.chain_file).read_text('utf-8')))
        scan = nib.load(inputs.scan_file)
        to_input, shape = chain.box_to_input, chain.input_shape

        def write(name: str, array: npt.NDArray[Any], dtype: type[np.generic]) -> None:
            header = scan.header.copy()
            header.set_data_dtype(dtype)
            path = cwd / f'{name}.nii'
            nib.Nifti1Image(array.astype(dtype, copy=False), scan.affine, header).to_filename(path)
            self._results[f'{name}_file'] = str(path)

        # One at a time: on the grid of the scan each is as large as the scan itself
        mean = np.load(inputs.mean_file)
        labels = np.load(inputs.labels_file)
        write('labels', labels_to_input(labels, mean, to_input, shape), np.uint16)
        write('probability', _floored(probability_to_input(mean, to_input, shape)), np.float32)
        sd = np.load(inputs.sd_file)
        write('sd', _floored(probability_to_input(sd, to_input, shape)), np.float32)
        iso_mask = np.asarray(nib.load(inputs.mask_file).dataobj) > 0
        brain = mask_to_input(iso_mask, chain.iso_to_input, shape)
        write('brain', brain, np.uint8)
        if isdefined(inputs.zones_file):
            iso_zones = np.asarray(nib.load(inputs.zones_file).dataobj)
            write('zones', zones_to_input(iso_zones, chain.iso_to_input, shape) * brain, np.uint8)
