"""What a run reads is not replaced by what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.cli.main import main

REPLACED = 'is read by this run and would be replaced by its results: choose another output folder'


@pytest.fixture
def scan(tmp_path: Path, make_head: Any) -> Path:
    folder = tmp_path / 'bids' / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    (tmp_path / 'bids' / 'dataset_description.json').write_text(
        json.dumps({'Name': 'test', 'BIDSVersion': '1.10.0'})
    )
    make_head().to_filename(folder / 'sub-01_T2starw.nii.gz')
    return folder / 'sub-01_T2starw.nii.gz'


@pytest.fixture
def mask(tmp_path: Path, scan: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.load(scan)
        inside = (np.asarray(image.dataobj) > 0).astype(np.uint8)
        nib.Nifti1Image(inside, image.affine).to_filename(path)
        return path

    return make


@pytest.mark.parametrize('link', [None, 'folder', 'file', 'target'])
def test_one_image(
    tmp_path: Path, scan: Path, mask: Any, tools_main: Any, spot_bundle: Path, link: str | None
) -> None:
    own = 'sub-01_T2starw_desc-brain_mask.nii.gz'
    given = path = mask(f'out/{own}')
    if link == 'folder':
        (tmp_path / 'other').symlink_to(tmp_path / 'out')
        given = tmp_path / 'other' / own
    elif link == 'file':
        given = tmp_path / 'mine.nii.gz'
        given.symlink_to(path)
    elif link == 'target':
        given.rename(tmp_path / 'mine.nii.gz')
        given.symlink_to(tmp_path / 'mine.nii.gz')
    before = path.read_bytes()
    done = tools_main('scan', scan, '-m', given, '-o', tmp_path / 'out', '--model', spot_bundle)
    assert done.returncode == 64
    assert f'shivacmb: <{given}> {REPLACED}' in done.stderr
    assert path.read_bytes() == before
    assert list((tmp_path / 'out').iterdir()) == [path]


def test_further_channel(
    tmp_path: Path, scan: Path, tools_main: Any, make_spot_bundle: Any
) -> None:
    inputs = [{'name': name, 'contrasts': ['T2starw']} for name in ('a', 'b')]
    model = make_spot_bundle(tmp_path / 'two', inputs=inputs)
    second = tmp_path / 'out' / 'sub-01_T2starw_desc-preproc.nii.gz'
    second.parent.mkdir()
    second.write_bytes(scan.read_bytes())
    done = tools_main('scan', scan, '--channel', second, '-o', tmp_path / 'out', '--model', model)
    assert done.returncode == 64
    assert f'<{second}> {REPLACED}' in done.stderr
    assert second.read_bytes() == scan.read_bytes()


@pytest.mark.parametrize('dry', [False, True])
@pytest.mark.parametrize('option', ['-d', '--brain-mask'])
def test_dataset(
    tmp_path: Path,
    scan: Path,
    mask: Any,
    spot_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    dry: bool,
) -> None:
    out = tmp_path / 'out'
    path = mask('out/sub-01/anat/sub-01_desc-brain_mask.nii.gz')
    before = path.read_bytes()
    value = f'x={out}' if option == '-d' else f'{path.parent}/{{stem}}_desc-brain_mask.nii.gz'
    words = [str(scan.parents[2]), str(out), 'participant', '--model', str(spot_bundle)]
    code = main([*words, option, value, *(['--dry-run'] if dry else [])])
    said = capsys.readouterr()
    assert code == 64
    assert f'<{path}> {REPLACED}' in (said.out if dry else said.err)
    assert path.read_bytes() == before
    assert not list(out.rglob('*_scans.tsv'))


def test_mask_elsewhere_in_the_output_folder(
    tmp_path: Path, scan: Path, mask: Any, spot_bundle: Path
) -> None:
    path = mask('out/masks/sub-01_desc-brain_mask.nii.gz')
    words = [str(scan.parents[2]), str(tmp_path / 'out'), 'participant', '--dry-run']
    assert main([*words, '--model', str(spot_bundle), '--brain-mask', str(path)]) == 0
