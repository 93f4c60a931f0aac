"""A given mask that cannot be used costs no earlier result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.bids import read_record, write_record, write_scans_table
from shivacmb.cli.main import main
from shivacmb.workflows.plan import ScanPlan

GRID = np.eye(4) * [2, 2, 5, 1]


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def as_first_scan(finished: ScanPlan, out: Path) -> None:
    record = read_record(Path(finished.outputs['record']))
    assert record is not None
    write_record(out, replace(record, cmb_count=2, cmb_volume_mm3=9.0, burden_class='1-3'))
    write_scans_table(out, '01', None)
    for picture in ('overview', 'lesions'):
        Path(finished.outputs[picture]).unlink()


def write_mask(path: Path, kind: str) -> None:
    if kind == 'no image':
        path.write_bytes(b'nothing')
    elif kind != 'missing':
        shape = {'other shape': (64, 64, 41), 'volumes': (64, 64, 40, 2)}.get(kind, (64, 64, 40))
        affine = GRID.copy()
        affine[0, 3] = 3.0 if kind == 'shifted' else 0.0
        nib.Nifti1Image(np.ones(shape, np.uint8), affine).to_filename(path)


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize(
    ('kind', 'code', 'reason'),
    [
        ('missing', 66, 'no brain mask <'),
        ('no image', 65, 'cannot be read'),
        ('volumes', 65, 'is not one 3-D volume but (64, 64, 40, 2)'),
        ('other shape', 65, 'has another grid than its scan: (64, 64, 41) voxels against (64, '),
        ('shifted', 65, 'has another grid than its scan'),
    ],
)
def test_the_earlier_result_stays(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, capsys: pytest.CaptureFixture[str],
    kind: str, code: int, reason: str, overwrite: bool,
) -> None:  # fmt: skip
    out, mask = tmp_path / 'out', tmp_path / 'mask.nii'
    as_first_scan(finished, out)
    write_mask(mask, kind)
    before = content(out / 'sub-01')
    words = [str(tmp_path / 'bids'), str(out), 'participant', '--model', str(spot_bundle)]
    words += ['--brain-mask', str(mask), *(['--overwrite'] if overwrite else [])]
    assert main([*words, '--dry-run']) == code
    assert f'would fail: {"no" if kind == "missing" else "the"} brain mask' in (
        capsys.readouterr().out
    )
    assert main(words) == code
    said = capsys.readouterr()
    assert content(out / 'sub-01') == before
    assert reason in said.err
    assert 'processed again' not in said.err
    # the row is that of another run, and says so
    [row] = [line for line in said.out.splitlines() if line.startswith('sub-01')]
    assert row.split() == ['sub-01', 'ok', '(earlier', 'run)', '2', '1-3', '9.0']
    assert '\tok\t' in (out / 'sub-01' / 'sub-01_scans.tsv').read_text()


def test_a_broken_scan_is_not_its_mask_s_fault(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished.image.write_bytes(b'no image')
    write_mask(tmp_path / 'mask.nii', 'other shape')
    words = [str(tmp_path / 'bids'), str(tmp_path / 'out'), 'participant', '--dry-run']
    words += ['--model', str(spot_bundle), '--brain-mask', str(tmp_path / 'mask.nii')]
    assert main(words) == 65
    assert f'would fail: <{finished.image}> is not a NIfTI file' in capsys.readouterr().out


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize(
    'placeholder',
    [
        '/annex/objects/SHA256E-s163840--0123.nii.gz\n',
        'version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 163840\n',
    ],
)
def test_the_result_of_a_scan_whose_data_were_dropped_stays(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, capsys: pytest.CaptureFixture[str],
    placeholder: str, overwrite: bool,
) -> None:  # fmt: skip
    out = tmp_path / 'out'
    as_first_scan(finished, out)
    finished.image.write_text(placeholder)
    before = content(out / 'sub-01')
    words = [str(tmp_path / 'bids'), str(out), 'participant', '--model', str(spot_bundle)]
    assert main([*words, *(['--overwrite'] if overwrite else [])]) == 65
    said = capsys.readouterr()
    assert f'<{finished.image}> stands for data that are not here: fetch them' in said.err
    assert content(out / 'sub-01') == before
    [row] = [line for line in said.out.splitlines() if line.startswith('sub-01')]
    assert row.split() == ['sub-01', 'ok', '(earlier', 'run)', '2', '1-3', '9.0']
