"""Nodes for step 5: the brain mask on the isotropic grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from shivacmb.exceptions import DataError
from shivacmb.imaging import (
    background_mask,
    is_skull_stripped,
    reorient_to_std,
    resample_isotropic,
    same_grid,
)
from shivacmb.interfaces.base import ScanInterface

MIN_BRAIN_ML = 100.0


def check_brain(mask: np.ndarray, voxel_ml: float, source: str) -> None:
    """Refuse a mask that cannot be a brain.

    Parameters
    ----------
    mask : [X, Y, Z] bool ndarray
        Brain mask on an isotropic grid.
    voxel_ml : float
        Volume of a voxel in millilitres.
    source : str
        Where the mask comes from, for the message.

    Raises
    ------
    DataError
        If it covers less than 100 mL; the smallest adult brains measure about 900 mL, and a slab
        that shows a ninth of one cannot be counted.
    """
    volume = float(mask.sum()) * voxel_ml
    if volume < MIN_BRAIN_ML:
        raise DataError(
            f'the brain mask ({source}) covers only {volume:.0f} mL; look at the scan, and give a '
            'mask with --brain-mask or --derivatives, or choose another with --mask'
        )


class _MaskOutputSpec(TraitedSpec):
    mask_file = File(desc='brain mask on the isotropic grid, uint8')
    method = traits.Str(desc='how the mask came about')


def _save_like(mask: np.ndarray, image: nib.Nifti1Image, path: Path) -> None:
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    nib.Nifti1Image(mask.astype(np.uint8), image.affine, header).to_filename(path)


class _GivenMaskInputSpec(BaseInterfaceInputSpec):
    scan_file = File(exists=True, mandatory=True, desc='the checked scan on its own grid')
    iso_file = File(exists=True, mandatory=True, desc='reoriented isotropic image')
    given_file = File(mandatory=True, desc='a brain mask on the grid of the scan')
    voxel_mm = traits.Float(1.0, usedefault=True, desc='isotropic voxel size in mm')


class GivenMask(ScanInterface):
    """Bring a precomputed mask onto the isotropic grid, nearest neighbour."""

    input_spec = _GivenMaskInputSpec
    output_spec = _MaskOutputSpec

    def _run(self, cwd: Path) -> None:
        given = Path(self.inputs.given_file)
        try:
            image = nib.load(given)
            values = np.asarray(image.dataobj)
        except Exception as error:
            raise DataError(
                f'the brain mask <{given}> cannot be read ({error}); replace it or leave it out'
            ) from error
        scan = nib.load(self.inputs.scan_file)
        values = values.reshape(values.shape[:3]) if values.ndim > 3 else values
        if not same_grid(image, scan):
            raise DataError(
                f'the brain mask <{given}> has another grid than its scan: {values.shape} voxels '
                f'against {scan.shape}, or another position in space; resample it to the scan'
            )
        header = scan.header.copy()
        header.set_data_dtype(np.uint8)
        on_scan = nib.Nifti1Image((values > 0).astype(np.uint8), scan.affine, header)
        mask = resample_isotropic(reorient_to_std(on_scan), self.inputs.voxel_mm, 'nearest')
        brain = np.asarray(mask.dataobj) > 0
        check_brain(brain, self.inputs.voxel_mm**3 / 1e3, f'<{given}>')
        _save_like(brain, nib.load(self.inputs.iso_file), cwd / 'mask.nii')
        self._results.update(mask_file=str(cwd / 'mask.nii'), method='given')


class _FoundMaskInputSpec(BaseInterfaceInputSpec):
    iso_file = File(exists=True, mandatory=True, desc='reoriented isotropic image')
    method = traits.Enum(
        'auto', 'builtin', 'background', usedefault=True, desc='auto: background if stripped'
    )
    threads = traits.Int(1, usedefault=True, nohash=True, desc='processor threads')


class FoundMask(ScanInterface):
    """Background of a skull-stripped scan, or the built-in network."""

    input_spec = _FoundMaskInputSpec
    output_spec = _MaskOutputSpec

    def _run(self, cwd: Path) -> None:
        image = nib.load(self.inputs.iso_file)
        array = np.asarray(image.dataobj, dtype=np.float32)
        method = self.inputs.method
        if method == 'auto':
            method = 'background' if is_skull_stripped(array) else 'builtin'
        if method == 'background':
            brain = background_mask(array)
        else:
            from shivacmb.models.brain_mask import predict_brain

            brain = predict_brain(image, engine='openvino', threads=self.inputs.threads)
        check_brain(brain, float(np.prod(image.header.get_zooms()[:3])) / 1e3, method)
        _save_like(brain, image, cwd / 'mask.nii')
        self._results.update(mask_file=str(cwd / 'mask.nii'), method=method)


class _ToolMaskInputSpec(BaseInterfaceInputSpec):
    iso_file = File(exists=True, mandatory=True, desc='reoriented isotropic image')
    tool_file = File(exists=True, mandatory=True, desc='mask written by the tool')
    method = traits.Str(mandatory=True, desc='name of the tool')


class ToolMask(ScanInterface):
    """Check the mask of an outside tool and store it like the others."""

    input_spec = _ToolMaskInputSpec
    output_spec = _MaskOutputSpec

    def _run(self, cwd: Path) -> None:
        image = nib.load(self.inputs.iso_file)
        brain = np.asarray(nib.load(self.inputs.tool_file).dataobj) > 0
        if brain.shape != image.shape:
            raise DataError(
                f'{self.inputs.method} returned a mask of {brain.shape} voxels for an image of '
                f'{image.shape}; choose another --mask'
            )
        check_brain(brain, float(np.prod(image.header.get_zooms()[:3])) / 1e3, self.inputs.method)
        _save_like(brain, image, cwd / 'mask.nii')
        self._results.update(mask_file=str(cwd / 'mask.nii'), method=self.inputs.method)
