"""Which image of the raw dataset a scan belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from shivacmb.evaluate.evaluation import Facts
from shivacmb.evaluate.facts import find_facts
from shivacmb.evaluate.pairs import find_sources, pair_up


def save(path: Path, sidecar: dict[str, object] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), path)
    if sidecar is not None:
        path.with_name(path.name.replace('.nii.gz', '.json')).write_text(json.dumps(sidecar))


def facts(root: Path, bids_dir: Path | None) -> Facts:
    found = find_sources(root / 'out', 'predictions')
    (known,) = find_facts(pair_up(found, found).pairs, bids_dir=bids_dir, folders=[])
    return known


def test_two_contrasts_of_a_session_are_told_apart_by_sources(tmp_path: Path) -> None:
    raw, out = tmp_path / 'raw', tmp_path / 'out/sub-1/anat'
    save(out / 'sub-1_desc-CMB_dseg.nii.gz')
    for tesla, suffix in ((1.5, 'T2starw'), (3, 'swi')):
        save(raw / f'sub-1/anat/sub-1_{suffix}.nii.gz', {'MagneticFieldStrength': tesla})
    none = facts(tmp_path, raw)
    assert (none.contrast, none.image, none.metadata) == (None, None, {})
    save(out / 'sub-1_desc-CMB_dseg.nii.gz', {'Sources': ['bids:raw:sub-1/anat/sub-1_swi.nii.gz']})
    told = facts(tmp_path, raw)
    assert (told.contrast, told.metadata['MagneticFieldStrength']) == ('swi', 3)
    assert told.image is not None
    assert told.image.name == 'sub-1_swi.nii.gz'


def test_two_preprocessed_contrasts_are_told_apart_by_sources(tmp_path: Path) -> None:
    out = tmp_path / 'out/sub-1/anat'
    save(out / 'sub-1_desc-CMB_dseg.nii.gz')
    for suffix in ('T2starw', 'swi'):
        save(out / f'sub-1_desc-preproc_{suffix}.nii.gz', {'Sources': [f'sub-1_{suffix}.nii.gz']})
    assert facts(tmp_path, None).contrast is None
    save(out / 'sub-1_desc-CMB_dseg.nii.gz', {'Sources': ['sub-1_swi.nii.gz']})
    assert facts(tmp_path, None).contrast == 'swi'


def test_run_that_is_not_there_is_not_the_other(tmp_path: Path) -> None:
    raw, out = tmp_path / 'raw/sub-1/anat', tmp_path / 'out/sub-1/anat'
    save(out / 'sub-1_run-2_desc-CMB_dseg.nii.gz')
    save(raw / 'sub-1_run-1_T2starw.nii.gz', {'MagneticFieldStrength': 3})
    assert facts(tmp_path, tmp_path / 'raw').image is None
    # more entities than the prediction has, and none that differs
    save(raw / 'sub-1_acq-a_run-2_echo-3_T2starw.nii.gz', {'MagneticFieldStrength': 1.5})
    assert facts(tmp_path, tmp_path / 'raw').metadata['MagneticFieldStrength'] == 1.5


def test_table_without_zeros_has_its_people_and_scans(tmp_path: Path) -> None:
    raw, table = tmp_path / 'raw', tmp_path / 'truth.tsv'
    for label in ('01', '10'):
        save(tmp_path / f'out/sub-{label}/ses-02/anat/sub-{label}_ses-02_desc-CMB_dseg.nii.gz')
        name = f'sub-{label}_ses-02_acq-a_T2starw.nii.gz'
        save(raw / f'sub-{label}/ses-02/anat/{name}', {'MagneticFieldStrength': 3})
    (raw / 'participants.tsv').write_text('participant_id\tsite\nsub-01\tA\nsub-10\tB\n')
    table.write_text('participant_id\tsession_id\tcount\n1\t2\t1\n10\t2\t1\n')
    files, rows = find_sources(tmp_path / 'out', 'predictions'), find_sources(table, 'truth')
    for pred, truth in ((files, rows), (rows, files)):
        known = find_facts(pair_up(pred, truth).pairs, bids_dir=raw, folders=[])
        assert [item.person.get('site') for item in known] == ['A', 'B']
        assert [item.contrast for item in known] == ['T2starw', 'T2starw']
        assert [item.metadata.get('MagneticFieldStrength') for item in known] == [3, 3]
