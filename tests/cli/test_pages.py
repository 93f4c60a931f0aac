"""What a page says of how a scan was read."""

from __future__ import annotations

import pytest

from shivacmb.bids.records import ScanRecord
from shivacmb.cli.pages import _left_out


@pytest.mark.parametrize(
    ('left_out', 'rule', 'words'),
    [
        (0, 0.5, '0 candidates in fluid, at the pineal gland or outside the brain ('),
        (1, 0.5, '1 candidate in fluid, '),
        (2, 0.1, '2 candidates in fluid, at the pineal gland or outside the brain '
                 '(parenchyma_fraction below 0.1)'),
        (0, 0.0, ''),
        (None, 0.5, ''),
    ],
)  # fmt: skip
def test_what_was_not_counted(left_out: int | None, rule: float, words: str) -> None:
    record = ScanRecord(
        '01', None, 'sub-01', 'anat/x', 'complete', cmb_left_out=left_out, min_parenchyma=rule
    )
    found = _left_out(record)
    assert bool(found) == bool(words)
    assert all(label == 'Not counted' and text.startswith(words) for label, text in found)
