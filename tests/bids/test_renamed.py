from __future__ import annotations

import json

import pytest

from shivacmb.bids import (
    ScanRecord,
    file_facts,
    find_departed,
    find_scans,
    leftovers,
    output_paths,
    read_records,
    remove_outputs,
    write_group,
    write_record,
    write_scans_table,
)

OLD = 'sub-01/ses-1/anat/sub-01_ses-1_T2starw.nii.gz'
#: Takes the second of two echoes, and what is no echo.
FILTER = {'scan': {'echo': [2, None]}}


def finish(out, scan, status='ok'):
    """Leave all files of a scan, as a run does."""
    paths = output_paths(out, scan)
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('x')
    values = {'cmb_count': 2, 'cmb_volume_mm3': 9.0} if status == 'ok' else {'reason': 'empty'}
    facts = file_facts(scan.path) if status == 'ok' else {}
    write_record(out, ScanRecord.of(scan, status=status, **values, **facts))
    write_scans_table(out, scan.participant, scan.session)


def one_scan(dataset, tmp_path, status='ok'):
    raw, out = dataset(OLD), tmp_path / 'out'
    (raw / OLD).write_bytes(b'an image')
    (scan,) = find_scans(raw).scans
    finish(out, scan, status)
    return raw, out, scan


def rename(raw, new):
    (raw / new).parent.mkdir(parents=True, exist_ok=True)
    (raw / OLD).rename(raw / new)


@pytest.mark.parametrize(
    'new',
    [
        'sub-01/ses-1/anat/sub-01_ses-1_acq-hi_run-1_T2starw.nii.gz',
        'sub-01/ses-2/anat/sub-01_ses-2_T2starw.nii.gz',
    ],
)
def test_an_image_with_a_new_name_counts_once(dataset, tmp_path, new):
    raw, out, old = one_scan(dataset, tmp_path)
    rename(raw, new)
    (scan,) = find_scans(raw).scans
    finish(out, scan)
    (departed,) = find_departed(out, raw, ['01'])
    assert (departed.record.stem, departed.successor.stem) == (old.stem, scan.stem)
    assert departed.settled
    remove_outputs(out, departed.record)
    assert [record.stem for record in read_records(out, '01')] == [scan.stem]
    assert not any(path.exists() for path in leftovers(out, old))
    assert all(path.exists() for path in output_paths(out, scan).values())
    assert (out / 'sub-01/ses-1').exists() == (scan.session == '1')
    write_group(out)
    assert 'sub-01\tok\t1\t1\t0\t2\t2\t9' in (out / 'participants.tsv').read_text()


def test_a_result_whose_image_is_gone_stays(dataset, tmp_path):
    raw, out, old = one_scan(dataset, tmp_path)
    new = 'sub-01/ses-1/anat/sub-01_ses-1_run-1_T2starw.nii.gz'
    rename(raw, new)
    (raw / new).write_bytes(b'not the same image')
    (scan,) = find_scans(raw).scans
    finish(out, scan)
    (departed,) = find_departed(out, raw, ['01'])
    assert departed.record.stem == old.stem
    assert departed.successor is None
    assert not departed.settled


def test_a_failure_whose_image_is_gone_says_nothing_any_more(dataset, tmp_path):
    raw, out, _ = one_scan(dataset, tmp_path, 'failed')
    (raw / OLD).unlink()
    (departed,) = find_departed(out, raw, ['01'])
    assert departed.settled
    remove_outputs(out, departed.record)
    assert not (out / 'sub-01').exists()
    assert out.exists()


def test_what_is_there_has_not_departed(dataset, tmp_path):
    raw, out, _ = one_scan(dataset, tmp_path)
    (raw / 'copy.nii.gz').write_bytes((raw / OLD).read_bytes())
    assert find_departed(out, raw, ['01', '02']) == []
    # data of git-annex that are not fetched: a link that points nowhere
    (raw / OLD).unlink()
    (raw / OLD).symlink_to('absent')
    assert find_departed(out, raw, ['01']) == []


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('ses-1_echo-1_T2starw', 'ses-1_echo-2_T2starw'),
        ('ses-1_acq-Hi_part-mag_T2starw', 'ses-1_acq-hi_SWI'),
        ('acq-Hi_part-mag_T2starw', 'ses-1_acq-Hi_swi'),
    ],
)
def test_another_image_of_the_acquisition_takes_the_place_of_its_result(
    dataset, tmp_path, old, new
):
    old, new = (f'sub-01/ses-1/anat/sub-01_{name}.nii.gz' for name in (old, new))
    raw, out = dataset((old, 'old'), (new, 'new')), tmp_path / 'out'
    (raw / new).rename(raw / 'later')
    (first,) = find_scans(raw).scans
    finish(out, first)
    (raw / 'later').rename(raw / new)
    name = new.removeprefix('sub-01/ses-1/anat/')
    scans = [scan for scan in find_scans(raw, filters=FILTER).scans if scan.name == name]
    assert len(scans) == 1
    # without a result of the new one the old one stands
    assert find_departed(out, raw, ['01'], scans) == []
    finish(out, scans[0], 'failed')
    assert find_departed(out, raw, ['01'], scans) == []
    finish(out, scans[0])
    (departed,) = find_departed(out, raw, ['01'], scans)
    assert (departed.record.stem, departed.successor.stem) == (first.stem, scans[0].stem)
    assert departed.settled
    assert not departed.renamed
    remove_outputs(out, departed.record)
    assert [record.stem for record in read_records(out, '01')] == [scans[0].stem]
    assert not any(path.exists() for path in leftovers(out, first))
    assert all(path.exists() for path in output_paths(out, scans[0]).values())


def test_other_acquisitions_and_images_that_are_gone_keep_their_results(dataset, tmp_path):
    names = ('acq-a_echo-1', 'acq-b_echo-2', 'echo-1', 'echo-2', 'ce-gd_echo-2')
    files = [f'sub-01/ses-{ses}/anat/sub-01_ses-{ses}_{x}_MEGRE.nii.gz'
             for ses in '12' for x in names]  # fmt: skip
    raw, out = dataset(*((name, name) for name in files)), tmp_path / 'out'
    for echo in (1, 2):
        for scan in find_scans(raw, filters={'scan': {'echo': echo}}).scans:
            finish(out, scan)
    now = find_scans(raw, filters={'scan': {'echo': 2}, 't2starw': {'acq': None}}).scans
    departed = find_departed(out, raw, ['01'], now[:2])
    assert [item.record.stem for item in departed] == ['sub-01_ses-1_echo-1']
    # what cannot be made again stays, and is named
    (raw / 'sub-01/ses-1/anat/sub-01_ses-1_echo-1_MEGRE.nii.gz').unlink()
    (gone,) = find_departed(out, raw, ['01'], now)[:1]
    assert (gone.record.stem, gone.settled) == ('sub-01_ses-1_echo-1', False)


def test_group_names_participants_with_the_same_image(dataset, tmp_path):
    raw, out, old = one_scan(dataset, tmp_path)
    rename(raw, 'sub-001/anat/sub-001_T2starw.nii.gz')
    (raw / 'sub-01').rename(tmp_path / 'gone')
    (scan,) = find_scans(raw).scans
    finish(out, scan)
    assert write_group(out).same_image == ((scan.stem, old.stem),)
    summary = json.loads((out / 'group_desc-CMB_summary.json').read_text())
    assert summary['same_image'] == [[scan.stem, old.stem]]
