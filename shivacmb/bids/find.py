"""Find the scans of a BIDS dataset and write down every decision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from shivacmb.bids.choose import Candidate, choose
from shivacmb.bids.entities import read_entities
from shivacmb.bids.filters import load_filters, matches, named_keys
from shivacmb.bids.listing import Folder, is_label, list_participants, list_root
from shivacmb.bids.rules import (
    REFUSED_SUFFIXES,
    SUFFIX_FAMILY,
    contrast_of,
    hints_at_scan,
    refusal_by_metadata,
    refusal_by_name,
    refusal_by_series,
)
from shivacmb.bids.scan import LONG_NAMES, OTHER_ENTITIES, Found, PassedOver, Scan
from shivacmb.bids.sidecars import SidecarReader, split_name
from shivacmb.exceptions import DataError, FilterError, UsageError
from shivacmb.placeholders import placeholder, read_placeholder

Modality = Literal['auto', 'swi', 't2s']
_WANTED = {'swi': 'swi', 't2s': 'T2starw'}
#: Labels named in one message.
MOST_NAMES = 10


def find_scans(
    bids_dir: str | Path,
    *,
    participants: Collection[str] | None = None,
    exclude: Collection[str] = (),
    sessions: Collection[str] | None = None,
    filters: Mapping[str, Any] | str | Path | None = None,
    modality: Modality = 'auto',
    require_description: bool = True,
) -> Found:
    """Find one scan for each acquisition of the participants asked for.

    Files with the same entities but suffix, ``part`` and ``echo`` show one acquisition; one of
    them is the scan (see ``choose``). Files with other ``acq``, ``rec`` or ``run`` are scans of
    their own. Only the folders of the participants asked for are opened.

    Parameters
    ----------
    bids_dir
        Root of the dataset.
    participants, exclude, sessions
        Labels with or without ``sub-`` and ``ses-``; None takes all.
    filters
        A filter file or its content, see ``load_filters``.
    modality
        ``'swi'`` or ``'t2s'`` takes scans of that contrast only; ``'auto'`` prefers SWI.
    require_description
        False accepts a dataset without dataset_description.json.

    Returns
    -------
    Found
        Scans, files passed over, participants without a scan. Names and sidecars are read,
        images are not opened.

    Raises
    ------
    DatasetError
        When the dataset cannot be read or is none.
    FilterError
        When there are candidates, but filters, sessions and modality leave none.
    UsageError
        When filters or modality are not understood.
    """
    if modality not in ('auto', 'swi', 't2s'):
        raise UsageError(f'modality "{modality}" is unknown: use auto, swi or t2s')
    root = Path(bids_dir).absolute()
    sections = load_filters(filters)
    present, root_names = list_root(root, require_description=require_description)
    labels, absent = _wanted_labels(root, present, participants, exclude)
    only = None if sessions is None else {item.removeprefix('ses-') for item in sessions}
    listing = list_participants(root, labels, root_names, only)

    search = _Search(root, sections, modality)
    search.passed.extend([*listing.unreadable, *listing.misnamed])
    search.read(listing.folders)
    scans = search.scans()
    # every candidate ends as a scan or is beaten by one: none left means that filters took all
    if not scans and (search.filtered or listing.skipped_sessions):
        raise FilterError(
            f'nothing in <{root}> passes the filters (--session-label, --modality, '
            f'--bids-filter-file){search.first_filtered()}: relax them, or list the scans with '
            '--dry-run and no filter'
        )
    misnamed = [item for item in listing.misnamed if item.path.parent == root]
    served = {scan.participant for scan in scans}
    served |= {item.path.name.removeprefix('sub-') for item in misnamed}
    missing = [label for label in labels if label not in served]
    filtered = {item.folder.participant for item, _ in search.filtered} | listing.skipped_sessions
    return Found(
        tuple(scans),
        tuple(sorted(search.passed, key=lambda item: str(item.path))),
        tuple(sorted([*missing, *absent])),
        tuple(absent),
        tuple(listing.unreadable),
        tuple(label for label in missing if label in filtered),
        tuple(misnamed),
        tuple(_mistyped(root, present, exclude, only, listing.sessions)),
        tuple(search.refused),
    )


def _mistyped(
    root: Path,
    present: list[str],
    exclude: Collection[str],
    asked: Collection[str] | None,
    sessions: Collection[str],
) -> Iterator[str]:
    """Say which labels of a selection stand for nothing, so that it is not what was meant."""
    for option, prefix, labels, where, known in (
        ('--exclude-participant-label', 'sub', exclude, f'<{root}>', present),
        ('--session-label', 'ses', asked or (), 'any participant asked for', sessions),
    ):
        unknown = sorted({label.removeprefix(f'{prefix}-') for label in labels} - set(known))
        if unknown:
            named = name_some(f'{prefix}-{label}' for label in unknown)
            yield f'{option}: no {named} in {where}; see whether that is what you meant'


def name_some(names: Iterable[str]) -> str:
    """List names, the first ten of many."""
    listed = list(names)
    more = f' and {len(listed) - MOST_NAMES} more' if len(listed) > MOST_NAMES else ''
    return ', '.join(listed[:MOST_NAMES]) + more


def _wanted_labels(
    root: Path,
    present: list[str],
    participants: Collection[str] | None,
    exclude: Collection[str],
) -> tuple[list[str], list[str]]:
    """Labels to search, and labels asked for that have no folder."""
    without = {label.removeprefix('sub-') for label in exclude}
    if participants is None:
        wanted = present
    elif not participants:
        raise FilterError(
            '--participant-label names nobody: the list is empty, so there is nothing to do'
        )
    else:
        wanted = sorted({label.removeprefix('sub-') for label in participants})
    wanted = [label for label in wanted if label not in without]
    if not wanted:
        raise FilterError(
            f'no participant of <{root}> is left: --exclude-participant-label removes all that '
            'are asked for'
        )
    here = set(present)
    return (
        [label for label in wanted if label in here],
        [label for label in wanted if label not in here],
    )


class _Search:
    """Decisions about the files of some folders."""

    def __init__(
        self, root: Path, sections: Mapping[str, Mapping[str, Any]], modality: Modality
    ) -> None:
        self.root = root
        self.sections = sections
        self.modality = modality
        self.passed: list[PassedOver] = []
        self.refused: list[PassedOver] = []
        self.filtered: list[tuple[Candidate, str]] = []
        self.candidates: list[Candidate] = []
        self.sidecars = SidecarReader()

    def read(self, folders: list[Folder]) -> None:
        """Sort the files of the folders into candidates and files passed over."""
        for folder in folders:
            for name in folder.names:
                if not name.endswith(('.nii', '.nii.gz')):
                    continue
                outcome = self._judge(folder, name)
                if isinstance(outcome, Candidate):
                    outcome = self._filter(outcome)
                elif outcome is not None:
                    self.refused.append(PassedOver(folder.path / name, outcome))
                if isinstance(outcome, Candidate):
                    self.candidates.append(outcome)
                elif outcome is not None:
                    self.passed.append(PassedOver(folder.path / name, outcome))
        entities = read_entities((item.folder.datatype, item.name) for item in self.candidates)
        for item in self.candidates:
            item.entities = _entities(
                item.pairs, entities.get((item.folder.datatype, item.name), {})
            )

    def first_filtered(self) -> str:
        """Return an example for the message of FilterError."""
        if not self.filtered:
            return ''
        first, reason = self.filtered[0]
        return f'; for example <{first.name}>: {reason}'

    def _names_suffix(self, section: str, suffix: str) -> bool:
        wanted = self.sections.get(section, {}).get('suffix', [])
        return any(str(item).lower() == suffix.lower() for item in wanted)

    def _judge(self, folder: Folder, name: str) -> Candidate | str | None:
        """Candidate, or the reason for passing a file over, or None for one of no concern."""
        extension = '.nii.gz' if name.endswith('.gz') else '.nii'
        pairs, suffix, odd = split_name(name[: -len(extension)])
        low = suffix.lower()
        if low in REFUSED_SUFFIXES:
            return f'suffix {suffix}: {REFUSED_SUFFIXES[low]}'
        named = any(self._names_suffix(section, suffix) for section in self.sections)
        if low not in SUFFIX_FAMILY and not named:
            if not hints_at_scan([suffix, *odd], pairs, folder.datatype):
                return None
            if odd:
                return f'"{odd[0]}" in its name is no key-value pair of BIDS: rename it'
            return (
                f'suffix {suffix or "(none)"} does not say SWI or T2*; if it is such an image: '
                f'--bids-filter-file with {{"swi": {{"suffix": "{suffix}"}}}} (or "t2starw")'
            )
        if odd:
            return f'"{odd[0]}" in its name is no key-value pair of BIDS: rename it'
        wrong = [f'{key}-{value}' for key, value in pairs.items() if not is_label(value)]
        if wrong:
            return f'{wrong[0]!r} has other characters than letters and digits: rename it'
        if pairs.get('sub') != folder.participant:
            return f'its name does not begin with sub-{folder.participant}, the folder it lies in'
        if folder.session != pairs.get('ses') and 'ses' in pairs:
            return f'its name says ses-{pairs["ses"]}, and it lies in another folder'
        chosen = {key for item in self.sections.values() for key in named_keys(item, pairs)}
        refusal = refusal_by_name(pairs, chosen)
        if refusal is not None:
            return refusal
        metadata: dict[str, Any] = {}
        error = None
        try:
            metadata = self.sidecars.merged(folder.levels, pairs, suffix)
        except DataError as unreadable:
            error = str(unreadable)
        refusal = refusal_by_metadata(metadata)
        if refusal is None:
            refusal = refusal_by_series(pairs, metadata)
        if refusal is not None:
            return refusal
        contrast, source = contrast_of(suffix, pairs, metadata)
        found = Candidate(folder, name, pairs, suffix, extension, contrast, source)
        found.metadata, found.error, found.named = metadata, error, low not in SUFFIX_FAMILY
        if folder.session is not None and 'ses' not in pairs:
            found.warnings.append(f'its name lacks ses-{folder.session}, the folder it lies in')
        if found.echo_time_s is not None and metadata['EchoTime'] >= 1:
            found.warnings.append(f'EchoTime {metadata["EchoTime"]} was read as milliseconds')
        return found

    def _filter(self, candidate: Candidate) -> Candidate | str | None:
        """Apply filters and modality; set the contrast that a filter decides."""
        reason = self._filter_reason(candidate)
        if reason is None:
            return candidate
        if candidate.suffix.lower() in SUFFIX_FAMILY:
            self.filtered.append((candidate, reason))
        return reason

    def _filter_reason(self, candidate: Candidate) -> str | None:
        properties = candidate.properties
        miss = matches(self.sections.get('scan', {}), properties)
        if miss is not None:
            return f'filter "scan": {miss}'
        refused = None
        claimed = not candidate.named or self._names_suffix('scan', candidate.suffix)
        for section, contrast in (('t2starw', 'T2starw'), ('swi', 'swi')):
            if section not in self.sections:
                continue
            miss = matches(self.sections[section], properties)
            if miss is None and self._names_suffix(section, candidate.suffix):
                candidate.contrast, claimed, refused = contrast, True, None
                candidate.source = f'filter "{section}" names {candidate.suffix}'
                break
            if miss is not None and (candidate.contrast == contrast or candidate.named):
                refused = f'filter "{section}": {miss}'
        if refused is not None or not claimed:
            return refused or f'no filter takes suffix {candidate.suffix}'
        wanted = _WANTED.get(self.modality)
        if wanted is not None and candidate.contrast != wanted:
            return (
                f'contrast {candidate.contrast} ({candidate.source}), and --modality '
                f'{self.modality} was asked for'
            )
        return None

    def scans(self) -> list[Scan]:
        """Choose one candidate for each acquisition; output names are unique."""
        groups: dict[tuple[Any, ...], list[Candidate]] = {}
        for candidate in self.candidates:
            groups.setdefault(candidate.key, []).append(candidate)
        scans: dict[str, Scan] = {}
        for key in sorted(groups):
            winner, losers = choose(groups[key])
            self.passed.extend(PassedOver(item.path, reason) for item, reason in losers)
            scan = self._scan(winner, len(losers))
            taken = scans.setdefault(scan.stem.casefold(), scan)
            if taken is not scan:
                reason = f'its outputs would have the names of those of {taken.name}: rename it'
                self.passed.append(PassedOver(scan.path, reason))
        return sorted(
            scans.values(), key=lambda item: (item.participant, item.session or '', item.stem)
        )

    def _scan(self, winner: Candidate, beaten: int) -> Scan:
        error = winner.error or _unreadable(winner.path)
        reason = f'contrast {winner.contrast}: {winner.source}'
        if beaten:
            reason += f'; preferred to {beaten} other file{"s" if beaten > 1 else ""}'
        return Scan(
            participant=winner.folder.participant,
            session=winner.folder.session,
            path=winner.path,
            suffix=winner.suffix,
            datatype=winner.folder.datatype,
            entities=winner.entities,
            contrast=winner.contrast,
            metadata=winner.metadata,
            reason=reason,
            warnings=tuple(winner.warnings),
            error=error,
            relative_path=winner.path.relative_to(self.root).as_posix(),
            not_here=error is not None and winner.error is None,
        )


def _entities(pairs: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, str]:
    """Entities as pybids reads them, completed by those of the name that it does not know."""
    names = {**LONG_NAMES, **OTHER_ENTITIES}
    own = {names.get(short, short): value for short, value in pairs.items()}
    return {name: str(found.get(name, value)) for name, value in own.items()}


def _unreadable(path: Path) -> str | None:
    """Why a file that is listed has no data, or None; one call on the file system for a scan."""
    try:
        problem = placeholder(path, read_placeholder(path, path.stat().st_size))
    except FileNotFoundError:
        return (
            f'<{path}> is a link to a file that is not here: fetch it (for example with '
            '"datalad get", or bind its folder too when in a container)'
        )
    except OSError as error:
        return f'<{path}> cannot be read ({error.strerror}): check permissions'
    return None if problem is None else str(problem)
