"""What a search of a dataset yields: scans, files passed over, participants without a scan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shivacmb.exceptions import DataError, NoInputError, ShivaCMBError, TemporaryError

#: Entities of a raw anatomical image, in the order of the BIDS schema (short key, pybids name).
ENTITIES: tuple[tuple[str, str], ...] = (
    ('sub', 'subject'),
    ('ses', 'session'),
    ('task', 'task'),
    ('acq', 'acquisition'),
    ('ce', 'ceagent'),
    ('rec', 'reconstruction'),
    ('run', 'run'),
    ('echo', 'echo'),
    ('part', 'part'),
    ('chunk', 'chunk'),
)
LONG_NAMES: dict[str, str] = dict(ENTITIES)
SHORT_NAMES: dict[str, str] = {long: short for short, long in ENTITIES}
#: Entities of other images, which some names of SWI carry all the same.
OTHER_ENTITIES: dict[str, str] = {
    'dir': 'direction',
    'mod': 'modality',
    'flip': 'flip',
    'inv': 'inv',
    'mt': 'mt',
    'proc': 'proc',
    'hemi': 'hemi',
    'sample': 'sample',
    'recording': 'recording',
}
_OTHER_SHORT = {long: short for short, long in OTHER_ENTITIES.items()}


@dataclass(frozen=True)
class Scan:
    """One image in which microbleeds are to be found.

    Attributes
    ----------
    participant, session
        Labels without ``sub-`` and ``ses-``; ``session`` is None in a dataset without sessions.
    path
        The NIfTI file.
    suffix, datatype
        As written in the name (``T2starw``, ``SWI``, ...) and its folder (``anat`` or ``swi``).
    entities
        Entities of the name, pybids' long names, values as written (``run`` keeps its zeros).
    contrast
        ``'swi'`` or ``'T2starw'``: what the image shows, whatever its suffix.
    metadata
        Its sidecars merged by the inheritance principle.
    reason
        Why this file is the scan, in words for the user.
    warnings
        What the user should know although the scan is usable.
    error
        Why the scan cannot be processed (broken link, unreadable sidecar), or None.
    relative_path
        Path from the root of the dataset, POSIX style.
    not_here
        Whether ``error`` is that the image cannot be opened, as data that were not fetched.
    """

    participant: str
    session: str | None
    path: Path
    suffix: str
    datatype: str
    entities: Mapping[str, str]
    contrast: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ''
    warnings: tuple[str, ...] = ()
    error: str | None = None
    relative_path: str = ''
    not_here: bool = False

    @property
    def stem(self) -> str:
        """Prefix of every output, e.g. ``sub-01_ses-1_acq-swi_run-1``.

        Entities in the order of the BIDS schema. One that derivatives of anatomical images may
        not carry is folded into ``acq`` (``mod-gre`` becomes ``acq-ModGre``), so that it is
        neither lost nor invalid.
        """
        values = dict(self.entities)
        values['subject'] = self.participant
        if self.session is not None:
            values['session'] = self.session
        extra = ''.join(
            re.sub(
                r'[^A-Za-z0-9]', '', _OTHER_SHORT.get(key, key).capitalize() + value.capitalize()
            )
            for key, value in sorted(values.items())
            if key not in SHORT_NAMES
        )
        if extra:
            values['acquisition'] = values.get('acquisition', '') + extra
        return '_'.join(f'{short}-{values[long]}' for short, long in ENTITIES if long in values)

    @property
    def out_suffix(self) -> str:
        """Suffix of the images derived from this one: ``'swi'`` or ``'T2starw'``."""
        return 'swi' if self.suffix.lower() in {'swi', 'swan', 'veno'} else 'T2starw'

    @property
    def uri(self) -> str:
        """BIDS URI of the file, for the ``Sources`` of its derivatives."""
        return f'bids:raw:{self.relative_path}'

    @property
    def name(self) -> str:
        """Name of the file without folders."""
        return self.path.name

    def check(self) -> None:
        """Raise DataError when the scan cannot be processed (see ``error``)."""
        if self.error is not None:
            raise DataError(self.error)


@dataclass(frozen=True)
class PassedOver:
    """A file that was looked at and not taken, and why (with the way to take it, if any)."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes
    ----------
    scans
        Sorted by participant, session and name; no two share an output name.
    passed_over
        Files that could have been meant, sorted by path.
    missing
        Labels of the participants that were asked for, or listed, and have no scan.
    absent
        Those of ``missing`` that have no folder in the dataset.
    unreadable
        Folders, also among ``passed_over``, that could not be listed: scans may be in them.
    filtered
        Those of ``missing`` of whom filters, sessions or modality left out all that is there.
    misnamed
        Folders ``sub-*``, also among ``passed_over``, whose name has no label.
    mistyped
        Sentences about labels of the selection that stand for nothing.
    refused
        Those of ``passed_over`` that no filter and no choice between files left out.
    """

    scans: tuple[Scan, ...]
    passed_over: tuple[PassedOver, ...]
    missing: tuple[str, ...]
    absent: tuple[str, ...] = ()
    unreadable: tuple[PassedOver, ...] = ()
    filtered: tuple[str, ...] = ()
    misnamed: tuple[PassedOver, ...] = ()
    mistyped: tuple[str, ...] = ()
    refused: tuple[PassedOver, ...] = ()

    def why_missing(self, participant: str) -> str:
        """Reason why a participant of ``missing`` has no scan."""
        if participant in self.absent:
            return 'not in the dataset'
        if participant in self.filtered:
            return 'no scan that passes --session-label, --modality and --bids-filter-file'
        return 'no usable scan'

    def unlisted(self, bids_dir: Path) -> set[str]:
        """Labels of participants of whom nobody knows whether they have a scan."""
        root = bids_dir.absolute()
        parts = (item.path.relative_to(root).parts[0] for item in self.unreadable)
        return {part.removeprefix('sub-') for part in parts}

    def left_out(self, bids_dir: Path) -> dict[str, ShivaCMBError]:
        """Folders that could not be listed and participants without a scan.

        Parameters
        ----------
        bids_dir : Path
            Root of the dataset.

        Returns
        -------
        dict of str to ShivaCMBError
            By the path of the folder or the name of the participant: a TemporaryError or a
            NoInputError that says what to do.
        """
        errors: dict[str, ShivaCMBError] = {
            str(item.path): TemporaryError(
                f'<{item.path}> was left out, {item.reason}; run the same command again when it '
                'can be'
            )
            for item in self.unreadable
        }
        unlisted = self.unlisted(bids_dir)
        for participant in [name for name in self.missing if name not in unlisted]:
            text = f'sub-{participant} has {self.why_missing(participant)} (see --dry-run)'
            if participant in self.absent:
                text = f'no sub-{participant} in <{bids_dir}>'
            errors[f'sub-{participant}'] = NoInputError(text)
        for item in self.misnamed:
            errors[str(item.path)] = NoInputError(f'<{item.path}> was left out: {item.reason}')
        return errors
