"""Node for step 12: write everything about one scan."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from shivacmb.bids import (
    ScanRecord,
    read_record,
    retract,
    scan_lock,
    write_record,
    write_scans_table,
    write_text,
)
from shivacmb.imaging import SpatialChain, box_affine
from shivacmb.imaging.zones import zones_table
from shivacmb.interfaces.base import ScanInterface
from shivacmb.interfaces.sidecars import IMAGE_DESCRIPTIONS, image_sidecar
from shivacmb.interfaces.staging import Staging
from shivacmb.lesions import (
    LESION_COLUMNS,
    Lesion,
    group_counts,
    lesion_totals,
    lesions_to_tsv,
)

IMAGE_KEYS = tuple(IMAGE_DESCRIPTIONS)
OUTPUT_KEYS = (
    *IMAGE_KEYS,
    *(f'{key}_json' for key in IMAGE_KEYS),
    'dseg_tsv',
    'zones_tsv',
    'overview',
    'lesions',
    'record',
)
SOURCE_KEYS = ('input_sha256', 'input_size', 'input_mtime_ns', 'input_ctime_ns')
NO_ZONES = (
    'the built-in network sees no brain in this scan, so no zone is known; look at the scan and '
    'its mask'
)
NOT_LEFT_OUT = (
    'there are no zones, so candidates in fluid could not be told from lesions in brain tissue '
    'and are counted'
)


@dataclass(frozen=True)
class ScanFiles:
    """Intermediate files of one scan, as the nodes before left them."""

    scan: Path
    iso: Path
    network: Path
    mask: Path
    labels: Path
    mean: Path
    sd: Path
    brain: Path
    chain: Path
    table: Path
    figures: tuple[Path, ...]
    zones: Path | None = None

    def images(self, chain: SpatialChain) -> dict[str, nib.Nifti1Image]:
        """Return the output images by key, with the types they are stored in."""
        iso = nib.load(self.iso)
        network = np.load(self.network)[..., 0]
        dseg = nib.load(self.labels)
        header = dseg.header.copy()
        header.set_data_dtype(np.uint8)
        mask = (np.asarray(dseg.dataobj) > 0).astype(np.uint8)
        box = nib.Nifti1Image(network, box_affine(iso.affine, chain.placed_box))
        box.header.set_xyzt_units('mm', 'sec')
        images = {
            'preproc': iso,
            'net': box,
            'brain_mask': nib.load(self.brain),
            'probseg': nib.load(self.mean),
            'probseg_sd': nib.load(self.sd),
            'lesion_mask': nib.Nifti1Image(mask, dseg.affine, header),
            'dseg': dseg,
        }
        if self.zones is not None:
            images['zones'] = nib.load(self.zones)
        return images


def write_derivatives(
    files: ScanFiles,
    outputs: dict[str, str],
    facts: dict[str, Any],
    found: dict[str, Any],
    *,
    staging: Path,
    replaces: Sequence[Path] = (),
    out_dir: str = '',
    overwrite: bool = True,
    threads: int = 1,
) -> ScanRecord:
    """Write images, sidecars, lesion table and figures of a scan.

    Parameters
    ----------
    files : ScanFiles
        What to write.
    outputs : dict
        Absolute path for each of ``OUTPUT_KEYS``.
    facts : dict
        ``ScanPlan.facts``.
    found : dict
        ``mask_method``, ``warnings``, ``voxels_outside``, ``left_out`` and ``prediction`` (library
        and device) of this run, and of the file that it read ``input_sha256``, ``input_size`` and
        times.
    staging : Path
        Scratch folder on the same file system as the outputs.
    replaces : sequence of Path
        Files of earlier runs, removed once everything new is on the disk.
    out_dir : str
        Root of the BIDS derivatives whose tables get the row; '' for a single file.
    overwrite : bool
        Write also what another run has finished meanwhile with the same settings.
    threads : int
        Compression threads.

    Returns
    -------
    ScanRecord
        As written, last of all: a scan without a record is not finished.
    """
    chain = SpatialChain.from_dict(json.loads(files.chain.read_text('utf-8')))
    lesions = [Lesion(**row) for row in json.loads(files.table.read_text('utf-8'))]
    found = {**found, 'chain': chain.to_dict()}
    totals = lesion_totals(lesions)
    groups: dict[str, int] = {}
    mask = np.asarray(nib.load(files.mask).dataobj)
    if found['voxels_outside']:
        share = 100 * found['voxels_outside'] / np.count_nonzero(mask)
        warning = (
            f'{found["voxels_outside"]} voxels of the brain ({share:.1f} %) lie outside the box '
            'of the network; lesions there are not found'
        )
        found = {**found, 'warnings': [*found['warnings'], warning]}
    if files.zones is not None:
        if not np.asarray(nib.load(files.zones).dataobj).any():
            found = {**found, 'warnings': [*found['warnings'], NO_ZONES]}
        else:
            groups = {f'cmb_{name}': n for name, n in group_counts(lesions).items()}
    if found['left_out'] < 0 and facts['parameters']['min_parenchyma']:
        found = {**found, 'warnings': [*found['warnings'], NOT_LEFT_OUT]}
    record = ScanRecord(
        **{
            **facts['record'],
            'status': 'ok',
            **{key: found[key] for key in SOURCE_KEYS if key in found},
            'cmb_count': totals.count,
            'cmb_volume_mm3': totals.volume_mm3,
            'burden_class': totals.burden_class,
            **groups,
            'cmb_left_out': found['left_out'] if found['left_out'] >= 0 else None,
            'engine': found['prediction']['engine'],
            'brain_mask': found['mask_method'],
            'mask_volume_ml': float((mask > 0).sum()) * facts['parameters']['voxel_mm'] ** 3 / 1e3,
            'brain_voxels_outside_box': found['voxels_outside'],
            'warnings': tuple(found['warnings']),
        }
    )
    with Staging(staging) as stage:
        images = files.images(chain)
        stage.images({Path(outputs[key]): image for key, image in images.items()}, threads)
        for key in images:
            sidecar = image_sidecar(key, facts, found, LESION_COLUMNS)
            stage.json(Path(outputs[f'{key}_json']), sidecar)
        stage.text(Path(outputs['dseg_tsv']), lesions_to_tsv(lesions))
        if files.zones is not None:
            stage.text(Path(outputs['zones_tsv']), zones_table())
        # A scan without lesions has no second picture
        for key, picture in zip(('overview', 'lesions'), files.figures, strict=False):
            shutil.copyfile(picture, stage.place(Path(outputs[key])))
        stage.sync()
        lock = scan_lock(out_dir, record.stem) if out_dir else contextlib.nullcontext()
        with lock:
            if overwrite or not _finished_elsewhere(record, outputs, images):
                _put_in_place(stage, record, outputs, replaces, out_dir)
    return record


def _finished_elsewhere(
    record: ScanRecord, outputs: dict[str, str], images: dict[str, nib.Nifti1Image]
) -> bool:
    """Tell whether another run has written the same, since this one began."""
    other = read_record(Path(outputs['record']))
    keys = (*images, *(f'{key}_json' for key in images), 'dseg_tsv')
    return (
        other is not None
        and other.status == 'ok'
        and other.settings_hash == record.settings_hash
        and other.contrast == record.contrast
        and other.input_sha256 == record.input_sha256
        and all(Path(outputs[key]).exists() for key in keys)
    )


def _put_in_place(
    stage: Staging,
    record: ScanRecord,
    outputs: dict[str, str],
    replaces: Sequence[Path],
    out_dir: str,
) -> None:
    """Move the files of a scan to their places and say that it is done."""
    if out_dir:
        retract(out_dir, record)
    for path in replaces:
        path.unlink(missing_ok=True)
    stage.commit()
    if out_dir:
        write_record(out_dir, record)
        write_scans_table(out_dir, record.participant, record.session)
    else:
        content = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True) + '\n'
        write_text(Path(outputs['record']), content)


class _WriteDerivativesInputSpec(BaseInterfaceInputSpec):
    scan_file = File(exists=True, mandatory=True, desc='the checked scan on its own grid')
    iso_file = File(exists=True, mandatory=True, desc='reoriented isotropic image')
    network_file = File(exists=True, mandatory=True, desc="the network's input, .npy")
    mask_file = File(exists=True, mandatory=True, desc='brain mask on the isotropic grid')
    labels_file = File(exists=True, mandatory=True, desc='lesions on the grid of the scan')
    mean_file = File(exists=True, mandatory=True, desc='probability on the grid of the scan')
    sd_file = File(exists=True, mandatory=True, desc='fold SD on the grid of the scan')
    brain_file = File(exists=True, mandatory=True, desc='brain mask on the grid of the scan')
    zones_file = File(exists=True, desc='zones of the brain on the grid of the scan')
    chain_file = File(exists=True, mandatory=True, desc='JSON of the grids')
    table_file = File(exists=True, mandatory=True, desc='JSON list of lesions')
    figures = traits.List(File(exists=True), mandatory=True, desc='overview, then lesions')
    mask_method = traits.Str(mandatory=True, desc='how the mask came about')
    warnings = traits.List(traits.Str, mandatory=True, desc='what a user should know')
    voxels_outside = traits.Int(mandatory=True, desc='voxels of brain outside the box')
    left_out = traits.Int(mandatory=True, desc='candidates left out, -1 where not known')
    prediction = traits.Dict(mandatory=True, desc='library, device and arithmetic of the networks')
    source = traits.Dict(mandatory=True, desc='checksum, size and times of the scan as read')
    outputs = traits.Dict(mandatory=True, desc='absolute path for each output key')
    facts = traits.Dict(mandatory=True, desc='what was known before the run')
    out_dir = traits.Str(
        '', usedefault=True, desc='root of the BIDS derivatives; empty for a single file'
    )
    staging = traits.Str(mandatory=True, desc='scratch folder beside the outputs')
    replaces = traits.List(
        traits.Str, [], usedefault=True, desc='files of earlier runs to remove first'
    )
    overwrite = traits.Bool(
        False,
        usedefault=True,
        desc='write also what another run has finished meanwhile',
    )
    threads = traits.Int(1, usedefault=True, nohash=True, desc='compression threads')


class _WriteDerivativesOutputSpec(TraitedSpec):
    record = traits.Dict(desc='the row of the scan')


class WriteDerivatives(ScanInterface):
    """Write all outputs of a scan, whole or not at all."""

    input_spec = _WriteDerivativesInputSpec
    output_spec = _WriteDerivativesOutputSpec

    def _run(self, cwd: Path) -> None:  # noqa: ARG002  everything goes to the outputs
        inputs = self.inputs
        files = ScanFiles(
            scan=Path(inputs.scan_file),
            iso=Path(inputs.iso_file),
            network=Path(inputs.network_file),
            mask=Path(inputs.mask_file),
            labels=Path(inputs.labels_file),
            mean=Path(inputs.mean_file),
            sd=Path(inputs.sd_file),
            brain=Path(inputs.brain_file),
            chain=Path(inputs.chain_file),
            table=Path(inputs.table_file),
            figures=tuple(Path(path) for path in inputs.figures),
            zones=Path(inputs.zones_file) if isdefined(inputs.zones_file) else None,
        )
        found = {
            **inputs.source,
            'mask_method': inputs.mask_method,
            'warnings': [*inputs.facts.get('warnings', []), *inputs.warnings],
            'voxels_outside': inputs.voxels_outside,
            'left_out': inputs.left_out,
            'prediction': dict(inputs.prediction),
        }
        record = write_derivatives(
            files,
            inputs.outputs,
            inputs.facts,
            found,
            staging=Path(inputs.staging),
            replaces=[Path(path) for path in inputs.replaces],
            out_dir=inputs.out_dir,
            overwrite=inputs.overwrite,
            threads=inputs.threads,
        )
        self._results['record'] = dataclasses.asdict(record)
