"""Nodes for steps 2 to 4 and 6 to 7: check, reorient, resample, crop and scale."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    traits,
)

from shivacmb.exceptions import DataError
from shivacmb.imaging import (
    SpatialChain,
    centred_box,
    changed,
    crop,
    load_scan,
    on_grid_of,
    reorient_to_std,
    resample_isotropic,
    scale_channels,
    voxels_outside,
)
from shivacmb.interfaces.base import ScanInterface


class _CheckImageInputSpec(BaseInterfaceInputSpec):
    in_file = File(mandatory=True, desc='the scan as found, NIfTI, any orientation')


class _CheckImageOutputSpec(TraitedSpec):
    out_file = File(desc='the scan, 3-D float32 and finite, on its own grid')
    warnings = traits.List(traits.Str, desc='what a user should know about this scan')
    source = traits.Dict(desc='checksum, size and times of the file as it was read')


class CheckImage(ScanInterface):
    """Refuse what cannot be a scan, and say why."""

    input_spec = _CheckImageInputSpec
    output_spec = _CheckImageOutputSpec

    def _run(self, cwd: Path) -> None:
        loaded = load_scan(Path(self.inputs.in_file))
        out_file = cwd / 'checked.nii'
        loaded.image.to_filename(out_file)
        self._results.update(
            out_file=str(out_file),
            warnings=list(loaded.warnings),
            source={f'input_{key}': value for key, value in asdict(loaded.source).items()},
        )


class _CheckChannelInputSpec(BaseInterfaceInputSpec):
    in_file = File(mandatory=True, desc='an image of the same acquisition as found')
    sha256 = traits.Str('', usedefault=True, desc='checksum that it must have; empty: any')
    scan_file = File(exists=True, mandatory=True, desc='the checked scan, whose grid it must have')


class _CheckChannelOutputSpec(TraitedSpec):
    out_file = File(desc='the image, 3-D float32 and finite, with the header of the scan')
    warnings = traits.List(traits.Str, desc='what a user should know about this image')


class CheckChannel(ScanInterface):
    """Refuse a further image that does not lie on the grid of the scan."""

    input_spec = _CheckChannelInputSpec
    output_spec = _CheckChannelOutputSpec

    def _run(self, cwd: Path) -> None:
        path = Path(self.inputs.in_file)
        loaded = load_scan(path)
        if self.inputs.sha256 not in ('', loaded.source.sha256):
            raise changed(path)
        out_file = cwd / 'checked_channel.nii'
        scan = nib.load(self.inputs.scan_file)
        on_grid_of(loaded.image, scan, f'<{path}>', 'the scan').to_filename(out_file)
        self._results.update(
            out_file=str(out_file),
            warnings=[f'{path.name}: {warning}' for warning in loaded.warnings],
        )


class _ReorientInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='image in any orientation')


class _ImageOutputSpec(TraitedSpec):
    out_file = File(desc='the resulting image')


class Reorient(ScanInterface):
    """Native equivalent of ``fslreorient2std``."""

    input_spec = _ReorientInputSpec
    output_spec = _ImageOutputSpec

    def _run(self, cwd: Path) -> None:
        out_file = cwd / 'reoriented.nii'
        reorient_to_std(nib.load(self.inputs.in_file)).to_filename(out_file)
        self._results['out_file'] = str(out_file)


class _ResampleInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='image in the MNI axis order')
    voxel_mm = traits.Float(1.0, usedefault=True, desc='isotropic voxel size in mm')
    interpolation = traits.Enum(
        'trilinear', 'nearest', usedefault=True, desc='nearest for masks and labels'
    )


class Resample(ScanInterface):
    """Native equivalent of ``flirt -applyisoxfm VOXEL_MM -noresampblur``."""

    input_spec = _ResampleInputSpec
    output_spec = _ImageOutputSpec

    def _run(self, cwd: Path) -> None:
        out_file = cwd / 'isotropic.nii'
        resample_isotropic(
            nib.load(self.inputs.in_file), self.inputs.voxel_mm, self.inputs.interpolation
        ).to_filename(out_file)
        self._results['out_file'] = str(out_file)


class _NetworkInputInputSpec(BaseInterfaceInputSpec):
    scan_file = File(exists=True, mandatory=True, desc='the checked scan on its own grid')
    std_file = File(exists=True, mandatory=True, desc='the scan in the MNI axis order')
    iso_file = File(exists=True, mandatory=True, desc='reoriented isotropic image')
    channel_files = traits.List(
        File(exists=True),
        [],
        usedefault=True,
        desc='further channels, each resampled as ``iso_file`` was',
    )
    mask_file = File(exists=True, mandatory=True, desc='brain mask on the isotropic grid')
    voxel_mm = traits.Float(1.0, usedefault=True, desc='isotropic voxel size in mm')
    shape = traits.Tuple(
        traits.Int, traits.Int, traits.Int, mandatory=True, desc='box of the network, voxels'
    )
    percentile = traits.Float(99.0, usedefault=True, desc='of the brain, becomes 1')
    clip = traits.Float(1.0, usedefault=True, desc='highest value kept, in units of it')
    divide = traits.Float(1.0, usedefault=True, desc='divisor after the clip')
    masked = traits.Bool(False, usedefault=True, desc='zero outside the brain')
    in_file = traits.Str(mandatory=True, desc='the scan as found, for messages')
    channel_in_files = traits.List(
        traits.Str, [], usedefault=True, desc='further images as found, for messages'
    )


class _NetworkInputOutputSpec(TraitedSpec):
    out_file = File(desc="the network's input, .npy of float32 [X, Y, Z, C] in [0, 1]")
    mask_file = File(desc='brain mask in the box, .npy of bool [X, Y, Z]')
    chain_file = File(desc='JSON of the grids and how they map onto each other')
    voxels_outside = traits.Int(desc='voxels of brain that the box leaves out')


class NetworkInput(ScanInterface):
    """Crop to the box around the brain and scale intensities."""

    input_spec = _NetworkInputInputSpec
    output_spec = _NetworkInputOutputSpec

    def _run(self, cwd: Path) -> None:
        inputs = self.inputs
        mask = np.asarray(nib.load(inputs.mask_file).dataobj) > 0
        chain = SpatialChain.from_images(
            nib.load(inputs.scan_file), nib.load(inputs.std_file), inputs.voxel_mm
        )
        if mask.shape != chain.iso_shape:
            raise DataError(
                f'the isotropic image has {mask.shape} voxels where {chain.iso_shape} were '
                'expected; is this FSL much newer than 6.0? Use --toolkit native'
            )
        box = centred_box(mask, inputs.shape)
        chain = chain.with_box(box)
        network = scale_channels(
            [nib.load(path).dataobj for path in (inputs.iso_file, *inputs.channel_files)],
            mask,
            box,
            names=[f'<{path}>' for path in (inputs.in_file, *inputs.channel_in_files)],
            percentile=inputs.percentile,
            clip=inputs.clip,
            divide=inputs.divide,
            masked=inputs.masked,
        )
        np.save(cwd / 'network_input.npy', network)
        np.save(cwd / 'mask.npy', crop(mask, box))
        (cwd / 'chain.json').write_text(json.dumps(chain.to_dict()), encoding='utf-8')
        self._results.update(
            out_file=str(cwd / 'network_input.npy'),
            mask_file=str(cwd / 'mask.npy'),
            chain_file=str(cwd / 'chain.json'),
            voxels_outside=voxels_outside(mask, box),
        )
