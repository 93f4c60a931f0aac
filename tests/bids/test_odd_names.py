"""Names that no sane program writes: passed over with a reason, never part of an output path."""

from __future__ import annotations

from pathlib import Path

import pytest

from shivacmb.bids import find_scans
from shivacmb.exceptions import DatasetError

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
    # its folder is named, and it is no participant of the tables
    assert (found.missing, found.misnamed) == ((), (passed,))
    [said] = map(str, found.left_out(tmp_path).values())
    assert said == f'<{tmp_path / name}> was left out: {passed.reason}'


def test_files_at_the_root_are_no_participants(tmp_path: Path) -> None:
    """As fMRIPrep leaves its reports."""
    (tmp_path / 'sub-01' / 'anat').mkdir(parents=True)
    (tmp_path / 'sub-01' / 'anat' / 'sub-01_swi.nii').touch()
    for name in ('sub-01.html', 'sub-02.html', 'sub-01.tar.gz'):
        (tmp_path / name).touch()
    found = find_scans(tmp_path, require_description=False)
    assert (found.passed_over, found.missing, found.misnamed) == ((), (), ())
    (tmp_path / 'sub-01').rename(tmp_path / 'other')
    with pytest.raises(DatasetError, match=r'no sub-\* folder in'):
        find_scans(tmp_path, require_description=False)


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
