"""Scans with labels: which images, which label maps, which classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shivacmb.bids import (
    SCAN_CONTRASTS,
    ChannelFinder,
    Found,
    Scan,
    check_mask_pattern,
    find_brain_mask,
    find_scans,
)
from shivacmb.bids.channels import bare_name, session_images
from shivacmb.bids.find import name_some
from shivacmb.bids.names import session_dir
from shivacmb.exceptions import DatasetError, FilterError, NoInputError, UsageError
from shivacmb.models import Input
from shivacmb.paths import expand_home

#: The class that the app counts: it decides the folds and the operating point.
JUDGED = 'CMB'
LABEL_FIELDS = ('participant', 'session', 'stem', 'label')
_CLASS = re.compile(r'(?P<name>[A-Za-z0-9]+)(=(?P<values>\d+(,\d+)*))?')


@dataclass(frozen=True)
class LabelClass:
    """A class to learn.

    Attributes
    ----------
    name : str
        As in the file names and in the bundle.
    values : tuple of int
        Its values in a label map; empty: every value above 0.
    """

    name: str
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class LabelledScan:
    """Images of one acquisition and their label maps.

    Attributes
    ----------
    dataset : str
        Name of the dataset's folder.
    participant : str
        Label without ``sub-``.
    stem : str
        Name without suffix.
    images : tuple of Path
        One for each input channel.
    labels : tuple of Path
        One for each class; the same file again where one map holds several classes.
    mask : Path or None
        Brain mask.
    contrast : str
        What the first image shows: ``'swi'`` or ``'T2starw'``.
    """

    dataset: str
    participant: str
    stem: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    mask: Path | None = None
    contrast: str = ''

    @property
    def person(self) -> str:
        """Dataset and participant: whose scans stay in one fold."""
        return f'{self.dataset}/sub-{self.participant}'

    @property
    def name(self) -> str:
        """Unique name of the scan."""
        name = self.images[0].name.split('.')[0]
        if '_ses-' in self.stem and '_ses-' not in name:
            # the session is in the folder alone
            name = f'{self.stem}_{name.rpartition("_")[2]}'
        return f'{self.dataset}/{name}'


@dataclass(frozen=True)
class Query:
    """What to look for in a dataset.

    Attributes
    ----------
    inputs : tuple of Input
        Channels.
    classes : tuple of LabelClass
        Classes.
    pattern : str or None
        Path of label maps with ``{participant}``, ``{session}``, ``{stem}`` or ``{label}``.
    derivatives, mask_pattern
        Brain masks, see :func:`shivacmb.bids.find_brain_mask`.
    participants, exclude, filters
        See :func:`shivacmb.bids.find_scans`.
    """

    inputs: tuple[Input, ...]
    classes: tuple[LabelClass, ...]
    pattern: str | None = None
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    mask_pattern: str | None = None
    participants: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    filters: str | Path | None = None


@dataclass(frozen=True)
class LabelledSet:
    """Result of a search.

    Attributes
    ----------
    scans : tuple of LabelledScan
        Scans to train on.
    passed_over : tuple of (str, str)
        Scans without a label map, with the reason.
    participants : frozenset of str
        Whoever has a scan, with or without labels.
    refused : tuple of (str, str)
        Files of sessions without a usable scan, with what is wrong with each.
    two_maps : tuple of str
        Scans with a label map under each of the two names, of which the first was taken.
    """

    scans: tuple[LabelledScan, ...]
    passed_over: tuple[tuple[str, str], ...]
    participants: frozenset[str] = frozenset()
    refused: tuple[tuple[str, str], ...] = ()
    two_maps: tuple[str, ...] = ()


def parse_class(text: str) -> LabelClass:
    """Read ``NAME`` or ``NAME=VALUE[,VALUE...]``.

    Raises
    ------
    UsageError
        The text is neither.
    """
    match = _CLASS.fullmatch(text)
    values = tuple(int(value) for value in match['values'].split(',')) if (
        match and match['values']
    ) else ()  # fmt: skip
    if match is None or 0 in values:
        raise UsageError(
            f'--class {text!r}: expected NAME, or NAME=VALUE[,VALUE...] with values above 0, '
            'such as CMB=1'
        )
    return LabelClass(match['name'], values)


def parse_input(text: str) -> Input:
    """Read ``NAME=CONTRAST[,CONTRAST...]`` or ``CONTRAST``.

    Raises
    ------
    UsageError
        The text is neither.
    """
    name, equals, contrasts = text.partition('=')
    found = tuple((contrasts if equals else name).split(','))
    if not name or not all(re.fullmatch(r'[A-Za-z0-9]+', part) for part in found):
        raise UsageError(
            f'--input {text!r}: expected NAME=CONTRAST[,CONTRAST...], such as swi=T2starw,swi'
        )
    return Input(name.split(',')[0], tuple(_spelling(part) for part in found))


def _spelling(contrast: str) -> str:
    return {item.lower(): item for item in SCAN_CONTRASTS}.get(contrast.lower(), contrast)


def check_classes(classes: Sequence[LabelClass], pattern: str | None) -> None:
    """Refuse a list of classes that cannot be told apart.

    Raises
    ------
    UsageError
        None is called CMB, names or values repeat, or several classes share one map without
        values.
    """
    names = [item.name for item in classes]
    if JUDGED not in names:
        raise UsageError(
            f'--class {", ".join(names)}: one must be called {JUDGED}, the class that the app '
            f'counts; its label maps may have any name, with --labels, and its values any number: '
            f'--class {JUDGED}=1'
        )
    values = [value for item in classes for value in item.values]
    if len(set(names)) != len(names) or len(set(values)) != len(values):
        raise UsageError(f'--class: {", ".join(names)} repeat a name or a value; give each once')
    one_map = pattern is not None and '{label}' not in pattern
    if len(classes) > 1 and one_map and not all(item.values for item in classes):
        raise UsageError(
            f'--labels {pattern!r} names one map for {len(classes)} classes; say which value is '
            'which, such as --class CMB=1 --class iron=2, or put {label} into the pattern'
        )


def find_labelled(
    bids_dir: Path, labels_dir: Path, query: Query, *, name: str | None = None
) -> LabelledSet:
    """Find the scans of a dataset that have label maps.

    Parameters
    ----------
    bids_dir, labels_dir : Path
        Dataset, and derivatives with label maps: for a class ``CMB`` the files
        ``<stem>[_<suffix>]_desc-CMB_dseg.nii[.gz]`` or ``<stem>_label-CMB_mask.nii[.gz]``; one of
        the session without the scan's further entities serves when it is the only one.
    query : Query
        Channels, classes, masks, filters.
    name : str, optional
        Of the dataset; the name of its folder by default.

    Returns
    -------
    LabelledSet
        Sorted by name. A scan without a label map for any class is passed over. Empty where
        nobody who was asked for is there.

    Raises
    ------
    DatasetError
        The folder of labels is not there, there is no scan, or none has a label.
    FilterError
        The filter file and the contrasts of the first channel leave no scan.
    NoInputError
        A scan has maps for some of the classes only, several fit, or a channel is missing.
    UsageError
        The pattern has another field in braces, or classes cannot be told apart.
    TemporaryError
        A folder of the dataset could not be listed.
    """
    check_classes(query.classes, query.pattern)
    if query.pattern is None and not labels_dir.is_dir():
        raise DatasetError(f'there is no folder of labels <{labels_dir}>; check the path')
    found = _find_scans(bids_dir, query)
    if found.unreadable:
        # trained without them, the model would be another one
        raise found.left_out(bids_dir)[str(found.unreadable[0].path)]
    channels = ChannelFinder(
        bids_dir, query.inputs, participants=query.participants, exclude=query.exclude,
        filters=query.filters,
    )  # fmt: skip
    if not found.scans and query.participants is not None:
        # they may be in another dataset
        return LabelledSet((), (), refused=_refused(found, bids_dir))
    if not found.scans:
        raise DatasetError(_no_scan(bids_dir, query.inputs[0], _refused(found, bids_dir)))
    check_mask_pattern(query.mask_pattern, found.scans)
    scans, passed, two_maps = [], [], []
    for scan in found.scans:
        beside = [
            other for other in found.scans
            if (other.participant, other.session) == (scan.participant, scan.session)
        ]  # fmt: skip
        maps = [_labels(scan, item, labels_dir, query.pattern, beside) for item in query.classes]
        labels = [paths[0] if paths else None for paths in maps]
        given = [path for path in labels if path is not None]
        if any(len(paths) > 1 for paths in maps):
            two_maps.append(scan.relative_path)
        if not given:
            passed.append((scan.relative_path, 'no label map'))
            continue
        if len(given) < len(labels):
            lacking = [
                item.name for item, path in zip(query.classes, labels, strict=True) if path is None
            ]
            raise NoInputError(
                f'the class list does not match: <{scan.path}> has a label map for '
                f'{_names(query.classes, labels)} but none for {", ".join(lacking)}; add one '
                '(all 0 where nothing was found), leave that --class or that scan out, or name '
                'one map of all classes with --labels'
            )
        scan.check()
        scans.append(LabelledScan(
            name or bids_dir.resolve().name, scan.participant, scan.stem,
            (scan.path, *channels.images(scan)), tuple(given),
            find_brain_mask(scan, query.derivatives, query.mask_pattern), scan.contrast,
        ))  # fmt: skip
    if not scans:
        names = (f'*_{endings_of(item)[0]}.nii.gz' for item in query.classes)
        wanted = query.pattern or ' or '.join(names)
        raise DatasetError(
            f'none of the {len(found.scans)} scans of <{bids_dir}> has a label in <{labels_dir}>; '
            f'expected {wanted}: mend the names, or name them with --labels and --class'
        )
    return LabelledSet(
        tuple(sorted(scans, key=lambda item: item.name)), tuple(passed),
        frozenset(scan.participant for scan in found.scans), _refused(found, bids_dir),
        tuple(two_maps),
    )  # fmt: skip


def _find_scans(bids_dir: Path, query: Query) -> Found:
    first = query.inputs[0]
    try:
        return find_scans(
            bids_dir, participants=query.participants, exclude=query.exclude,
            filters=query.filters, modality=_modality(first), require_description=False,
        )  # fmt: skip
    except FilterError as error:
        if '--modality' not in str(error):
            raise
        # an option of the app, which stands for the contrasts here
        raise FilterError(
            f'no scan of <{bids_dir}> is {" or ".join(first.contrasts)}, as --input {first.name} '
            'says'
            + (', and passes --bids-filter-file' if query.filters else '')
            + '; change that, or leave that dataset out'
        ) from error


def _no_scan(bids_dir: Path, first: Input, refused: Sequence[tuple[str, str]]) -> str:
    why = name_some(f'<{name}>: {reason}' for name, reason in refused)
    return (
        f'<{bids_dir}> has no scan ({" or ".join(first.contrasts)}) to train on'
        + (f' ({why})' if why else '')
        + '; see the names of its files, and --exclude-participant-label'
    )


def _refused(found: Found, bids_dir: Path) -> tuple[tuple[str, str], ...]:
    """Files that cannot be used, of sessions of which nothing else is."""
    root = bids_dir.absolute()
    usable = {scan.path.absolute().parent.parent for scan in found.scans}
    return tuple(
        (item.path.absolute().relative_to(root).as_posix(), item.reason)
        for item in found.refused
        if not usable & set(item.path.absolute().parents)
    )


def _modality(channel: Input) -> Literal['auto', 'swi', 't2s']:
    wanted = {item for item in channel.contrasts if item in SCAN_CONTRASTS}
    if not wanted:
        raise UsageError(
            f'the first --input {channel.name!r} must take T2starw or swi: it places the box; '
            'name the others after it'
        )
    if len(wanted) == 2:
        return 'auto'
    return 'swi' if 'swi' in wanted else 't2s'


def _names(classes: Sequence[LabelClass], labels: Sequence[Path | None]) -> str:
    return ', '.join(
        item.name for item, path in zip(classes, labels, strict=True) if path is not None
    )


def endings_of(item: LabelClass) -> tuple[str, str]:
    """Ends of the names that the label maps of a class have."""
    return f'desc-{item.name}_dseg', f'label-{item.name}_mask'


def _labels(
    scan: Scan, item: LabelClass, root: Path, pattern: str | None, beside: Sequence[Scan]
) -> list[Path]:
    """Label maps of a scan, at most one of each name; the first is to be taken."""
    if pattern is not None:
        path = _by_pattern(scan, item, pattern)
        path = path if path.is_absolute() else root / path
        return [path] if path.is_file() else []
    folder = session_dir(root, scan.participant, scan.session)
    endings = endings_of(item)
    files = session_images(folder)
    found: list[Path] = []
    for ending in endings:
        if found:
            # looked for only to be told of
            return [*found, *_own_maps(scan, ending, files)]
        chosen = _own_maps(scan, ending, files) or _shared_maps(scan, ending, files, beside)
        if len(chosen) > 1:
            names = ', '.join(path.name for path in chosen)
            raise NoInputError(
                f'several label maps fit {scan.stem}: {names} in <{folder}>; keep one, or name it '
                'with --labels'
            )
        found += chosen
    return found


def _own_maps(scan: Scan, ending: str, files: Sequence[Path]) -> list[Path]:
    """Maps with the name of the scan, and its suffix where there is one with it."""
    for start in (f'{scan.stem}_{scan.suffix}_{ending}', f'{scan.stem}_{ending}'):
        if fitting := [path for path in files if bare_name(path) == start]:
            return fitting
    return []


def _shared_maps(
    scan: Scan, ending: str, files: Sequence[Path], beside: Sequence[Scan]
) -> list[Path]:
    """Maps with no more than participant and session in their names: the only scan's there.

    Raises
    ------
    NoInputError
        Several scans of the session could own it.
    """
    session = f'_ses-{scan.session}' if scan.session else ''
    start = f'sub-{scan.participant}{session}'
    fitting = [path for path in files if bare_name(path) == f'{start}_{ending}']
    if not fitting or any(other.stem == start for other in beside):
        return []
    without = [other.path.name for other in beside if not _own_maps(other, ending, files)]
    if len(without) > 1:
        raise NoInputError(
            f'the label map <{fitting[0]}> could belong to {" or ".join(without)}; give it the '
            'entities of its scan, or name it with --labels'
        )
    return fitting


def _by_pattern(scan: Scan, item: LabelClass, pattern: str) -> Path:
    values = {
        'participant': scan.participant,
        'session': scan.session or '',
        'stem': scan.stem,
        'label': item.name,
    }
    try:
        return expand_home(pattern.format(**values))
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        fields = ', '.join(f'{{{name}}}' for name in LABEL_FIELDS)
        raise UsageError(f'--labels {pattern!r}: only {fields} may stand in braces') from error
