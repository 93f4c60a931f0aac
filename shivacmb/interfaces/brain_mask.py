"""Nodes for step 5: the brain mask and its zones on the isotropic grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging import (
    background_mask,
    changed,
    check_brain,
    given_mask,
    read_mask,
    read_source,
)
from shivacmb.interfaces.base import ScanInterface
from shivacmb.models.service import BRAIN, request_prediction

if TYPE_CHECKING:
    from shivacmb.models.brain_mask import BrainMaps


class _MaskInputSpec(BaseInterfaceInputSpec):
    iso_file = File(exists=True, mandatory=True, desc='reoriented isotropic image')
    zones = traits.Bool(False, usedefault=True, desc='also find the zones of the brain')
    threads = traits.Int(1, usedefault=True, nohash=True, desc='processor threads')
    service = traits.Str(
        '', usedefault=True, nohash=True, desc='address of a process that holds the network'
    )


class _MaskOutputSpec(TraitedSpec):
    mask_file = File(desc='brain mask on the isotropic grid, uint8')
    zones_file = File(desc='zones in the mask, uint8; all 0 where the network sees no brain')
    method = traits.Str(desc='how the mask came about')


def _save_like(mask: np.ndarray, image: nib.Nifti1Image, path: Path) -> None:
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    nib.Nifti1Image(mask.astype(np.uint8), image.affine, header).to_filename(path)


class _Mask(ScanInterface):
    """What the three ways to a mask share: to check and store it, with its zones."""

    output_spec = _MaskOutputSpec

    def _look(self, cwd: Path, image: nib.Nifti1Image) -> BrainMaps:
        """Run the network, here or in the process that holds it."""
        from shivacmb.models.brain_mask import find_brain

        service = self.inputs.service

        def ask(field: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            np.save(cwd / 'head.npy', field[..., np.newaxis])
            request_prediction(service, cwd / 'head.npy', cwd / 'brain.npy', BRAIN)
            folds = np.load(cwd / 'brain.npy')
            return np.asarray(folds[0] if len(folds) == 1 else folds.mean(axis=0))

        return find_brain(
            image,
            engine='openvino',
            threads=self.inputs.threads,
            predict=ask if service else None,
        )

    def _store(
        self,
        cwd: Path,
        brain: np.ndarray,
        image: nib.Nifti1Image,
        method: str,
        *,
        source: str | None = None,
        maps: BrainMaps | None = None,
    ) -> None:
        check_brain(brain, float(image.header.get_zooms()[0]), source or method)
        _save_like(brain, image, cwd / 'mask.nii')
        self._results.update(mask_file=str(cwd / 'mask.nii'), method=method)
        if not self.inputs.zones:
            return
        try:
            zones = (maps or self._look(cwd, image)).zones(brain)
        except ModelError:
            # a damaged network says nothing about the scan
            raise
        except DataError:
            # the mask is someone else's and good; only the names of the places are lost
            zones = np.zeros(brain.shape, np.uint8)
        _save_like(zones, image, cwd / 'zones.nii')
        self._results['zones_file'] = str(cwd / 'zones.nii')


class _GivenMaskInputSpec(_MaskInputSpec):
    scan_file = File(exists=True, mandatory=True, desc='the checked scan on its own grid')
    given_file = File(mandatory=True, desc='a brain mask on the grid of the scan')
    sha256 = traits.Str('', usedefault=True, desc='checksum that the mask had; empty: any')
    voxel_mm = traits.Float(1.0, usedefault=True, desc='isotropic voxel size in mm')


class GivenMask(_Mask):
    """Bring a precomputed mask onto the isotropic grid, nearest neighbour."""

    input_spec = _GivenMaskInputSpec

    def _run(self, cwd: Path) -> None:
        path = Path(self.inputs.given_file)
        voxel_mm = self.inputs.voxel_mm
        mask = read_mask(path)
        # The settings of the run are known by this checksum, so the mask must still be that one
        if self.inputs.sha256 not in ('', read_source(path)[1].sha256):
            raise changed(path)
        brain = given_mask(mask, nib.load(self.inputs.scan_file), voxel_mm, f'<{path}>')
        self._store(cwd, brain, nib.load(self.inputs.iso_file), 'given', source=f'<{path}>')


class _FoundMaskInputSpec(_MaskInputSpec):
    method = traits.Enum(
        'auto', 'builtin', 'background', usedefault=True, desc='auto: background if stripped'
    )


class FoundMask(_Mask):
    """Background of a skull-stripped scan, or the built-in network."""

    input_spec = _FoundMaskInputSpec

    def _run(self, cwd: Path) -> None:
        image = nib.load(self.inputs.iso_file)
        array = np.asarray(image.dataobj, dtype=np.float32)
        method = self.inputs.method
        if method == 'auto':
            from shivacmb.models.brain_mask import find_mask

            sizes = image.header.get_zooms()[:3]
            mask, method, maps = find_mask(array, sizes, lambda: self._look(cwd, image))
            self._store(cwd, mask, image, method, maps=maps)
        elif method == 'background':
            self._store(cwd, background_mask(array), image, method)
        else:
            maps = self._look(cwd, image)
            self._store(cwd, maps.mask(), image, method, maps=maps)


class _ToolMaskInputSpec(_MaskInputSpec):
    tool_file = File(exists=True, mandatory=True, desc='mask written by the tool')
    method = traits.Str(mandatory=True, desc='name of the tool')


class ToolMask(_Mask):
    """Check the mask of an outside tool and store it like the others."""

    input_spec = _ToolMaskInputSpec

    def _run(self, cwd: Path) -> None:
        image = nib.load(self.inputs.iso_file)
        brain = np.asarray(nib.load(self.inputs.tool_file).dataobj) > 0
        if brain.shape != image.shape:
            raise DataError(
                f'{self.inputs.method} returned a mask of {brain.shape} voxels for an image of '
                f'{image.shape}; choose another --mask'
            )
        self._store(cwd, brain, image, self.inputs.method)
