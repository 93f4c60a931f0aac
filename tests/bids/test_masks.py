from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shivacmb.bids import (
    ChannelFinder,
    check_mask_pattern,
    find_brain_mask,
    find_scans,
    note_shared_mask,
)
from shivacmb.exceptions import NoInputError, UsageError

TWO = ('sub-01/anat/sub-01_T2starw.nii.gz', 'sub-02/ses-1/anat/sub-02_ses-1_T2starw.nii.gz')


@pytest.mark.parametrize('pattern', ['/masks/one.nii.gz', '/masks/{session}.nii.gz', '/{{x}}.nii'])
def test_one_mask_for_several_participants_is_refused(dataset: Any, pattern: str) -> None:
    found = find_scans(dataset(*TWO))
    with pytest.raises(UsageError, match=r'--brain-mask .* add \{participant\} .*without') as info:
        check_mask_pattern(pattern, found.scans)
    assert info.value.exit_code == 64


def test_one_mask_for_one_participant_and_fields_of_the_scan_are_taken(dataset: Any) -> None:
    scans = find_scans(dataset(*TWO)).scans
    check_mask_pattern('/masks/one.nii.gz', scans[:1])
    check_mask_pattern('/masks/sub-{participant}.nii.gz', scans)
    check_mask_pattern('/masks/{session}/{stem}.nii.gz', scans)
    check_mask_pattern(None, scans)


def test_one_mask_for_several_sessions_is_told_of(dataset: Any) -> None:
    sessions = [f'sub-{who}/ses-{ses}/anat/sub-{who}_ses-{ses}_{run}swi.nii.gz'
                for who, ses, run in (('01', '1', ''), ('01', '2', ''), ('02', '1', ''),
                                      ('03', '1', 'run-1_'), ('03', '1', 'run-2_'))]  # fmt: skip
    scans = find_scans(dataset(*sessions)).scans
    said = note_shared_mask('/m/sub-{participant}.nii', scans)
    assert said == (
        "--brain-mask '/m/sub-{participant}.nii' is the same file for all sessions of sub-01: "
        'unless these images were brought to one space before, add {session} or {stem}'
    )
    assert note_shared_mask('/m/one.nii', scans[:2]) is not None
    for pattern in (None, '/m/{stem}.nii', '/m/{participant}_{session}.nii', '/m/{participant'):
        assert note_shared_mask(pattern, scans) is None
    assert note_shared_mask('/m/{participant}.nii', scans[2:]) is None


RUN_2 = 'sub-01/anat/sub-01_acq-fine_run-2_T2starw.nii.gz'


def of_run_2(root: Path) -> Any:
    [scan] = [item for item in find_scans(root).scans if item.path == root / RUN_2]
    return scan


@pytest.mark.parametrize('entities', ['', '_run-2', '_acq-fine', '_acq-fine_run-2'])
def test_the_only_mask_serves_when_all_it_says_is_true_of_the_scan(
    dataset: Any, entities: str
) -> None:
    scan = of_run_2(dataset(RUN_2))
    masks = dataset(f'sub-01/anat/sub-01{entities}_desc-brain_mask.nii.gz', name='masks')
    found = find_brain_mask(scan, {'masks': masks}, None)
    assert found == masks / f'sub-01/anat/sub-01{entities}_desc-brain_mask.nii.gz'


@pytest.mark.parametrize('entities', ['_run-1', '_acq-fine_run-1', '_space-T1w', '_run-2_res-2'])
def test_the_mask_of_another_acquisition_is_not_taken(dataset: Any, entities: str) -> None:
    scan = of_run_2(dataset(RUN_2))
    masks = dataset(f'sub-01/anat/sub-01{entities}_desc-brain_mask.nii.gz', name='masks')
    told = rf'no brain mask .* \(sub-01{entities}_desc-brain_mask.nii.gz: of another acquisition\)'
    with pytest.raises(NoInputError, match=told):
        find_brain_mask(scan, {'masks': masks}, None)


def test_masks_that_are_named_as_the_scan_was(dataset: Any) -> None:
    """An entity that derivatives may not carry is folded into the names of outputs only."""
    [scan] = find_scans(dataset('sub-01/swi/sub-01_mod-gre_run-1_swi.nii.gz')).scans
    mask = 'sub-01/swi/sub-01_mod-gre_desc-brain_mask.nii.gz'
    masks = dataset(mask, name='masks')
    assert find_brain_mask(scan, {'masks': masks}, None) == masks / mask


def test_the_channel_of_another_acquisition_is_not_taken(dataset: Any) -> None:
    channels = [
        SimpleNamespace(name='t2s', contrasts=('T2starw',)),
        SimpleNamespace(name='t2', contrasts=('T2w',)),
    ]
    root = dataset(RUN_2, 'sub-01/anat/sub-01_run-1_T2w.nii.gz')
    told = r"no image for the channel 't2' .*\(sub-01_run-1_T2w.nii.gz: of another acquisition\)"
    with pytest.raises(NoInputError, match=told):
        ChannelFinder(root, channels).images(of_run_2(root))
    dataset('sub-01/anat/sub-01_run-2_T2w.nii.gz')
    [found] = ChannelFinder(root, channels).images(of_run_2(root))
    assert found.name == 'sub-01_run-2_T2w.nii.gz'
