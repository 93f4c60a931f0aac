"""The group level, from what participant runs leave behind."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import ScanRecord, read_records, retract, write_record
from shivacmb.cli.main import main


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return what two runs leave that were killed before they wrote their pages."""
    out = tmp_path / 'out'
    for participant, session in (('01', 'a'), ('01', 'b'), ('02', None)):
        stem = f'sub-{participant}' if session is None else f'sub-{participant}_ses-{session}'
        record = ScanRecord(
            participant=participant,
            session=session,
            stem=stem,
            filename=f'anat/{stem}_desc-CMB_dseg.json',
            status='failed',
            reason='the image is constant',
            contrast='T2starw',
        )
        write_record(out, record)
    return out


def group(out: Path) -> int:
    # the dataset may be gone by then
    return main([str(out.parent / 'absent'), str(out), 'group', '-q'])


def test_pages_that_a_killed_run_did_not_write(out: Path) -> None:
    assert group(out) == 0
    pages = sorted(path.name for path in (out / 'docs').glob('sub-*.html'))
    assert pages == ['sub-01_ses-a.html', 'sub-01_ses-b.html', 'sub-02.html']
    assert 'the image is constant' in (out / 'docs' / 'sub-02.html').read_text()
    index = (out / 'docs' / 'index.html').read_text()
    for page in pages:
        assert f'href="{page}#' in index


@pytest.mark.parametrize('stem', ['sub-02', 'sub-02_run-2'])
def test_no_page_shows_what_a_killed_run_has_replaced(out: Path, stem: str) -> None:
    assert group(out) == 0
    page = out / 'docs' / 'sub-02.html'
    (earlier,) = read_records(out, '02')
    # a scan of another time, or another one of the session; the run was killed before its pages
    later = replace(earlier, stem=stem, reason='the image is 2-D')
    retract(out, later)
    assert not page.exists()
    write_record(out, later)
    assert group(out) == 0
    assert 'the image is 2-D' in page.read_text()
    assert ('the image is constant' in page.read_text()) is (stem != 'sub-02')


def test_a_damaged_picture_stops_nothing(out: Path) -> None:
    picture = out / 'docs' / 'figures' / 'sub-01' / 'sub-01_ses-a_overview.png'
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b'\x89PNG')
    assert group(out) == 0
    assert len(list((out / 'docs').glob('sub-*.html'))) == 3
    assert (out / 'docs' / 'index.html').is_file()


def test_results_that_were_removed_are_in_no_index(out: Path) -> None:
    assert group(out) == 0
    for path in ('sub-02', 'logs/sub-02', 'sub-01/ses-b', 'logs/sub-01/sub-01_ses-b.json'):
        gone = out / path
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert group(out) == 0
    table = (out / 'group_desc-CMB_counts.tsv').read_text().splitlines()
    index = (out / 'docs' / 'index.html').read_text()
    # the pages are still there, and the index has what the table has
    assert len(list((out / 'docs').glob('sub-*.html'))) == 3
    assert [line.split('\t')[2] for line in table[1:]] == ['sub-01_ses-a']
    assert re.findall(r'href="(sub-[^"#]*)', index) == ['sub-01_ses-a.html']


def test_pages_count_where_the_tables_are_all_that_is_left(out: Path) -> None:
    assert group(out) == 0
    shutil.rmtree(out / 'logs')
    assert group(out) == 0
    table = (out / 'group_desc-CMB_counts.tsv').read_text().splitlines()
    index = (out / 'docs' / 'index.html').read_text()
    assert len(table[1:]) == len(re.findall(r'href="sub-[^"#]*', index)) == 3


def test_a_damaged_record_takes_no_scan_out_of_the_tables(out: Path) -> None:
    assert group(out) == 0
    record = out / 'logs/sub-02/sub-02.json'
    record.write_text(record.read_text()[:40])
    assert group(out) == 0
    table = (out / 'group_desc-CMB_counts.tsv').read_text().splitlines()
    index = (out / 'docs' / 'index.html').read_text()
    assert 'sub-02' in [line.split('\t')[2] for line in table[1:]]
    assert 'href="sub-02.html' in index


def test_pages_that_are_there_are_not_written_again(out: Path) -> None:
    (out / 'docs').mkdir()
    kept = out / 'docs' / 'sub-01_ses-a.html'
    kept.write_text('as it was')
    shutil.rmtree(out / 'sub-02')  # removed by the user: it stays so
    assert group(out) == 0
    assert kept.read_text() == 'as it was'
    assert sorted(path.name for path in (out / 'docs').glob('sub-*.html')) == [
        'sub-01_ses-a.html',
        'sub-01_ses-b.html',
    ]


def test_rebuilding_all_pages_makes_no_folder_that_was_removed(out: Path) -> None:
    for path in (out / 'sub-02', out / 'sub-01' / 'ses-b'):
        shutil.rmtree(path)
    assert main([str(out.parent / 'absent'), str(out), 'group', '--reports-only', '-q']) == 0
    assert [path.name for path in (out / 'docs').glob('sub-*.html')] == ['sub-01_ses-a.html']
    assert [path.parent.name for path in out.glob('sub-*/**/*_scans.tsv')] == ['ses-a']
    assert not (out / 'sub-02').exists()


@pytest.mark.parametrize(
    ('changed', 'told'),
    [
        ({}, False),
        ({'threshold': 0.3}, True),
        ({'min_parenchyma': 0.25}, True),
        ({'outline_threshold': 0.3}, True),
        ({'brain_mask': 'bet'}, True),
        ({'brain_mask': 'given'}, True),
        # chosen by the image, not by somebody
        ({'brain_mask': 'background'}, False),
        # each contrast has its own rule; records of earlier versions have none
        ({'min_parenchyma': 0.0, 'contrast': 'swi'}, False),
        ({'min_parenchyma': None, 'contrast': 'swi'}, False),
        ({'min_parenchyma': None}, True),
    ],
)
def test_scans_of_different_settings_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], *, told: bool
) -> None:
    out = tmp_path / 'out'
    for participant, other in (('01', {}), ('02', changed)):
        stem = f'sub-{participant}'
        values: dict[str, Any] = {
            'contrast': 'T2starw', 'threshold': 0.5, 'min_voxels': 2, 'min_parenchyma': 0.5,
            'brain_mask': 'builtin', **other,
        }  # fmt: skip
        record = ScanRecord(
            participant=participant, session=None, stem=stem,
            filename=f'anat/{stem}_desc-CMB_dseg.json', status='ok', reason=None,
            cmb_count=1, cmb_volume_mm3=8.0, burden_class='1-3', **values,
        )  # fmt: skip
        write_record(out, record)
    assert group(out) == 0
    said = capsys.readouterr().err
    assert ('different models, versions or settings were used' in said) is told


def test_scan_tables_of_a_raw_dataset_are_no_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'raw' / 'sub-01'
    folder.mkdir(parents=True)
    table = folder / 'sub-01_scans.tsv'
    table.write_text('filename\tacq_time\nanat/sub-01_T2starw.nii.gz\t1925-01-01T10:00:00\n')
    assert group(tmp_path / 'raw') == 66
    assert 'run the participant level first' in capsys.readouterr().err
    assert not (tmp_path / 'raw' / 'participants.tsv').exists()


def test_a_count_that_is_no_number_is_none(out: Path) -> None:
    assert group(out) == 0
    shutil.rmtree(out / 'logs')
    table = out / 'sub-02' / 'sub-02_scans.tsv'
    header, row = (line.split('\t') for line in table.read_text().splitlines())
    row[header.index('status')], row[header.index('cmb_count')] = 'ok', 'nan'
    table.write_text('\n'.join('\t'.join(line) for line in (header, row)) + '\n')
    assert group(out) == 0
    people = (out / 'participants.tsv').read_text().splitlines()
    assert people[-1].split('\t')[:6] == ['sub-02', 'ok', '1', '0', '0', 'n/a']


def test_dataset_of_another_program_is_left_alone(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / 'dataset_description.json').write_text('{"Name": "raw", "BIDSVersion": "1.10.0"}')
    table = out / 'participants.tsv'
    table.write_text('participant_id\tage\nsub-01\t70\n')
    assert group(out) == 64
    assert 'see whether BIDS_DIR and OUT_DIR are swapped' in capsys.readouterr().err
    assert table.read_text() == 'participant_id\tage\nsub-01\t70\n'
    assert not list(out.glob('group_*'))


@pytest.mark.parametrize('level', [['group'], ['participant', '--reports-only']])
def test_options_without_effect_are_named(
    out: Path, capsys: pytest.CaptureFixture[str], level: list[str]
) -> None:
    words = [str(out.parent / 'absent'), str(out), *level, '-q']
    assert main(words) == 0
    assert capsys.readouterr().err == ''
    assert main([*words, '--participant-label', '01', '--session-label', '9']) == 0
    assert capsys.readouterr().err == (
        'shivacmb: all scans of OUT_DIR are gathered, whatever --participant-label, '
        '--session-label says: that is for participant\n'
    )
    assert 'sub-02' in (out / 'participants.tsv').read_text()
