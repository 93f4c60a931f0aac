from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from shivacmb.bids import (
    ScanRecord,
    clear_outputs,
    file_facts,
    find_scans,
    is_finished,
    output_path,
    output_paths,
    read_record,
    record_path,
    remove_stale,
    replacing,
    run_folder,
    run_folders,
    settings_hash,
    write_dataset_description,
    write_group,
    write_record,
    write_scans_table,
    write_text,
)
from shivacmb.bids.tables import cell, render
from shivacmb.exceptions import NoInputError, OutputError


@pytest.fixture
def scan(dataset):
    return find_scans(dataset('sub-01/ses-1/anat/sub-01_ses-1_T2starw.nii.gz')).scans[0]


def test_output_names_are_those_of_the_design(scan, tmp_path):
    names = {
        key: path.relative_to(tmp_path).as_posix()
        for key, path in output_paths(tmp_path, scan).items()
        if not key.endswith('_json')
    }
    anat = 'sub-01/ses-1/anat/sub-01_ses-1_'
    assert names == {
        'preproc': f'{anat}desc-preproc_T2starw.nii.gz',
        'net': f'{anat}res-net_desc-preproc_T2starw.nii.gz',
        'brain_mask': f'{anat}desc-brain_mask.nii.gz',
        'probseg': f'{anat}label-CMB_probseg.nii.gz',
        'probseg_sd': f'{anat}label-CMB_desc-ensSD_probseg.nii.gz',
        'lesion_mask': f'{anat}label-CMB_mask.nii.gz',
        'zones': f'{anat}desc-zones_dseg.nii.gz',
        'zones_tsv': 'desc-zones_dseg.tsv',
        'dseg': f'{anat}desc-CMB_dseg.nii.gz',
        'dseg_tsv': f'{anat}desc-CMB_dseg.tsv',
        'record': 'logs/sub-01/sub-01_ses-1.json',
        'overview': 'docs/figures/sub-01/sub-01_ses-1_overview.png',
        'lesions': 'docs/figures/sub-01/sub-01_ses-1_lesions.png',
    }


def test_record_round_trip(scan, tmp_path):
    record = ScanRecord.of(
        scan, status='ok', cmb_count=0, cmb_volume_mm3=0.0, warnings=('w',), extra={'x': 1}
    )
    write_record(tmp_path, record)
    assert read_record(record_path(tmp_path, scan)) == record


def test_not_a_number_becomes_null_and_n_a(scan, tmp_path):
    write_record(tmp_path, ScanRecord.of(scan, status='ok', mask_volume_ml=float('nan')))
    back = read_record(record_path(tmp_path, scan))
    assert back is not None
    assert back.mask_volume_ml is None


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (None, 'n/a'),
        (float('inf'), 'n/a'),
        ('', 'n/a'),
        ('a\tb\nc', 'a b c'),
        (True, 'true'),
        (2.0, '2'),
        (0.1 + 0.2, '0.3'),
        (np.float64(0.7473684), '0.747368'),
        (np.float64(3.0), '3'),
        (1400123.25, '1400123.25'),
        (('a', 'b'), 'a; b'),
        ((), 'n/a'),
        ('"A', "'A"),
        (' "A" or "B"', "'A' or 'B'"),
        ('3" head', '3" head'),
    ],
)
def test_cells(value, text):
    assert cell(value) == text


def test_tables_with_quotes_have_their_rows_for_readers_that_unquote():
    text = render([{'site': '"A', 'n': 1}, {'site': 'B', 'n': 2}, {'site': '3" C', 'n': 3}],
                  ['site', 'n'])  # fmt: skip
    rows = list(csv.reader(io.StringIO(text), delimiter='\t'))
    assert rows == [['site', 'n'], ["'A", '1'], ['B', '2'], ['3" C', '3']]


def test_settings_hash_ignores_the_order_of_keys_and_nothing_else():
    first = settings_hash({'a': 1, 'b': {'c': 0.4, 'd': 3}})
    assert first == settings_hash({'b': {'d': 3, 'c': 0.4}, 'a': 1})
    assert first != settings_hash({'a': 1, 'b': {'c': 0.5, 'd': 3}})


def test_finished_means_same_settings_same_input_and_all_files(scan, tmp_path):
    def finish(settings):
        for key in ('dseg', 'dseg_tsv', 'dseg_json'):
            write_text(output_paths(tmp_path, scan)[key], 'x')
        facts = file_facts(scan.path)
        write_record(tmp_path, ScanRecord.of(scan, status='ok', settings_hash=settings, **facts))

    assert not is_finished(tmp_path, scan, 'a')
    finish('a')
    assert is_finished(tmp_path, scan, 'a')
    assert not is_finished(tmp_path, scan, 'b')
    other = 'swi' if scan.contrast == 'T2starw' else 'T2starw'
    assert not is_finished(tmp_path, replace(scan, contrast=other), 'a'), 'a sidecar came later'
    os.utime(scan.path, (1, 1))
    assert is_finished(tmp_path, scan, 'a'), 'a copied file has the same checksum'
    scan.path.write_text('changed')
    assert not is_finished(tmp_path, scan, 'a')
    finish('a')
    output_paths(tmp_path, scan)['dseg_tsv'].unlink()
    assert not is_finished(tmp_path, scan, 'a')


def test_a_failed_scan_is_not_finished_and_says_why_in_its_sidecar(scan, tmp_path):
    record = ScanRecord.of(scan, status='failed', reason='all zero', settings_hash='a')
    write_record(tmp_path, record)
    assert not is_finished(tmp_path, scan, 'a')
    note = json.loads(output_paths(tmp_path, scan)['dseg_json'].read_text())
    assert note['Description'] == 'No result for this scan: all zero'


def test_clearing_removes_what_another_suffix_left(scan, tmp_path):
    other = output_path(tmp_path, scan, suffix='swi', desc='preproc')
    for path in (*output_paths(tmp_path, scan).values(), other):
        write_text(path, 'x')
    clear_outputs(tmp_path, scan)
    assert [path for path in tmp_path.rglob('sub-01_*') if path.is_file()] == [scan.path]


def _finish(job):
    out, number = job
    record = ScanRecord(
        participant='01',
        session=None,
        stem=f'sub-01_run-{number}',
        filename=f'anat/sub-01_run-{number}_desc-CMB_dseg.nii.gz',
        status='ok',
        cmb_count=number,
    )
    write_record(out, record)
    write_scans_table(out, '01', None)
    write_dataset_description(out, bids_dir=out, version='1')


def test_processes_that_finish_scans_of_one_session_at_once_lose_no_row(tmp_path):
    with multiprocessing.get_context('fork').Pool(4) as pool:
        pool.map(_finish, [(tmp_path, number) for number in range(40)], chunksize=1)
    lines = (tmp_path / 'sub-01/sub-01_scans.tsv').read_text().splitlines()
    assert len(lines) == 41
    assert not list(tmp_path.rglob('.tmp-*'))


def test_a_table_that_another_process_overwrites_with_an_old_one_is_written_again(
    scan, tmp_path, monkeypatch
):
    """The slow process writes what it read before the fast one added its record."""
    from shivacmb.bids import tables

    write_record(tmp_path, ScanRecord.of(scan, status='ok', cmb_count=1))
    plain = tables.read_records
    calls = []

    def slow(out_dir, participant):
        records = plain(out_dir, participant)
        if not calls:
            late = ScanRecord('01', '1', 'sub-01_ses-1_run-2', 'anat/x', 'ok')
            write_record(tmp_path, late)
        calls.append(1)
        return records

    monkeypatch.setattr(tables, 'read_records', slow)
    table = write_scans_table(tmp_path, '01', '1')
    assert table is not None
    assert 'anat/x' in table.read_text()


def test_writing_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / 'file.txt'
    assert write_text(path, 'old')
    assert not write_text(path, 'old')

    def fail():
        with replacing(path) as temporary:
            temporary.write_text('half')
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == 'old'
    assert [item.name for item in tmp_path.iterdir()] == ['file.txt']


def test_what_cannot_be_written_is_said_with_the_path(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(OutputError, match=r'cannot write <.*file/inner.txt>'):
        write_text(tmp_path / 'file' / 'inner.txt', 'x')


def test_files_of_killed_processes_are_removed_and_of_living_ones_kept(tmp_path):
    code = (
        'import os, sys, pathlib; from shivacmb.bids import replacing\n'
        'with replacing(pathlib.Path(sys.argv[1])) as t: t.write_text("half"); os._exit(9)'
    )
    subprocess.run([sys.executable, '-c', code, str(tmp_path / 'a.txt')], check=False)
    with replacing(tmp_path / 'b.txt') as mine:
        mine.write_text('half')
        removed = remove_stale(tmp_path)
        assert mine.exists()
    assert [path.name[-6:] for path in removed] == ['-a.txt']
    assert [path.name for path in tmp_path.iterdir()] == ['b.txt']


def test_description_names_container_and_source_and_is_written_once(
    dataset, tmp_path, monkeypatch
):
    raw = dataset('sub-01/anat/sub-01_swi.nii.gz')
    (raw / 'dataset_description.json').write_text('{"DatasetDOI": "doi:10.0/x"}')
    monkeypatch.setenv('APPTAINER_CONTAINER', '/images/shivacmb_1.0.sif')
    monkeypatch.delenv('SHIVACMB_CONTAINER_TAG', raising=False)
    written = write_dataset_description(tmp_path / 'out', bids_dir=raw, version='1.0')
    assert len(written) == 5
    assert write_dataset_description(tmp_path / 'out', bids_dir=raw, version='1.0') == []
    content = json.loads((tmp_path / 'out/dataset_description.json').read_text())
    assert content['GeneratedBy'][0]['Container'] == {
        'Type': 'apptainer',
        'Tag': 'shivacmb_1.0.sif',
    }
    assert content['SourceDatasets'] == [{'URL': raw.as_uri(), 'DOI': 'doi:10.0/x'}]
    assert content['DatasetLinks'] == {'raw': raw.as_uri()}


def test_group_of_nothing(tmp_path):
    message = r'no results in <.*>; run the participant level first'
    with pytest.raises(NoInputError, match=message):
        write_group(tmp_path)
    # folders of participants without a run's logs are somebody's dataset
    (tmp_path / 'sub-01/anat').mkdir(parents=True)
    with pytest.raises(NoInputError, match=message):
        write_group(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['sub-01']
    (tmp_path / 'logs').mkdir()
    assert write_group(tmp_path).scans == 0
    with pytest.raises(NoInputError, match='is no folder'):
        write_group(tmp_path / 'absent')


def test_the_package_is_light_to_import():
    code = (
        'import sys, shivacmb.bids\n'
        'bad = {"bids", "pandas", "numpy", "nibabel"} & set(sys.modules)\n'
        'sys.exit(",".join(bad) if bad else 0)'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_where_runs_leave_their_logs(tmp_path):
    one = run_folder(tmp_path, 'run-2', {'01'})
    several = run_folder(tmp_path, 'run-1', {'01', '02'})
    assert one == tmp_path / 'logs' / 'sub-01' / 'run-2'
    assert several == tmp_path / 'logs' / 'run-1'
    # arrays with several participants per task: a thousand folders at most in each
    tasks = [run_folder(tmp_path, f'run-3{n}', {'01', '02'}, ('88', n)) for n in (0, 999, 1000)]
    assert [path.parent for path in tasks] == [
        tmp_path / 'logs' / name for name in ('array-88', 'array-88', 'array-88-1')
    ]
    assert run_folder(tmp_path, 'run-2', {'01'}, ('88', 5)) == one
    for folder in (one, several, *tasks):
        folder.mkdir(parents=True)
    assert sorted(run_folders(tmp_path)) == sorted([several, one, *tasks])
    assert run_folders(tmp_path)[:2] == [several, one]


def test_the_names_of_zones_belong_to_all_scans(scan, tmp_path):
    paths = output_paths(tmp_path, scan)
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    clear_outputs(tmp_path, scan)
    assert [key for key, path in paths.items() if path.exists()] == ['zones_tsv']
