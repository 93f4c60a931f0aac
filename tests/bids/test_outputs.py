"""Outputs as a dataset: names, description, records, tables, group level."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.bids import (
    ScanRecord,
    find_scans,
    output_paths,
    replacing,
    write_absence,
    write_dataset_description,
    write_group,
    write_record,
    write_scans_table,
    write_text,
)

INPUTS = (
    'sub-01/anat/sub-01_acq-a_rec-b_run-01_T2starw.nii.gz',
    'sub-02/ses-1/anat/sub-02_ses-1_swi.nii.gz',
    'sub-02/ses-2/swi/sub-02_ses-2_acq-hi_SWI.nii.gz',
    'sub-02/ses-2/anat/sub-02_ses-2_T2starw.nii.gz',
    'sub-03/anat/sub-03_echo-1_part-mag_MEGRE.nii.gz',
    'sub-03/anat/sub-03_echo-2_part-mag_MEGRE.nii.gz',
    'sub-04/anat/sub-04_mod-gre_GRE.nii',
    'sub-05/ses-1/anat/sub-05_ses-1_T2starw.nii.gz',
    'sub-06/swi/sub-06_part-mag_swi.nii.gz',
)


def write_image(path: Path) -> None:
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
    image.header.set_xyzt_units('mm')
    with replacing(path) as temporary:
        nib.save(image, temporary)


def write_outputs(out: Path, scan) -> None:
    paths = output_paths(out, scan)
    for key, path in paths.items():
        if path.name.endswith('.nii.gz'):
            write_image(path)
        elif key.endswith('_json'):
            write_text(path, json.dumps({'SkullStripped': False, 'Resolution': '1 mm'}))
    write_text(paths['dseg_tsv'], 'index\tname\n1\tCMB1\n')
    record = ScanRecord.of(
        scan,
        status='ok',
        cmb_count=2,
        cmb_volume_mm3=31.25,
        burden_class='1-3',
        warnings=('a warning',),
        extra={'cmb_count_lobar': np.int64(1)},
        extra_descriptions={'cmb_count_lobar': {'Description': 'Those in lobes.'}},
    )
    write_record(out, record)
    write_scans_table(out, scan.participant, scan.session)


@pytest.fixture
def derivatives(dataset, tmp_path):
    raw = dataset(*INPUTS)
    out = tmp_path / 'out'
    write_dataset_description(out, bids_dir=raw, version='1.2.3', license_name='CC0')
    scans = find_scans(raw).scans
    for scan in scans:
        if scan.participant == '05':
            write_record(out, ScanRecord.of(scan, status='failed', reason='not a NIfTI'))
            write_scans_table(out, scan.participant, scan.session)
        else:
            write_outputs(out, scan)
    write_absence(out, '07', 'only a T1w image')
    write_group(out)
    return raw, out, scans


def validator() -> str:
    beside = Path(sys.executable).with_name('bids-validator-deno')
    return str(beside) if beside.exists() else shutil.which('bids-validator-deno') or ''


def test_the_bids_validator_finds_no_error_and_pybids_reads_the_outputs(derivatives):
    _, out, scans = derivatives
    # a file that another process is just writing must not matter
    (out / 'sub-01/anat/.tmp-host-1-0123abcd-sub-01_desc-CMB_dseg.nii.gz').write_text('half')
    run = subprocess.run(
        [validator(), str(out), '--json'], capture_output=True, text=True, check=False
    )
    issues = json.loads(run.stdout)['issues']['issues']
    assert [item for item in issues if item['severity'] == 'error'] == []
    allowed = {'SIDECAR_KEY_RECOMMENDED', 'TOO_FEW_AUTHORS'}
    assert {item['code'] for item in issues} <= allowed
    assert run.returncode == 0

    from bids.layout import BIDSLayout

    layout = BIDSLayout(out, validate=False, config=['bids', 'derivatives'])
    maps = layout.get(suffix='dseg', desc='CMB', extension='.nii.gz', return_type='filename')
    assert len(maps) == len([scan for scan in scans if scan.participant != '05'])
    (mask,) = layout.get(subject='03', suffix='mask', label='CMB', extension='.nii.gz')
    assert mask.entities['echo'] == '1'
    assert mask.entities['part'] == 'mag'
    (net,) = layout.get(subject='02', session='1', res='net', extension='.nii.gz')
    assert (net.entities['suffix'], net.entities['desc']) == ('swi', 'preproc')


def test_names_of_scans_never_collide(derivatives):
    _, out, scans = derivatives
    paths = [
        path
        for scan in scans
        for key, path in output_paths(out, scan).items()
        if key != 'zones_tsv'  # one for all
    ]
    assert len({str(path).casefold() for path in paths}) == len(paths)


def test_group_covers_every_scan_and_participant(derivatives):
    _, out, scans = derivatives
    lines = (out / 'group_desc-CMB_counts.tsv').read_text().splitlines()
    header = lines[0].split('\t')
    rows = [dict(zip(header, line.split('\t'), strict=True)) for line in lines[1:]]
    assert [row['scan'] for row in rows] == [scan.stem for scan in scans]
    assert all((out / row['filename']).exists() for row in rows)
    failed = next(row for row in rows if row['status'] == 'failed')
    assert (failed['reason'], failed['cmb_count']) == ('not a NIfTI', 'n/a')
    assert set(header) == set(json.loads((out / 'group_desc-CMB_counts.json').read_text()))

    lines = (out / 'participants.tsv').read_text().splitlines()
    people = {line.split('\t')[0]: line.split('\t')[1:] for line in lines[1:]}
    assert people['sub-02'][:6] == ['ok', '3', '3', '0', '6', '2']
    assert people['sub-05'][0] == 'failed'
    assert people['sub-07'][0] == 'no scan'
    assert people['sub-07'][-1] == 'only a T1w image'

    summary = json.loads((out / 'group_desc-CMB_summary.json').read_text())
    assert summary['scans'] == {
        'total': len(scans),
        'ok': len(scans) - 1,
        'failed': 1,
        'with_microbleeds': len(scans) - 1,
        'prevalence': 1.0,
    }
    assert summary['cmb_count']['median'] == 2.0
    assert summary['burden_classes']['1-3'] == len(scans) - 1


def test_group_twice_writes_the_same_bytes(derivatives):
    _, out, _ = derivatives
    before = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    write_group(out)
    assert {path: path.read_bytes() for path in out.rglob('*') if path.is_file()} == before


def test_group_without_records_reads_the_scan_tables(derivatives):
    _, out, _ = derivatives
    counts = (out / 'group_desc-CMB_counts.tsv').read_text()
    shutil.rmtree(out / 'logs')
    write_group(out)
    assert (out / 'group_desc-CMB_counts.tsv').read_text() == counts


def test_group_passes_over_what_is_half_there(derivatives):
    _, out, scans = derivatives
    (out / 'logs/sub-01/sub-01_acq-z.json').write_text('{"record": "shivacmb-scan/1", "par')
    (out / 'sub-08/anat').mkdir(parents=True)
    (out / 'sub-09').mkdir()
    (out / 'sub-09/sub-09_scans.tsv').write_text('filename\tstatus\tcmb_count\nanat/sub-09_d')
    files = write_group(out)
    assert files.scans == len(scans)
    people = (out / 'participants.tsv').read_text()
    assert 'sub-08\tunfinished' in people
    assert 'sub-09\tunfinished' in people


def test_group_rebuilds_a_scan_table_that_a_killed_process_left_behind(derivatives):
    _, out, _ = derivatives
    table = out / 'sub-01/sub-01_scans.tsv'
    good = table.read_bytes()
    table.write_text('filename\n')
    write_group(out)
    assert table.read_bytes() == good


def test_group_reads_each_record_once_and_no_page(derivatives, tmp_path):
    """Four files and one listing a participant; an audit hook hears every one of them."""
    _, out, scans = derivatives
    write_group(out)
    code = (
        'import os, sys\n'
        'from shivacmb.bids import write_group\n'
        'heard = []\n'
        'wanted = ("open", "os.listdir", "os.scandir")\n'
        'sys.addaudithook(lambda event, args: event in wanted and heard.append(str(args[0])))\n'
        'write_group(sys.argv[1])\n'
        'print("\\n".join(path for path in heard if path.startswith(sys.argv[1])))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(out)], capture_output=True, text=True, check=True
    )
    heard = done.stdout.splitlines()
    assert len(heard) == len(set(heard)), 'something was read twice'
    assert not any('/docs' in path for path in heard)
    records = [path for path in heard if path.endswith('.json') and '/logs/sub-' in path]
    assert len(records) == len(scans) + 1  # and the note on the participant without a scan
    participants = {scan.participant for scan in scans} | {'07'}
    sessions = {(scan.participant, scan.session) for scan in scans}
    own = [path for path in heard if '/sub-' in path]
    # two more: the participant without a record might have had a scan table, and since Python 3.13
    # a folder is listed to learn that it is not there
    assert len(own) <= len(participants) + len(records) + 2 * len(sessions) + 2


def test_a_participant_with_nothing_but_a_log_is_none_of_the_results(derivatives):
    _, out, _ = derivatives
    write_group(out)
    before = (out / 'participants.tsv').read_text()
    (out / 'logs' / 'sub-99' / 'run-20260101T000000Z-000000').mkdir(parents=True)
    write_group(out)
    assert (out / 'participants.tsv').read_text() == before
