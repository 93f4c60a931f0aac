"""``--dry-run`` says what a run would do."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.bids import ScanRecord, raw_dataset, write_dataset_description, write_record
from shivacmb.cli.main import main
from shivacmb.cli.plans import build_detection
from shivacmb.cli.run import prepare, search
from shivacmb.cli.settings import Settings
from shivacmb.models import find_bundle
from shivacmb.workflows.plan import ScanPlan

SKIPPED = 'finished with the same settings: would be skipped'


@pytest.mark.parametrize(
    ('removed', 'options', 'skipped'),
    [
        (None, [], True),
        ('overview', [], True),
        (None, ['--overwrite'], False),
        (None, ['--threshold', '0.3'], False),
        *((key, [], False) for key in ('dseg', 'dseg_tsv', 'probseg', 'zones', 'preproc_json')),
    ],
)
def test_what_is_there_of_a_finished_scan(
    tmp_path: Path,
    finished: ScanPlan,
    spot_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    removed: str | None,
    options: list[str],
    skipped: bool,
) -> None:
    if removed is not None:
        Path(finished.outputs[removed]).unlink()
    words = [str(tmp_path / 'bids'), str(tmp_path / 'out'), 'participant', '--dry-run']
    assert main([*words, '--model', str(spot_bundle), *options]) == 0
    said = capsys.readouterr().out
    assert (SKIPPED in said) == skipped
    assert ('would be processed' in said) != skipped


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty (0 bytes); copy or convert the file again'),
        (b'DICM' * 200, 'is not a NIfTI file'),
        (gzip.compress(b'\x5c\x01\0\0', mtime=0), 'is not a NIfTI file'),
        (nib.Nifti1Image(np.zeros((64, 64, 8), np.uint8), np.eye(4)).to_bytes(), 'a slab'),
        (
            nib.Nifti1Image(np.zeros((64, 64, 40), np.uint8), np.eye(4)).to_bytes()[:4000],
            'is truncated: its header announces 163840 bytes of voxels',
        ),
    ],
    ids=['empty', 'dicom', 'short-gzip', 'slab', 'cut'],
)
def test_images_that_would_be_refused(
    finished: ScanPlan,
    spot_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    scan = finished.image
    scan.write_bytes(content)
    words = [str(tmp_path / 'bids'), str(tmp_path / 'other'), 'participant', '--dry-run']
    assert main([*words, '--model', str(spot_bundle)]) == 65
    said = capsys.readouterr().out
    assert f'    would fail: <{scan}> ' in said
    assert message in said
    assert '1 of 1 would fail' in said


def test_what_a_header_warns_of(
    finished: ScanPlan, spot_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del finished
    words = [str(tmp_path / 'bids'), str(tmp_path / 'other'), 'participant', '--dry-run']
    assert main([*words, '--model', str(spot_bundle)]) == 0
    note = 'note: Voxels are 2 x 2 x 5 mm: small lesions may be lost in thick slices'
    assert note in capsys.readouterr().out


@pytest.mark.parametrize(
    ('there', 'done', 'elsewhere', 'told'),
    [
        (True, False, False, False),
        (False, False, False, True),
        # nothing is left to do; and the plugin sends it to other machines
        (False, True, False, False),
        (False, False, True, False),
    ],
)
def test_a_gpu_that_is_not_there_is_told(
    finished: ScanPlan,
    spot_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    done: bool,
    elsewhere: bool,
    told: bool,
) -> None:
    """It is no failure: the run may be meant for another machine."""
    del finished
    plugin = tmp_path / 'slurm.yml'
    plugin.write_text('plugin: SLURM\n')
    more = ['--use-plugin', str(plugin), '--work-dir', str(tmp_path / 'w')] if elsewhere else []
    device = tmp_path / 'nvidiactl'
    if there:
        device.touch()
    monkeypatch.setattr('shivacmb.models.ensemble.GPU_DEVICES', (str(device),))
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if done:
        monkeypatch.setattr('shivacmb.cli.run.is_done', lambda *_: True)
    words = [str(tmp_path / 'bids'), str(tmp_path / 'other'), 'participant', '--dry-run']
    assert main([*words, '--model', str(spot_bundle), '--device', 'gpu', *more]) == 0
    said = capsys.readouterr().out
    assert ('would be skipped' in said) == done
    assert ('the run would stop: there is no GPU on ' in said) == told


@pytest.mark.parametrize(('other', 'told'), [('bids', False), ('bids 2', True)])
def test_results_of_another_dataset_are_told_of(
    finished: ScanPlan,
    spot_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    other: str,
    told: bool,
) -> None:
    del finished
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    assert raw_dataset(out) is None
    write_dataset_description(out, bids_dir=tmp_path / other, version='1')
    words = [str(bids), str(out), 'participant', '--dry-run', '--model', str(spot_bundle)]
    assert main(words) == 0
    said = capsys.readouterr().err
    shown = (tmp_path / other).as_uri()
    assert (f'results made from <{shown}>, and BIDS_DIR is <{bids}>' in said) == told
    assert ('give it an OUT_DIR of its own' in said) == told


def test_one_mask_for_several_sessions_is_told_of(
    tmp_path: Path, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids = tmp_path / 'bids'
    for session in ('1', '2'):
        folder = bids / 'sub-01' / f'ses-{session}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-01_ses-{session}_swi.nii').touch()
    words = [
        str(bids),
        str(tmp_path / 'out'),
        'participant',
        '--dry-run',
        '--brain-mask',
        '/m.nii',
    ]
    main([*words, '--skip-bids-validation', '--model', str(spot_bundle)])
    assert 'is the same file for all sessions of sub-01' in capsys.readouterr().err


KEY = 'MD5E-s163840--0123456789abcdef0123456789abcdef.nii.gz'


def as_annexed(path: Path, key: str, *, fetched: bool) -> None:
    """Have a file lie where git-annex would keep it, and leave a link."""
    content = path.parent / '.git' / 'annex' / 'objects' / key / key
    content.parent.mkdir(parents=True)
    if fetched:
        path.rename(content)
    else:
        path.unlink()
    path.symlink_to(content.relative_to(path.parent))


def note_finished(bids: Path, out: Path, bundle_dir: Path, **facts: str) -> None:
    """Write the record of the one scan of a dataset, as if it had been processed."""
    settings = Settings(bids, out, 'participant', model=str(bundle_dir))
    bundle = find_bundle(settings.model)
    [found] = search(settings).scans
    _, plan = prepare(settings, found, build_detection(settings, bundle), bundle)
    assert isinstance(plan, ScanPlan)
    result = {'cmb_count': 1, 'cmb_volume_mm3': 8.0, 'burden_class': '1-3'}
    write_record(out, ScanRecord(**{**plan.facts['record'], **result, **facts}))


@pytest.mark.parametrize(
    ('first', 'later', 'options', 'skipped'),
    [
        (KEY, KEY, [], True),
        (KEY, KEY, ['--overwrite'], False),
        (KEY, KEY, ['--threshold', '0.3'], False),
        (KEY, KEY.replace('0123', '4567'), [], False),
        # a name that says nothing of the content, and a file that was no link
        ('WORM-s163840-m1--x.nii.gz', 'WORM-s163840-m1--x.nii.gz', [], False),
        (None, KEY, [], False),
    ],
)
def test_finished_scan_whose_data_were_dropped(
    finished: ScanPlan,
    spot_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    first: str | None,
    later: str,
    options: list[str],
    skipped: bool,
) -> None:
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    scan = finished.image
    if first is not None:
        as_annexed(scan, first, fetched=True)
    note_finished(bids, out, spot_bundle)
    if first is not None:
        shutil.rmtree(scan.parent / '.git')
    as_annexed(scan, later, fetched=False)
    words = [str(bids), str(out), 'participant', '--dry-run', '--model', str(spot_bundle)]
    assert main([*words, *options]) == (0 if skipped else 65)
    said = capsys.readouterr().out
    assert (SKIPPED in said) == skipped
    assert ('is a link to a file that is not here: fetch it' in said) != skipped
    if skipped:
        for picture in ('overview', 'lesions'):
            Path(finished.outputs[picture]).unlink()
        assert main([word for word in words if word != '--dry-run']) == 0
        assert '1 already finished with the same settings' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('text', 'skipped'),
    [
        ('version https://git-lfs.github.com/spec/v1\noid sha256:{sum}\nsize 9\n', True),
        ('/annex/objects/SHA256E-s9--{sum}.nii.gz\n', True),
        ('/annex/objects/SHA256-s9--{other}\n', False),
        ('/annex/objects/MD5E-s9--0123456789abcdef0123456789abcdef.nii.gz\n', False),
        ('oid sha256:{sum}\n', False),
    ],
)
def test_finished_scan_in_whose_place_a_text_was_left(
    finished: ScanPlan,
    spot_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    skipped: bool,
) -> None:
    bids, out, scan = tmp_path / 'bids', tmp_path / 'out', finished.image
    known = hashlib.sha256(scan.read_bytes()).hexdigest()
    note_finished(bids, out, spot_bundle, input_sha256=known)
    scan.write_text(text.format(sum=known, other=known[::-1]))
    words = [str(bids), str(out), 'participant', '--dry-run', '--model', str(spot_bundle)]
    code = main(words)
    said = capsys.readouterr().out
    assert (SKIPPED in said) == skipped
    assert code == (0 if skipped else 65)
    assert ('stands for data that are not here' in said) == ('annex' in text and not skipped)


def test_a_mask_dropped_with_its_scan_is_named_as_well(
    finished: ScanPlan, spot_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_annexed(finished.image, KEY, fetched=False)
    (tmp_path / 'mask.nii').symlink_to('nowhere')
    words = [str(tmp_path / 'bids'), str(tmp_path / 'out'), 'participant', '--dry-run']
    words += ['--model', str(spot_bundle), '--brain-mask', str(tmp_path / 'mask.nii')]
    assert main(words) == 65
    said = capsys.readouterr().out
    for path in (finished.image, tmp_path / 'mask.nii'):
        assert str(path) in said
    assert 'is a link to a file that is not here: fetch it' in said
