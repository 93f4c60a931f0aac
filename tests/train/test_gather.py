"""Several datasets: whose maps, whose masks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import NoInputError, UsageError
from shivacmb.models import Input
from shivacmb.train.dataset import LabelClass, Query
from shivacmb.train.gather import dataset_names, gather_labelled

QUERY = Query((Input('swi', ('T2starw', 'swi')),), (LabelClass('CMB'),))


def quiet(_: str) -> None: ...


def sites(root: Path, write_scan: Callable[..., None]) -> list[tuple[Path, Path]]:
    """Two datasets, each with a sub-01 of its own; folders ``A`` and ``B``."""
    pairs = []
    for name in ('A', 'B'):
        write_scan(root / name, '01', 1)
        (root / name / 'raw').rename(root / name / name)
        pairs.append((root / name / name, root / name / 'labels'))
    return pairs


def test_only_further_folders_of_a_name_get_a_number(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ('a/raw', 'b/raw', 'c/raw', 'c/other', 'd/raw-2')]
    assert dataset_names(folders[:1]) == ['raw']
    assert dataset_names(folders) == ['raw', 'raw-2', 'raw-3', 'other', 'raw-2-2']


def test_a_dataset_given_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'raw')
    folders = [tmp_path / 'raw', tmp_path / 'other', tmp_path / 'link', tmp_path / 'x/../raw']
    assert dataset_names(folders) == ['raw', 'other', 'raw', 'raw']


def test_masks_of_one_dataset_do_not_serve_another(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    pairs = sites(tmp_path, write_scan)
    (_, one), (_, other) = pairs
    for folders in ({'masks': one}, {'x': one, 'y': other}):
        with pytest.raises(UsageError, match=r'A and B both have a sub-01, .*: -d A=PATH B=PATH'):
            gather_labelled(pairs, replace(QUERY, derivatives=folders), quiet)
    named = replace(QUERY, derivatives={'A': one, 'B': other})
    masks = {scan.name: scan.mask for scan in gather_labelled(pairs, named, quiet)}
    mask = Path('sub-01/anat/sub-01_desc-brain_mask.nii.gz')
    assert masks == {'A/sub-01_T2starw': one / mask, 'B/sub-01_T2starw': other / mask}
    with pytest.raises(NoInputError, match=r'mask <.*> is taken for A/sub-01_.* two people; name'):
        gather_labelled(pairs, replace(QUERY, derivatives={'A': one, 'B': one}), quiet)
    # a folder of the one alone: the other is left to the built-in mask
    alone = gather_labelled(pairs, replace(QUERY, derivatives={'A': one}), quiet)
    assert [scan.mask for scan in alone] == [one / mask, None]


def test_a_pattern_of_masks_tells_datasets_apart(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    pairs = sites(tmp_path, write_scan)
    tail = 'labels/sub-{participant}/anat/{stem}_desc-brain_mask.nii.gz'
    with pytest.raises(UsageError, match=r'names one mask for the two; add \{dataset\}, which'):
        gather_labelled(pairs, replace(QUERY, mask_pattern=f'{tmp_path}/A/{tail}'), quiet)
    told = replace(QUERY, mask_pattern=f'{tmp_path}/{{dataset}}/{tail}')
    found = gather_labelled(pairs, told, quiet)
    assert [scan.mask.parents[2].parent.name for scan in found if scan.mask] == ['A', 'B']


def test_people_of_other_names_may_share_a_folder_of_masks(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    pairs = sites(tmp_path, write_scan)
    for (bids, labels), label in zip(pairs, ('01', '02'), strict=True):
        if label != '01':
            for root in (bids, labels):
                for path in sorted(root.rglob('*01*'), reverse=True):
                    path.rename(path.with_name(path.name.replace('01', label)))
    masks = tmp_path / 'masks'
    for _, labels in pairs:
        shutil.copytree(labels, masks, dirs_exist_ok=True)
    found = gather_labelled(pairs, replace(QUERY, derivatives={'masks': masks}), quiet)
    assert [scan.mask.name for scan in found if scan.mask] == [
        'sub-01_desc-brain_mask.nii.gz', 'sub-02_desc-brain_mask.nii.gz',
    ]  # fmt: skip


def test_one_map_for_two_scans_is_refused(tmp_path: Path, write_scan: Callable[..., None]) -> None:
    write_scan(tmp_path, '01', 1)
    raw = tmp_path / 'raw/sub-01/anat'
    (raw / 'sub-01_T2starw.nii.gz').rename(raw / 'sub-01_run-1_T2starw.nii.gz')
    image = nib.load(raw / 'sub-01_run-1_T2starw.nii.gz')
    noise = np.random.default_rng(0).normal(100, 4, image.shape).astype(np.float32)
    nib.Nifti1Image(noise, image.affine).to_filename(raw / 'sub-01_run-2_T2starw.nii.gz')
    pairs = [(tmp_path / 'raw', tmp_path / 'labels')]
    folder = 'sub-{participant}/anat/'
    shared = replace(QUERY, pattern=folder + 'sub-{participant}_desc-CMB_dseg.nii.gz')
    with pytest.raises(
        NoInputError, match='is taken for raw/sub-01_run-1_T2starw and for raw/sub-01_run-2_T2sta'
    ):
        gather_labelled(pairs, shared, quiet)
    labels = tmp_path / 'labels/sub-01/anat'
    for run in ('1', '2'):
        shutil.copy(
            labels / 'sub-01_desc-CMB_dseg.nii.gz', labels / f'sub-01_run-{run}_own.nii.gz'
        )
    own = replace(QUERY, pattern=folder + '{stem}_own.nii.gz')
    assert len(gather_labelled(pairs, own, quiet)) == 2


def test_a_participant_may_be_in_one_of_the_datasets(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    pairs = sites(tmp_path, write_scan)
    write_scan(tmp_path / 'B', '07', 1)
    shutil.move(tmp_path / 'B/raw/sub-07', tmp_path / 'B/B/sub-07')
    found = gather_labelled(pairs, replace(QUERY, participants=['07']), quiet)
    assert [scan.person for scan in found] == ['B/sub-07']
    with pytest.raises(NoInputError, match=r'no scan of sub-99 in <.*A>, <.*B>; check --partic'):
        gather_labelled(pairs, replace(QUERY, participants=['99']), quiet)


def test_sessions_in_the_folder_alone_are_two_scans(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    for session in ('a', 'b'):
        write_scan(tmp_path, '01', 1, session=session)
        raw = tmp_path / f'raw/sub-01/ses-{session}/anat'
        for path in sorted(raw.iterdir()):
            path.rename(path.with_name(path.name.replace(f'_ses-{session}', '')))
    found = gather_labelled([(tmp_path / 'raw', tmp_path / 'labels')], QUERY, quiet)
    assert [scan.name for scan in found] == [
        'raw/sub-01_ses-a_T2starw', 'raw/sub-01_ses-b_T2starw',
    ]  # fmt: skip
    assert len({scan.labels for scan in found}) == 2


def test_label_maps_of_people_without_a_scan_are_told(
    tmp_path: Path, write_scan: Callable[..., None]
) -> None:
    pairs = sites(tmp_path, write_scan)
    for label, session in (('02', None), ('03', 'a'), ('04', None)):
        write_scan(tmp_path / 'B', label, 1, session=session)
    # sub-04 of the one dataset has its labels beside those of the other
    shutil.move(tmp_path / 'B/raw/sub-04', tmp_path / 'A/A/sub-04')

    def told(query: Query) -> list[str]:
        lines: list[str] = []
        gather_labelled(pairs, query, lines.append)
        return [line for line in lines if 'slip' in line]

    assert told(QUERY) == [
        'warning: sub-02_desc-CMB_dseg.nii.gz, sub-03_ses-a_desc-CMB_dseg.nii.gz: no scan '
        '(T2starw or swi) of these people was found and nothing is learnt from their labels; '
        'see whether a name has a slip, or --input'
    ]
    assert told(replace(QUERY, exclude=['02', '03'])) == []
    assert told(replace(QUERY, participants=['01'])) == []
