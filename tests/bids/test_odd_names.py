"""Names that no sane program writes: passed over with a reason, never part of an output path."""

from __future__ import annotations

from pathlib import Path

import pytest

from shivacmb.bids import find_scans

ODD = ['sub-01 copy', 'sub-$(touch x)', 'sub-..', 'sub-a.b', 'sub-é', "sub-'; rm", 'sub-01_old']


@pytest.mark.parametrize('name', ODD)
def test_odd_participant(tmp_path: Path, name: str) -> None:
    for folder in ('sub-01', name):
        path = tmp_path / folder / 'anat' / f'{folder}_T2starw.nii.gz'
        path.parent.mkdir(parents=True)
        path.touch()
    found = find_scans(tmp_path, require_description=False)
    assert [scan.participant for scan in found.scans] == ['01']
    (passed,) = [item for item in found.passed_over if item.path.name == name]
    assert 'other characters than letters and digits' in passed.reason


@pytest.mark.parametrize('label', ['a.b', 'a b', '$x', '\udcff'])
def test_odd_entity(tmp_path: Path, label: str) -> None:
    path = tmp_path / 'sub-01' / 'anat' / f'sub-01_acq-{label}_T2starw.nii.gz'
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / 'sub-01' / 'anat' / 'sub-01_T2starw.nii.gz').touch()
    found = find_scans(tmp_path, require_description=False)
    assert [scan.stem for scan in found.scans] == ['sub-01']
    (passed,) = found.passed_over
    assert 'other characters' in passed.reason
    passed.reason.encode('utf-8')


def test_folder_that_cannot_be_listed_is_not_one_without_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    for label in ('01', '02'):
        path = tmp_path / f'sub-{label}' / 'anat' / f'sub-{label}_T2starw.nii.gz'
        path.parent.mkdir(parents=True)
        path.touch()
    listdir = os.listdir

    def failing(folder: Path) -> list[str]:
        if Path(folder) == tmp_path / 'sub-01' / 'anat':
            raise OSError(errno.EIO, 'Input/output error', str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, 'listdir', failing)
    found = find_scans(tmp_path, require_description=False)
    assert [scan.participant for scan in found.scans] == ['02']
    (item,) = found.unreadable
    assert item.path == tmp_path / 'sub-01' / 'anat'
    assert 'Input/output error' in item.reason
