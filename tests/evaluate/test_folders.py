"""Which files a folder has, also by links, and what is said of folders that cannot be listed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shivacmb.evaluate.folders import files_below
from shivacmb.evaluate.pairs import find_sources
from shivacmb.exceptions import NoInputError, TemporaryError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')


@pytest.mark.parametrize(
    'pattern', [None, '*_dseg.nii', '**/*_dseg.nii', '*/*_dseg.nii', 'sub-*/**/*.nii']
)
def test_folders_that_are_links_are_searched(tmp_path: Path, pattern: str | None) -> None:
    root, other = tmp_path / 'root', tmp_path / 'disk' / 'b'
    touch(root / 'sub-1/sub-1_dseg.nii', other / 'sub-2_dseg.nii', root / '.git/sub-3_dseg.nii')
    (root / 'sub-2').symlink_to(other)
    found = find_sources(root, 'truth', pattern=pattern)
    assert [source.scan for source in found] == ['sub-1', 'sub-2']


def test_links_into_and_around_the_folder_make_no_twins(tmp_path: Path) -> None:
    root, other = tmp_path / 'root', tmp_path / 'disk'
    touch(root / 'sub-1/sub-1_dseg.nii', other / 'sub-2_dseg.nii')
    (root / 'latest').symlink_to(root / 'sub-1')
    (root / 'up').symlink_to(tmp_path)
    (root / 'sub-2').symlink_to(other)
    (root / 'sub-2-again').symlink_to(other)
    (other / 'loop').symlink_to(other)
    (other / 'back').symlink_to(root)
    assert [path.name for path in files_below(root)] == ['sub-1_dseg.nii', 'sub-2_dseg.nii']
    # who names such a link has it, as before
    assert len(find_sources(root, 'truth', pattern='latest/*.nii')) == 1


def test_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / 'sub-1/sub-1_dseg.nii', tmp_path / 'sub-2/sub-2_dseg.nii')
    listed = os.scandir

    def scandir(path: Any = '.') -> Any:
        if str(path).endswith('sub-2'):
            raise PermissionError(13, 'Permission denied', str(path))
        return listed(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    for pattern in (None, '*_dseg.nii', 'sub-*/*.nii'):
        with pytest.raises(TemporaryError, match=r'sub-2> cannot be listed \(Permission denied\)'):
            find_sources(tmp_path, 'truth', pattern=pattern)
    found = find_sources(tmp_path, 'truth', pattern='sub-1/*.nii')
    assert [source.scan for source in found] == ['sub-1']
    with pytest.raises(NoInputError, match='nothing matches sub-3/'):
        find_sources(tmp_path, 'truth', pattern='sub-3/*.nii')
