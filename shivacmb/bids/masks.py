"""Brain masks that already exist: in derivatives, or by a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

from shivacmb.bids.channels import bare_name
from shivacmb.bids.names import session_dir
from shivacmb.bids.scan import Scan
from shivacmb.bids.sidecars import split_name
from shivacmb.exceptions import NoInputError, UsageError
from shivacmb.paths import expand_home

PATTERN_FIELDS = ('participant', 'session', 'stem')


def find_brain_mask(
    scan: Scan, derivatives: Mapping[str, Path], pattern: str | None
) -> Path | None:
    """Find the precomputed brain mask of a scan.

    Parameters
    ----------
    scan : Scan
        The scan.
    derivatives : mapping of str to Path
        Roots of BIDS derivatives, searched in this order for
        ``sub-X[/ses-Y]/{anat,swi}/<entities of the scan>[_<suffix>]_desc-brain_mask.nii[.gz]``;
        a mask of the session that lacks some of the scan's entities, and has no others, serves
        when it is the only one.
    pattern : str or None
        Path with ``{participant}``, ``{session}`` or ``{stem}``; comes before ``derivatives``.

    Returns
    -------
    Path or None
        None when neither was given.

    Raises
    ------
    UsageError
        If the pattern has another field in braces.
    NoInputError
        If a mask was asked for and there is none, or several fit equally.
    """
    if pattern is not None:
        return _by_pattern(scan, pattern)
    if not derivatives:
        return None
    looked: list[Path] = []
    others: list[str] = []
    for root in derivatives.values():
        folder = session_dir(root, scan.participant, scan.session)
        looked.append(folder)
        masks = [
            path
            for datatype in ('anat', 'swi')
            for path in sorted((folder / datatype).glob('*_desc-brain_mask.nii*'))
            if path.name.endswith(('.nii', '.nii.gz'))
        ]
        exact = [path for path in masks if _start(path) == scan.stem]
        chosen = exact or [path for path in masks if _may_belong(path, scan)]
        others += [path.name for path in masks if path not in chosen]
        if len(chosen) > 1:
            names = ', '.join(path.name for path in chosen)
            raise NoInputError(
                f'several brain masks fit {scan.stem}: {names} in <{folder}>; keep the one with '
                'the same entities as the scan, or name it with --brain-mask'
            )
        if chosen:
            return chosen[0]
    where = ', '.join(f'<{folder}>' for folder in looked)
    of_others = f' ({", ".join(others)}: of another acquisition)' if others else ''
    raise NoInputError(
        f'no brain mask (*_desc-brain_mask.nii.gz) for {scan.stem} in {where}{of_others}; add it, '
        'or leave --derivatives out'
    )


def check_mask_pattern(pattern: str | None, scans: Sequence[Scan]) -> None:
    """Refuse a pattern that names the same mask for several participants.

    Parameters
    ----------
    pattern : str or None
        Of ``--brain-mask``.
    scans : sequence of Scan
        All scans it is for.

    Raises
    ------
    UsageError
        If it has neither ``{participant}`` nor ``{stem}`` and the scans are of several people.
    """
    if pattern is None or len({scan.participant for scan in scans}) < 2:
        return
    fields = _fields(pattern)
    if fields is not None and fields.isdisjoint(('participant', 'stem')):
        raise UsageError(
            f'--brain-mask {pattern!r} is the same file for every participant: add '
            "{participant} (the label without 'sub-') or {stem} (the beginning of the scan's file "
            'name), or choose one participant with --participant-label'
        )


def note_shared_mask(pattern: str | None, scans: Sequence[Scan]) -> str | None:
    """Say when a pattern names the same mask for several sessions of a participant.

    No error: they may have been brought to one grid before, on which the mask has to be anyway.
    """
    fields = None if pattern is None else _fields(pattern)
    if fields is None or not fields.isdisjoint(('session', 'stem')):
        return None
    sessions: dict[str, set[str | None]] = {}
    for scan in scans:
        sessions.setdefault(scan.participant, set()).add(scan.session)
    several = sorted(label for label, found in sessions.items() if len(found) > 1)
    if not several:
        return None
    more = f' and {len(several) - 1} more participant(s)' if len(several) > 1 else ''
    return (
        f'--brain-mask {pattern!r} is the same file for all sessions of sub-{several[0]}{more}: '
        'unless these images were brought to one space before, add {session} or {stem}'
    )


def _fields(pattern: str) -> set[str | None] | None:
    """Names in the braces of a pattern; None where find_brain_mask says what is wrong with it."""
    try:
        return {name for _, name, _, _ in Formatter().parse(pattern)}
    except ValueError:
        return None


def _may_belong(path: Path, scan: Scan) -> bool:
    """Tell whether a mask says nothing of itself that the scan does not say, such as its run."""
    own = {**split_name(bare_name(scan.path))[0], **split_name(f'{scan.stem}_mask')[0]}
    return split_name(_start(path))[0].items() <= own.items()


def _start(path: Path) -> str:
    return path.name.split('_desc-brain_mask')[0]


def _by_pattern(scan: Scan, pattern: str) -> Path:
    values = {
        'participant': scan.participant,
        'session': scan.session or '',
        'stem': scan.stem,
    }
    try:
        path = expand_home(pattern.format(**values)).absolute()
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        fields = ', '.join(f'{{{name}}}' for name in PATTERN_FIELDS)
        raise UsageError(f'--brain-mask {pattern!r}: only {fields} may stand in braces') from error
    if not path.is_file():
        raise NoInputError(
            f'no brain mask <{path}> for {scan.stem} (--brain-mask); add it or mend the pattern'
        )
    return path
