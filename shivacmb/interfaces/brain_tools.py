"""Brain extraction by programs of others, where they are installed."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import CommandLine, CommandLineInputSpec, File, TraitedSpec, traits


class _SynthStripInputSpec(CommandLineInputSpec):
    in_file = File(exists=True, mandatory=True, argstr='-i %s', desc='image')
    mask_file = File(
        'synthstrip_mask.nii.gz', usedefault=True, argstr='-m %s', desc='mask to write'
    )
    threads = traits.Int(1, usedefault=True, nohash=True, argstr='-t %d', desc='threads')


class _SynthStripOutputSpec(TraitedSpec):
    mask_file = File(exists=True, desc='brain mask')


class SynthStrip(CommandLine):
    """FreeSurfer's ``mri_synthstrip`` (Hoopes 2022), when it is installed.

    Examples
    --------
    >>> from pathlib import Path
    >>> image = Path('isotropic.nii'); image.touch()
    >>> SynthStrip(in_file=str(image.absolute()), threads=2).cmdline  # doctest: +ELLIPSIS
    'mri_synthstrip -i ...isotropic.nii -m synthstrip_mask.nii.gz -t 2'
    """

    _cmd = 'mri_synthstrip'
    input_spec = _SynthStripInputSpec
    output_spec = _SynthStripOutputSpec

    def _list_outputs(self) -> dict[str, str]:
        return {'mask_file': str(Path(self.inputs.mask_file).absolute())}


class _HDBetInputSpec(CommandLineInputSpec):
    in_file = File(exists=True, mandatory=True, argstr='-i %s', desc='image')
    out_file = File(
        'brain.nii.gz', usedefault=True, argstr='-o %s', desc='brain-extracted image to write'
    )
    device = traits.Enum('cpu', 'cuda', usedefault=True, argstr='-device %s', desc='where to run')
    save_mask = traits.Bool(
        True,
        usedefault=True,
        argstr='--save_bet_mask',
        desc='write the mask beside the image',
    )
    disable_tta = traits.Bool(
        True,
        usedefault=True,
        argstr='--disable_tta',
        desc='no mirroring at test time',
    )


class _HDBetOutputSpec(TraitedSpec):
    mask_file = File(exists=True, desc='brain mask')


class HDBet(CommandLine):
    """HD-BET 2 (Isensee 2019), when it is installed.

    Examples
    --------
    >>> from pathlib import Path
    >>> image = Path('isotropic.nii'); image.touch()
    >>> HDBet(in_file=str(image.absolute())).cmdline  # doctest: +ELLIPSIS
    'hd-bet -device cpu --disable_tta -i ...isotropic.nii -o brain.nii.gz --save_bet_mask'
    """

    _cmd = 'hd-bet'
    input_spec = _HDBetInputSpec
    output_spec = _HDBetOutputSpec

    def _list_outputs(self) -> dict[str, str]:
        # HD-BET names the mask after the image it writes
        name = self.inputs.out_file.removesuffix('.nii.gz') + '_bet.nii.gz'
        return {'mask_file': str(Path(name).absolute())}
