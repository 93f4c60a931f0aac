from __future__ import annotations

from typing import Any

import pytest

from shivacmb.bids import check_mask_pattern, find_scans
from shivacmb.exceptions import UsageError

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
