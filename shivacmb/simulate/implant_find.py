"""Which of a user's scans receive lesions, and what was asked for and is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shivacmb.bids import Scan, check_mask_pattern, find_scans
from shivacmb.exceptions import NoInputError, ShivaCMBError


def find_hosts(
    bids_dir: Path,
    *,
    participants: Sequence[str] | None,
    modality: Any,
    mask_pattern: str | None,
    say: Callable[[str], None] | None,
) -> tuple[tuple[Scan, ...], dict[str, ShivaCMBError]]:
    """Find scans, and say what was left out as ``shivacmb participant`` does.

    Parameters
    ----------
    bids_dir : Path
        The user's dataset.
    participants, modality
        See :func:`shivacmb.bids.find_scans`.
    mask_pattern : str, optional
        Checked for the scans found, see :func:`shivacmb.bids.check_mask_pattern`.
    say : callable, optional
        Told of participants without a scan and folders that could not be listed.

    Returns
    -------
    scans : tuple of Scan
        At least one.
    failures : dict of str to ShivaCMBError
        Participants that were asked for and have no scan, and folders that could not be listed.

    Raises
    ------
    NoInputError
        When there is no scan.
    """
    found = find_scans(bids_dir, participants=participants, modality=modality)
    left_out = found.left_out(bids_dir)
    if say is not None:
        for error in left_out.values():
            say(str(error))
    if not found.scans:
        raise NoInputError(f'no T2*-GRE or SWI scan in <{bids_dir}>; see shivacmb --dry-run')
    check_mask_pattern(mask_pattern, found.scans)
    failures = {
        name: error for name, error in left_out.items()
        if participants is not None or not isinstance(error, NoInputError)
    }  # fmt: skip
    return found.scans, failures
