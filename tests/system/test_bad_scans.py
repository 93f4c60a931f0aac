"""One run over a dataset in which nearly every scan is broken in its own way."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.system

#: Participant -> what its row must say (searched in ``reason``).
FAILURES = {
    'truncated': r'truncated or damaged; copy',
    'zerobyte': r'is empty \(0 bytes\); copy',
    'text': r'is not a NIfTI file; convert',
    'allnan': r'no finite value.*convert',
    'constant': r'is constant \(every voxel is 7\); convert',
    'volumes': r'holds 3 volumes; one is needed: split',
    'flat': r'is 2-D \(112 x 104.*\); a 3-D scan',
    'phasevalues': r'looks like a phase image.*give the magnitude',
    'codes0': r'sform and qform codes 0.*convert',
    'mirrored': r'opposite handedness.*convert',
    'voxel0': r'voxels of 1 x 1 x 0 mm.*correct the header',
    'slab': r'covers 112 x 104 x 20 mm only, a slab.*give a scan of the whole brain',
    'sidecar': r'sidecar <.*sub-sidecar_T2starw\.json> cannot be read.*mend or remove it',
    'link': r'link to a file that is not here: fetch it',
    'empty': r'brain',
}
#: Participant -> words of a warning ('' for none), of scans that are processed all the same.
SUCCESSES = {
    'good1': '',
    'good2': '',
    'twoforms': r'sform and qform differ by up to 30\.0 mm',
    'somenan': r'1000 voxels were NaN or infinite and are set to 0',
    'large': r'outside',
    'small': r'covers 96 x 90 x 92 mm',
    'thick': r'thick slices',
}
#: Participants whose only file is passed over by its name.
PASSED_OVER = {
    'phasename': ('sub-phasename_part-phase_T2starw', r'part-phase: a phase image'),
    'minip': ('sub-minip_rec-minIP_swi', r'rec-minIP: a projection over several slices'),
}


def damaged_values(head: Any) -> dict[str, nib.Nifti1Image]:
    """Images whose values or shape are wrong."""
    good = head()
    values = np.asarray(good.dataobj)
    some = values.astype(np.float32)
    some[50:60, 50:60, 20:30] = np.nan
    brain = values > 0
    dot = np.zeros_like(values)
    dot[50, 50, 25] = 5
    phase = np.random.default_rng(3).uniform(-np.pi, np.pi, values.shape).astype(np.float32)

    def like(array: np.ndarray) -> nib.Nifti1Image:
        return nib.Nifti1Image(array, good.affine)

    return {
        'allnan': like(np.full(values.shape, np.nan, np.float32)),
        'constant': like(np.full(values.shape, 7, np.int16)),
        'volumes': like(np.stack([values] * 3, axis=-1)),
        'flat': like(values[:, :, 27]),
        'phasevalues': like(phase * brain),
        'somenan': like(some),
        'empty': like(dot),
    }


def damaged_geometry(head: Any) -> dict[str, nib.Nifti1Image]:
    """Images whose header or field of view is wrong or unusual."""
    images = {name: head() for name in ('codes0', 'mirrored', 'twoforms')}
    images['codes0'].set_sform(None, 0)
    images['codes0'].set_qform(None, 0)
    for name, change in (('mirrored', np.diag([-1.0, 1, 1, 1])), ('twoforms', np.eye(4))):
        form = change @ images[name].affine
        form[:3, 3] += (30, 0, 0) if name == 'twoforms' else (0, 0, 0)
        images[name].set_qform(form, 1)
    return {
        **images,
        'slab': head(field_mm=(112.0, 104.0, 20.0)),
        'large': head(field_mm=(140.0, 104.0, 110.0), brain_mm=(60.0, 41.0, 44.0)),
        'small': head(field_mm=(96.0, 90.0, 92.0)),
        'thick': head(voxel_mm=(1.0, 1.0, 5.0)),
    }


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('bad') / 'bids')
    images = {**damaged_values(tools.head), **damaged_geometry(tools.head)}
    for name, image in images.items():
        tools.place(root, f'sub-{name}_T2starw', image)
    for name in ('good1', 'good2'):
        tools.place(root, f'sub-{name}_T2starw')
    for name, _ in PASSED_OVER.values():
        tools.place(root, name)
    paths = {
        name: tools.place(root, f'sub-{name}_T2starw')
        for name in ('truncated', 'zerobyte', 'text', 'voxel0', 'sidecar', 'link')
    }
    whole = paths['truncated'].read_bytes()
    paths['truncated'].write_bytes(whole[: len(whole) // 2])
    paths['zerobyte'].write_bytes(b'')
    paths['text'].write_bytes(b'<html>404 Not Found</html>' * 100)
    header = bytearray(gzip.decompress(paths['voxel0'].read_bytes()))
    header[88:92] = np.float32(0).tobytes()  # pixdim[3]; nibabel would not write it
    paths['voxel0'].write_bytes(gzip.compress(bytes(header)))
    paths['sidecar'].with_name('sub-sidecar_T2starw.json').write_text('{"EchoTime": 0.02,')
    paths['link'].unlink()
    paths['link'].symlink_to('../../.git/annex/objects/absent.nii.gz')
    return root


@pytest.fixture(scope='module')
def done(app: Any, bids: Path) -> Any:
    """Run over all of them, on two processors."""
    return app.participant(bids, app.root / 'out', '--nprocs', '2')


@pytest.fixture(scope='module')
def rows(app: Any, done: Any, tools: Any) -> dict[str, dict[str, str]]:
    return tools.scan_rows(app.root / 'out')


def test_exit_code_and_one_sentence_for_each_scan(done: Any) -> None:
    assert done.returncode == 1, done.stderr
    assert 'Traceback' not in done.stderr + done.stdout
    lines = done.stderr.strip().splitlines()
    said = {line.split()[1] for line in lines if ' failed: ' in line}
    assert said == {f'sub-{name}' for name in FAILURES}
    assert {line for line in lines if ' failed: ' not in line} == {
        f'shivacmb: sub-{name} has no usable scan (see --dry-run)' for name in PASSED_OVER
    }


@pytest.mark.parametrize('name', sorted(FAILURES))
def test_row_of_a_broken_scan(name: str, rows: Any, done: Any, bids: Path) -> None:
    row = rows[f'sub-{name}']
    assert row['status'] == 'failed'
    assert re.search(FAILURES[name], row['reason']), row['reason']
    assert row['cmb_count'] == row['burden_class'] == 'n/a'
    # the sentence on the terminal is the one in the table, and names the file
    assert f'sub-{name} failed: {row["reason"]}' in done.stderr
    if name != 'empty':
        assert str(bids / f'sub-{name}' / 'anat') in row['reason']


@pytest.mark.parametrize('name', sorted(SUCCESSES))
def test_row_of_a_usable_scan(name: str, rows: Any) -> None:
    row = rows[f'sub-{name}']
    assert row['status'] == 'ok', row['reason']
    assert row['reason'] == 'n/a'
    # three spots were drawn; NaN voxels are dark too and may be taken for a fourth
    assert row['cmb_count'] == '3' or name in ('somenan', 'thick')
    if SUCCESSES[name]:
        assert re.search(SUCCESSES[name], row['warnings']), row['warnings']
    else:
        assert row['warnings'] == 'n/a'


def test_brain_larger_than_the_box_is_counted(rows: Any) -> None:
    assert int(rows['sub-large']['brain_voxels_outside_box']) > 1000
    assert rows['sub-good1']['brain_voxels_outside_box'] == '0'


def test_no_lesion_lost_on_thick_slices(app: Any, rows: Any, tools: Any) -> None:
    count = int(rows['sub-thick']['cmb_count'])
    assert count >= 2
    folder = app.root / 'out' / 'sub-thick' / 'anat'
    labels = np.asarray(nib.load(folder / 'sub-thick_desc-CMB_dseg.nii.gz').dataobj)
    assert set(np.unique(labels)) == set(range(count + 1))


def test_nothing_half_written(app: Any, done: Any, tools: Any) -> None:
    out = app.root / 'out'
    tools.check_whole(out)
    for name in FAILURES:
        written = {path.name for path in (out / f'sub-{name}').rglob('*') if path.is_file()}
        assert written == {
            f'sub-{name}_desc-CMB_dseg.json',
            f'sub-{name}_scans.json',
            f'sub-{name}_scans.tsv',
        }
    assert app.temporary == []


def test_page_says_why(app: Any, done: Any) -> None:
    page = (app.root / 'out' / 'docs' / 'sub-volumes.html').read_text('utf-8')
    assert 'holds 3 volumes; one is needed' in page


@pytest.mark.parametrize('name', sorted(PASSED_OVER))
def test_dry_run_says_why_a_file_was_passed_over(name: str, app: Any, bids: Path) -> None:
    shown = app.participant(bids, app.root / 'unused', '--dry-run', '--participant-label', name)
    assert shown.returncode == 66  # as the run: there is nothing to do
    assert re.search(PASSED_OVER[name][1], shown.stdout), shown.stdout
    assert not (app.root / 'unused').exists()


def test_participant_with_nothing_usable_alone(app: Any, bids: Path, tools: Any) -> None:
    done = app.participant(bids, app.root / 'out-minip', '--participant-label', 'minip')
    assert done.returncode == 66
    assert tools.sentence(done.stderr) == (
        'shivacmb: sub-minip has no usable scan (see --dry-run)'
    )


def test_single_broken_scan_has_its_own_exit_code(app: Any, bids: Path, tools: Any) -> None:
    done = app.participant(bids, app.root / 'out-single', '--participant-label', 'zerobyte')
    assert done.returncode == 65
    assert 'is empty (0 bytes)' in tools.sentence(done.stderr)


def test_broken_scans_are_tried_again_and_good_ones_skipped(
    app: Any, bids: Path, done: Any, tools: Any
) -> None:
    out = app.root / 'out'
    before = (out / 'sub-good1' / 'anat' / 'sub-good1_desc-CMB_dseg.nii.gz').stat().st_mtime_ns
    mended = bids / 'sub-zerobyte' / 'anat' / 'sub-zerobyte_T2starw.nii.gz'
    tools.head().to_filename(mended)
    again = app.participant(bids, out, '--participant-label', 'good1', 'zerobyte')
    assert again.returncode == 0, again.stderr
    rows = tools.scan_rows(out)
    assert rows['sub-zerobyte']['status'] == 'ok'
    after = (out / 'sub-good1' / 'anat' / 'sub-good1_desc-CMB_dseg.nii.gz').stat().st_mtime_ns
    assert after == before


def test_stop_on_first_crash(app: Any, bids: Path, tools: Any) -> None:
    out = app.root / 'out-stop'
    labels = ('--participant-label', 'allnan', 'good1')
    done = app.participant(bids, out, *labels, '--stop-on-first-crash', '--nprocs', '1')
    assert done.returncode == 1, done.stderr
    assert 'sub-allnan failed' in tools.sentence(done.stderr)
    assert set(tools.scan_rows(out)) == {'sub-allnan'}
    again = app.participant(bids, out, *labels)
    assert again.returncode == 1
    assert tools.scan_rows(out)['sub-good1']['status'] == 'ok'
    tools.check_whole(out)


def test_group_counts_failures_and_absences(app: Any, done: Any, tools: Any, bids: Path) -> None:
    out = app.root / 'out'
    gathered = app.run(bids, out, 'group')
    assert gathered.returncode == 0, gathered.stderr
    participants = {row['participant_id'] for row in tools.rows(out / 'participants.tsv')}
    assert participants == {f'sub-{name}' for name in (*FAILURES, *SUCCESSES, *PASSED_OVER)}
    counts = tools.rows(out / 'group_desc-CMB_counts.tsv')
    # one participant was mended by the test before, when that ran
    assert sum(row['status'] == 'failed' for row in counts) >= len(FAILURES) - 1
    index = (out / 'docs' / 'index.html').read_text()
    assert all(f'<li>sub-{name}: no usable scan</li>' in index for name in PASSED_OVER)
