"""List the folders of a dataset in which scans can be, with as few calls as possible."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from shivacmb.bids.scan import PassedOver
from shivacmb.exceptions import DatasetError

DATATYPES = ('anat', 'swi')
_LABEL = re.compile(r'[A-Za-z0-9+]+')


@dataclass(frozen=True)
class Folder:
    """One ``anat`` or ``swi`` folder.

    Attributes
    ----------
    levels
        Folders from the root of the dataset to this one, each with its file names: what the
        inheritance of sidecars needs.
    """

    participant: str
    session: str | None
    datatype: str
    path: Path
    names: tuple[str, ...]
    levels: tuple[tuple[Path, tuple[str, ...]], ...]


def list_root(bids_dir: Path, *, require_description: bool) -> tuple[list[str], tuple[str, ...]]:
    """Return the participants' labels, sorted, and the JSON files at the root of a dataset.

    Raises
    ------
    DatasetError
        When the folder is absent, is no dataset, or its description cannot be read.
    """
    try:
        # names only: ten thousand Path objects would cost more than the listing
        names = os.listdir(bids_dir)  # noqa: PTH208
    except OSError as error:
        raise DatasetError(
            f'dataset <{bids_dir}> cannot be read ({error.strerror}): give the folder that holds '
            'dataset_description.json and the sub-* folders; in a container, bind it (-B or -v) '
            'and give the path inside'
        ) from error
    if require_description:
        _check_description(bids_dir, names)
    labels = sorted(
        name[4:]
        for name in names
        if name.startswith('sub-')
        and len(name) > 4
        # sub-01.html, as other programs leave it, is no participant
        and (is_label(name[4:]) or (bids_dir / name).is_dir())
    )
    if not labels:
        raise DatasetError(
            f'no sub-* folder in <{bids_dir}>: give the root of the BIDS dataset, not a folder '
            'above or below it'
        )
    return labels, tuple(sorted(name for name in names if name.endswith('.json')))


def _check_description(bids_dir: Path, names: Collection[str]) -> None:
    path = bids_dir / 'dataset_description.json'
    remedy = (
        'write one, for example {"Name": "my study", "BIDSVersion": "1.10.0"}, or run with '
        '--skip-bids-validation'
    )
    if path.name not in names:
        raise DatasetError(f'<{path}> is missing: {remedy}')
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f'<{path}> cannot be read ({error}): mend it, or {remedy}') from error
    if not isinstance(content, dict):
        raise DatasetError(f'<{path}> does not hold a JSON object: {remedy}')


@dataclass
class Listing:
    """Folders of the wanted participants, and what could not be listed or may not be used."""

    folders: list[Folder]
    unreadable: list[PassedOver]
    misnamed: list[PassedOver]
    #: Participants of whom sessions were left out, and the sessions that they all have together.
    skipped_sessions: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)


def list_participants(
    bids_dir: Path,
    labels: Iterable[str],
    root_names: tuple[str, ...],
    sessions: Collection[str] | None,
) -> Listing:
    """List ``sub-X[/ses-Y]/{anat,swi}``: one call for each folder that exists."""
    listing = Listing([], [], [])
    for label in labels:
        folder = bids_dir / f'sub-{label}'
        if not _may_be_used(folder, label, listing):
            continue
        names = _names(folder, listing)
        levels = ((bids_dir, root_names), (folder, names))
        if sessions is None:
            _add(listing, label, None, levels)
        elif 'anat' in names or 'swi' in names:
            listing.skipped_sessions.add(label)
        for name in names:
            if not name.startswith('ses-') or len(name) == 4:
                continue
            listing.sessions.add(name[4:])
            if sessions is not None and name[4:] not in sessions:
                listing.skipped_sessions.add(label)
                continue
            inner = folder / name
            if not _may_be_used(inner, name[4:], listing):
                continue
            _add(listing, label, name[4:], (*levels, (inner, _names(inner, listing))))
    return listing


def is_label(text: str) -> bool:
    """Tell whether a text can be the label of an entity, which becomes part of output paths."""
    return _LABEL.fullmatch(text) is not None


def _may_be_used(folder: Path, label: str, listing: Listing) -> bool:
    if is_label(label):
        return True
    reason = f'its label {label!r} has other characters than letters and digits: rename it'
    listing.misnamed.append(PassedOver(folder, reason))
    return False


def _add(
    listing: Listing,
    participant: str,
    session: str | None,
    levels: tuple[tuple[Path, tuple[str, ...]], ...],
) -> None:
    parent, present = levels[-1]
    for datatype in DATATYPES:
        if datatype in present:
            path = parent / datatype
            names = _names(path, listing)
            listing.folders.append(
                Folder(participant, session, datatype, path, names, (*levels, (path, names)))
            )


def _names(folder: Path, listing: Listing) -> tuple[str, ...]:
    try:
        names = os.listdir(folder)  # noqa: PTH208
        return tuple(sorted(name for name in names if not name.startswith('.')))
    except NotADirectoryError:
        return ()
    except OSError as error:
        listing.unreadable.append(
            PassedOver(folder, f'the folder cannot be read ({error.strerror})')
        )
        return ()
