"""Nodes one by one: what they do beyond the function below them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec

from shivacmb.exceptions import DataError, OutputError, ShivaCMBError, TemporaryError
from shivacmb.interfaces.base import FAILURE_FILE, ScanInterface
from shivacmb.interfaces.brain_mask import FoundMask, GivenMask, ToolMask
from shivacmb.interfaces.images import CheckImage, NetworkInput, Reorient, Resample
from shivacmb.interfaces.staging import Staging, remove_stale_staging, staging_folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nodes work in the present folder, as nipype makes it."""
    folder = tmp_path / 'node'
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def scan(tmp_path: Path, make_head: Any) -> Path:
    path = tmp_path / 'scan.nii.gz'
    make_head().to_filename(path)
    return path


class _Spec(BaseInterfaceInputSpec):
    pass


class _OutSpec(TraitedSpec):
    pass


def failing(error: BaseException) -> ScanInterface:
    class Fails(ScanInterface):
        input_spec = _Spec
        output_spec = _OutSpec

        def _run(self, cwd: Path) -> None:
            raise error

    return Fails()


@pytest.mark.parametrize(
    ('error', 'kind', 'message'),
    [
        (DataError('bad file'), DataError, 'bad file'),
        (MemoryError(), TemporaryError, 'memory ran out; run fewer scans at once (--nprocs)'),
        (
            OSError(errno.ENOSPC, 'No space left on device', '/x'),
            OutputError,
            'No space left on device </x>; check the disk and the permissions',
        ),
    ],
)
def test_failure_is_left_where_the_run_finds_it(
    here: Path, error: Exception, kind: type[ShivaCMBError], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        failing(error).run()
    told = json.loads((here / FAILURE_FILE).read_text())
    assert told == {'kind': kind.__name__, 'message': message, 'code': kind.exit_code}


def test_unexpected_failure_asks_for_a_report(here: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError('by zero')).run()
    told = json.loads((here / FAILURE_FILE).read_text())
    assert told['kind'] == 'ShivaCMBError'
    assert told['message'].startswith('unexpected ZeroDivisionError: by zero; ')
    assert 'please report it' in told['message']


def test_check_reorient_resample_give_what_the_functions_give(scan: Path, here: Path) -> None:
    from shivacmb.imaging import reorient_to_std, resample_isotropic

    checked = CheckImage(in_file=str(scan)).run().outputs
    content = scan.read_bytes()
    assert checked.source['input_sha256'] == hashlib.sha256(content).hexdigest()
    assert checked.source['input_size'] == len(content)
    assert checked.warnings == []
    std = Reorient(in_file=checked.out_file).run().outputs.out_file
    iso = nib.load(Resample(in_file=std, voxel_mm=2.0).run().outputs.out_file)
    expected = resample_isotropic(reorient_to_std(nib.load(checked.out_file)), 2.0)
    np.testing.assert_array_equal(iso.get_fdata(), expected.get_fdata())
    np.testing.assert_allclose(iso.header.get_zooms(), 2.0)


def test_network_input_is_the_box_around_the_brain(scan: Path, here: Path) -> None:
    checked = CheckImage(in_file=str(scan)).run().outputs.out_file
    std = Reorient(in_file=checked).run().outputs.out_file
    iso = Resample(in_file=std).run().outputs.out_file
    mask = FoundMask(iso_file=iso, method='auto').run().outputs
    assert mask.method == 'background'
    made = NetworkInput(
        scan_file=checked, std_file=std, iso_file=iso, mask_file=mask.mask_file,
        shape=(96, 96, 96), in_file=str(scan),
    ).run()  # fmt: skip
    array, inside = np.load(made.outputs.out_file), np.load(made.outputs.mask_file)
    assert array.shape == (96, 96, 96, 1)
    assert array.dtype == np.float32
    assert (array.min(), array.max()) == (0, 1)
    assert made.outputs.voxels_outside == 0
    centre = np.argwhere(inside).mean(axis=0)
    np.testing.assert_allclose(centre, 47.5, atol=1)
    cut = NetworkInput(
        scan_file=checked, std_file=std, iso_file=iso, mask_file=mask.mask_file,
        shape=(40, 96, 96), in_file=str(scan),
    ).run()  # fmt: skip
    whole, part = inside.sum(), np.load(cut.outputs.mask_file).sum()
    assert cut.outputs.voxels_outside == whole - part > 0


def test_the_mask_of_the_service_is_that_of_this_process(here: Path) -> None:
    from shivacmb.models import find_bundle
    from shivacmb.models.brain_mask import BUILTIN
    from shivacmb.models.service import BRAIN, EnsembleRequest, PredictionService

    lines = [np.linspace(-1.2, 1.2, 90)] * 3
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*lines, indexing='ij', sparse=True)))
    head = np.where(radius < 0.8, 600, np.where(radius < 0.87, 120, np.where(radius < 1, 500, 10)))
    nib.Nifti1Image(head.astype(np.float32), np.diag([2, 2, 2, 1])).to_filename('head.nii')
    alone = FoundMask(iso_file='head.nii', method='builtin').run().outputs.mask_file
    expected = nib.load(alone).get_fdata()
    Path(alone).unlink()
    requests = {BRAIN: EnsembleRequest(str(find_bundle(BUILTIN).path), 'openvino')}
    with PredictionService(requests) as service:
        node = FoundMask(iso_file='head.nii', method='builtin', service=service.address)
        together = node.run().outputs.mask_file
    assert 0.1 < expected.mean() < 0.5
    np.testing.assert_array_equal(nib.load(together).get_fdata(), expected)


def test_given_mask_lands_where_the_scan_does(scan: Path, tmp_path: Path) -> None:
    image = nib.load(scan).slicer[::-1, :, ::-1]
    values = np.asarray(image.dataobj)
    scan_file, mask_file = tmp_path / 'flipped.nii', tmp_path / 'mask.nii.gz'
    image.to_filename(scan_file)
    part = values > 0
    part[:50] = part[:, 70:] = False  # no symmetry left that could hide a flip
    nib.Nifti1Image(part.astype(np.float32), image.affine).to_filename(mask_file)
    std = Reorient(in_file=str(scan_file)).run().outputs.out_file
    iso = Resample(in_file=std).run().outputs.out_file
    given = GivenMask(scan_file=str(scan_file), iso_file=iso, given_file=str(mask_file)).run()
    mask = nib.load(given.outputs.mask_file)
    inside = np.asarray(mask.dataobj) > 0

    def centre(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
        return nib.affines.apply_affine(affine, np.argwhere(array).mean(axis=0))

    np.testing.assert_allclose(centre(inside, mask.affine), centre(part, image.affine), atol=0.6)
    np.testing.assert_allclose(inside.sum(), 2 * part.sum(), rtol=0.03)
    assert np.asarray(nib.load(iso).dataobj)[inside].mean() > 300


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        ('text', r'the brain mask <.*mask\.nii\.gz> cannot be read'),
        ('grid', r'another grid than its scan: \(56, 104, 55\) voxels against \(112, 104, 55\)'),
        ('moved', r'another position in space; resample it to the scan'),
        ('empty', r'covers only 0 mL'),
    ],
)
def test_given_mask_that_does_not_fit(
    scan: Path, tmp_path: Path, damage: str, message: str
) -> None:
    image = nib.load(scan)
    path = tmp_path / 'mask.nii.gz'
    values, affine = (np.asarray(image.dataobj) > 0).astype(np.uint8), image.affine.copy()
    if damage == 'grid':
        values = values[::2]
    if damage == 'moved':
        affine[0, 3] += 20
    if damage == 'empty':
        values[:] = 0
    nib.Nifti1Image(values, affine).to_filename(path)
    if damage == 'text':
        path.write_bytes(b'none')
    std = Reorient(in_file=str(scan)).run().outputs.out_file
    iso = Resample(in_file=std).run().outputs.out_file
    with pytest.raises(DataError, match=message):
        GivenMask(scan_file=str(scan), iso_file=iso, given_file=str(path)).run()


def test_mask_of_a_tool_on_another_grid(scan: Path, tmp_path: Path) -> None:
    other = tmp_path / 'other.nii'
    nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)).to_filename(other)
    with pytest.raises(DataError, match=r'bet returned a mask of \(4, 4, 4\) voxels'):
        ToolMask(iso_file=str(scan), tool_file=str(other), method='bet').run()


def image() -> nib.Nifti1Image:
    return nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))


def test_staging_moves_all_or_nothing(tmp_path: Path) -> None:
    out, folder = tmp_path / 'out', tmp_path / 'out' / '.staging' / 'a'
    targets = {out / 'deep' / 'a.nii.gz': image(), out / 'b.nii.gz': image()}
    with Staging(folder) as stage:
        stage.images(targets, threads=2)
        stage.json(out / 'c.json', {'b': 1, 'a': 2})
        assert not (out / 'b.nii.gz').exists()
        stage.commit()
    assert not folder.exists()
    for path in targets:
        np.testing.assert_array_equal(nib.load(path).get_fdata(), image().get_fdata())
    assert (out / 'c.json').read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'

    def interrupted() -> None:
        with Staging(folder) as stage:
            stage.text(out / 'd.txt', 'never seen')
            raise ValueError('halfway')

    with pytest.raises(ValueError, match='halfway'):
        interrupted()
    assert not (out / 'd.txt').exists()
    assert not folder.exists()


def test_staged_bytes_do_not_depend_on_name_or_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, now in (('a', 1e9), ('b', 2e9)):
        monkeypatch.setattr('time.time', lambda now=now: now)
        with Staging(tmp_path / name / 's') as stage:
            stage.images({tmp_path / f'{name}.nii.gz': image()}, threads=1)
            stage.commit()
    assert (tmp_path / 'a.nii.gz').read_bytes() == (tmp_path / 'b.nii.gz').read_bytes()


def test_only_scratch_folders_of_dead_runs_here_are_removed(tmp_path: Path) -> None:
    mine = staging_folder(tmp_path, 'sub-01')
    dead = tmp_path / mine.name.replace(str(os.getpid()), str(2**22 + 1))
    elsewhere = tmp_path / f'sub-01@other-host-{2**22 + 1}'
    for folder in (mine, dead, elsewhere):
        folder.mkdir()
        (folder / '000_file').touch()
    remove_stale_staging(tmp_path)
    assert sorted(tmp_path.glob('*@*')) == sorted([mine, elsewhere])
    remove_stale_staging(tmp_path / 'absent')


def test_mask_that_is_another_by_now_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings of a run are known by the mask's checksum."""
    from shivacmb.exceptions import TemporaryError
    from shivacmb.interfaces.brain_mask import GivenMask

    monkeypatch.chdir(tmp_path)
    mask = nib.Nifti1Image(np.ones((60, 60, 60), np.uint8), np.eye(4))
    mask.to_filename(tmp_path / 'mask.nii')
    inputs = {key: str(tmp_path / 'mask.nii') for key in ('given_file', 'scan_file', 'iso_file')}
    with pytest.raises(TemporaryError, match=r'mask\.nii> was changed while it was read'):
        GivenMask(**inputs, sha256='0' * 64).run()
    digest = hashlib.sha256((tmp_path / 'mask.nii').read_bytes()).hexdigest()
    assert GivenMask(**inputs, sha256=digest).run().outputs.method == 'given'
