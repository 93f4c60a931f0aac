"""Find what was predicted and what is true, and bring the two together scan by scan."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from shivacmb.evaluate.folders import files_below
from shivacmb.evaluate.lists import (
    ENTITY_COLUMNS,
    OF_THE_FILE,
    Listed,
    count_rows,
    entities_of,
    in_folder,
    plain,
    point_rows,
    read_rows,
)
from shivacmb.evaluate.unfound import nothing_found, option
from shivacmb.exceptions import DataError, NoInputError, UsageError

Kind = Literal['instances', 'mask', 'probability', 'points', 'counts', 'auto']
KINDS: tuple[Kind, ...] = ('auto', 'instances', 'mask', 'probability', 'points', 'counts')
_IMAGE = ('.nii.gz', '.nii')
_PATTERNS: dict[Kind, tuple[str, ...]] = {
    'instances': ('*_desc-{class}_dseg{image}', '*_label-{class}_dseg{image}'),
    'mask': ('*_label-{class}_mask{image}', '*_desc-{class}_mask{image}'),
    'probability': ('*_label-{class}_probseg{image}',),
    'auto': ('*_dseg{image}',),
    'points': ('*_desc-{class}_dseg.tsv', '*_desc-{class}_points.tsv', '*_lesions.tsv'),
    'counts': ('*desc-{class}_counts.tsv', '*counts.tsv'),
}
_ORDER: tuple[Kind, ...] = ('instances', 'mask', 'auto', 'probability', 'points', 'counts')
MANY = 8


@dataclass(frozen=True)
class Source:
    """One side of one scan.

    Attributes
    ----------
    path : Path
        Image or table.
    kind : Kind
        How to read it; ``auto`` decides by the values.
    participant, session : str and str or None
        Labels without ``sub-`` and ``ses-``, of the name or the folders; where neither has
        ``sub-``, the participant is what the pattern's ``*`` stood for.
    entities : str
        The other entities that tell scans apart, such as ``acq-high_run-1``.
    listed : Listed or None
        Points or number, when a table over several scans says them.
    stand_in : bool
        Whether this is a prediction without lesions in place of one that is missing.
    named : bool
        Whether ``sub-`` says whose it is.
    root : Path or None
        Folder that it was found in.
    """

    path: Path
    kind: Kind
    participant: str
    session: str | None = None
    entities: str = ''
    listed: Listed | None = None
    stand_in: bool = False
    named: bool = False
    root: Path | None = None

    @property
    def scan(self) -> str:
        """Name of the scan, such as ``sub-01_ses-1_acq-high``."""
        words = [f'sub-{self.participant}', f'ses-{self.session}' if self.session else '']
        return '_'.join(word for word in (*words, self.entities) if word)

    @property
    def shown(self) -> str:
        """Path from the folder that it was found in, for messages."""
        return _below(self.path, self.root).as_posix()

    def beside(self, ending: str) -> Path | None:
        """Another derivative of the same scan in the same folder, or None."""
        words = self.path.name.split('_')
        own = [word for word in words if '-' in word and word.split('-')[0] not in OF_THE_FILE]
        path = self.path.with_name('_'.join([*own, ending]))
        return path if in_folder(path) else None


@dataclass(frozen=True)
class Pair:
    """A scan with both sides; ``note`` says on what they agree where it is not everything."""

    pred: Source
    truth: Source
    note: str = ''

    @property
    def scan(self) -> str:
        """Name of the scan, by the side that says more."""
        return max(self.pred.scan, self.truth.scan, key=len)


@dataclass(frozen=True)
class Pairing:
    """What was found.

    Attributes
    ----------
    pairs : tuple of Pair
        In the order of their names.
    only_pred, only_truth : tuple of Source
        Without a partner; they take no part in any score.
    """

    pairs: tuple[Pair, ...]
    only_pred: tuple[Source, ...]
    only_truth: tuple[Source, ...]


def find_sources(
    root: Path,
    side: str,
    *,
    class_name: str = 'CMB',
    kind: Kind = 'auto',
    pattern: str | None = None,
    prefer_probability: bool = False,
    count_column: str | None = None,
) -> list[Source]:
    """Find one side.

    Parameters
    ----------
    root : Path
        Folder, one image, or one table.
    side : str
        ``predictions`` or ``truth``, for messages.
    class_name : str
        Takes the place of ``{class}`` in patterns.
    kind : Kind
        Take files as this; ``auto`` goes by their names.
    pattern : str, optional
        Glob below the folder instead of the usual names.
    prefer_probability : bool
        Look for probability maps first, to threshold them.
    count_column : str, optional
        Of a table of counts.

    Raises
    ------
    NoInputError
        If there is nothing.
    DataError
        If two files belong to one scan, or name and folder of one do not agree on whose it is.
    UsageError
        If the pattern is none that can be looked for below the folder.
    """
    if root.is_file():
        return _single(root, kind, count_column)
    if not root.is_dir():
        raise NoInputError(f'There is no folder or file <{root}> with {side}; check the path')
    if pattern is not None:
        pattern = pattern.replace('{class}', class_name)
        files = _by_pattern(root, pattern, side)
        found = _sources([(path, pattern) for path in files], kind, root)
    else:
        found = _by_names(root, class_name, kind, prefer_probability=prefer_probability)
    if not found:
        raise NoInputError(nothing_found(root, side, class_name, pattern))
    found = _expand(found, count_column)
    _refuse_twins(found, side)
    return sorted(found, key=lambda source: source.scan)


def _by_pattern(root: Path, pattern: str, side: str) -> list[Path]:
    try:
        files = set(root.glob(pattern) if '/' in pattern else root.rglob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise UsageError(
            f'--{option(side)}-pattern "{pattern}" cannot be looked for below <{root}> '
            f'({error}); it is relative to that folder, and ** stands for whole folders, as in '
            '"**/*_lesions.nii.gz"'
        ) from error
    files.update(files_below(root, pattern))  # ** of pathlib follows no links to folders
    return sorted(path for path in files if in_folder(path) and not _hidden(path, root))


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith('.') for part in path.relative_to(root).parts)


def _by_names(
    root: Path, class_name: str, kind: Kind, *, prefer_probability: bool
) -> list[Source]:
    """Take the first kind of name that the tree has; a tree is not mixed."""
    order: list[Kind] = list(_ORDER) if kind == 'auto' else [kind, 'auto']
    if prefer_probability:
        order = ['probability', *order]
    files = files_below(root)
    for wanted in order:
        for pattern in _PATTERNS[wanted]:
            globs = [
                pattern.replace('{class}', class_name).replace('{image}', ending)
                for ending in (_IMAGE if '{image}' in pattern else ('',))
            ]
            named = [
                (path, glob)
                for path in files
                for glob in globs
                if fnmatch.fnmatchcase(path.name, glob)
                and ('{class}' in pattern or not _of_another(path, class_name))
                and not (wanted == 'counts' and kind != 'counts' and path.parent != root)
            ]
            if named:
                as_kind = kind if wanted == 'auto' and kind != 'auto' else wanted
                if wanted == 'instances' and kind == 'auto':
                    as_kind = 'auto'  # a map of one value may have this name too
                return _sources(named, as_kind, root)
    return []


def _of_another(path: Path, class_name: str) -> bool:
    """Whether the name says that it is about something else."""
    words = path.name.split('.')[0].split('_')
    said = [word.split('-', 1) for word in words if '-' in word]
    return any(key in ('desc', 'label') and value != class_name for key, value in said)


def _sources(matched: list[tuple[Path, str]], kind: Kind, root: Path | None) -> list[Source]:
    """Say of the files of one side, each with its pattern, which scan it belongs to.

    All go by the same: by ``sub-`` in names and folders as soon as one file has it, else by what
    ``*`` stood for. Mixed, the number of somebody's second file is another's label.
    """
    labels = [_labels(path, root) for path, _ in matched]
    if any('sub' in found for found in labels):
        own = ['_'.join(_below(path, root).parts).split('.')[0] for path, _ in matched]
    else:
        own = _by_stars(matched, root)
    sources = []
    for (path, _), found, label in zip(matched, labels, own, strict=True):
        others = [f'{key}-{value}' for key, value in found.items() if key not in ('sub', 'ses')]
        source = Source(path, _kind_of_name(path) if kind == 'auto' else kind, label, root=root)
        if 'sub' in found:
            source = replace(
                source, participant=found['sub'], session=found.get('ses'),
                entities='_'.join(others), named=True,
            )  # fmt: skip
        sources.append(source)
    return sources


def _below(path: Path, root: Path | None) -> Path:
    return Path(path.name) if root is None else path.relative_to(root)


def _labels(path: Path, root: Path | None) -> dict[str, str]:
    """Entities of a file's folders below the root and of its name, which has to agree.

    Raises
    ------
    DataError
        If the name has another participant or session than the folder.
    """
    folders: dict[str, str] = {}
    for part in _below(path, root).parent.parts:
        if part.startswith(('sub-', 'ses-')):
            folders |= entities_of(part)
    name = entities_of(path.name.split('.')[0])
    for key in ('sub', 'ses'):
        if folders.get(key, name.get(key)) != name.get(key, folders.get(key)):
            raise DataError(
                f'<{path}> belongs to {key}-{folders[key]} by its folder and to '
                f'{key}-{name[key]} by its name; rename or move it, or narrow the pattern'
            )
    if 'sub' not in name:  # not every word with a hyphen is an entity: lesions-manual_run-1
        name = {key: name[key] for key in ('ses', *ENTITY_COLUMNS) if key in name}
    found = {**folders, **name}
    return {key: value for key, value in found.items() if key not in OF_THE_FILE}


def _by_stars(matched: list[tuple[Path, str]], root: Path | None) -> list[str]:
    """Labels by what ``*`` stood for in all names, or else in all paths below the root."""
    names = [_caught(pattern.rsplit('/', 1)[-1], path.name) for path, pattern in matched]
    if not all(names):  # the same name for everybody, or for somebody
        paths = [_caught(pattern, _below(path, root).as_posix()) for path, pattern in matched]
        names = paths if all(paths) else names
    return [
        name or path.name.split('.')[0] for name, (path, _) in zip(names, matched, strict=True)
    ]


def _caught(pattern: str, text: str) -> str:
    """What the ``*`` and ``?`` of a glob stood for, ``**`` and the file's ending left out."""
    translated = re.escape(pattern).replace(r'\*\*/', '(?:.*/)?')
    translated = translated.replace(r'\*', '([^/]*)').replace(r'\?', '([^/])')
    match = re.fullmatch(translated, text)
    if match is None:
        return ''
    end = len(text.removesuffix('.gz').removesuffix('.nii').removesuffix('.tsv'))
    spans = [match.span(number) for number in range(1, match.re.groups + 1)]
    return '_'.join(part for start, stop in spans if (part := text[start : min(stop, end)]))


def _kind_of_name(path: Path) -> Kind:
    if path.suffix == '.tsv':
        return 'points'
    stem = path.name.split('.')[0]
    return 'probability' if stem.endswith('_probseg') else 'auto'


def _single(path: Path, kind: Kind, count_column: str | None) -> list[Source]:
    if path.suffix == '.tsv' and kind == 'auto':
        columns = read_rows(path)[0]
        kind = 'points' if {'x', 'y', 'z'} <= set(columns) else 'counts'
    expanded = _expand(_sources([(path, '*')], kind, None), count_column)
    _refuse_twins(expanded, 'the table')
    return expanded


def _expand(found: Iterable[Source], count_column: str | None) -> list[Source]:
    """Turn tables over several scans into one source per scan."""
    sources: list[Source] = []
    for source in found:
        if source.kind == 'counts':
            rows = count_rows(source.path, count_column)
        elif (
            source.kind == 'points'
            and source.path.exists()  # else it is said when its scan is read, if it is at all
            and 'participant_id' in read_rows(source.path)[0]
        ):
            rows = point_rows(source.path)
        else:
            sources.append(source)
            continue
        sources += [
            replace(
                source,
                participant=row.participant,
                session=row.session,
                entities=row.entities,
                listed=row,
            )
            for row in rows
        ]
    return sources


def _refuse_twins(found: Iterable[Source], side: str) -> None:
    """Refuse two files for one scan: which of them counts is not ours to choose."""
    seen: dict[str, Source] = {}
    for source in found:
        other = seen.setdefault(source.scan, source)
        if other is not source and source.listed is not None and other.path == source.path:
            raise DataError(
                f'The table <{source.path}> has two rows for {source.scan}; leave one, or tell '
                f'the scans apart by a column session_id, {", ".join(ENTITY_COLUMNS)}, or by '
                'names such as sub-01_run-1 under scan'
            )
        if other is not source:
            way_out = (
                'scans of one participant are told apart by ses- or run- in names or folders'
                if source.named
                else 'where the label of the participant is in the folder, the pattern needs a * '
                'for it, as in "*/lesions.nii.gz"'
            )
            raise DataError(
                f'{source.scan} is there twice in {side}: <{other.path}> and <{source.path}>. '
                f'Remove one, or narrow the pattern; {way_out}'
            )


def pair_up(pred: list[Source], truth: list[Source], *, given: bool = False) -> Pairing:
    """Bring both sides together.

    First by all entities that tell scans apart; then what is left by participant and session, and
    by participant alone, where that leaves one candidate on each side. An entity that both sides
    name has to be the same in every case; where one side is a table, 1 and 01 are.

    Parameters
    ----------
    pred, truth : list of Source
        Of :func:`find_sources`. One file on each side makes a pair whatever the names are, unless
        both say whose they are.
    given : bool
        Whether both were given as files, so that nobody has to be told of their names.
    """
    if len(pred) == 1 and len(truth) == 1 and not (_is_known(pred[0]) and _is_known(truth[0])):
        note = (
            ''
            if given or pred[0].scan == truth[0].scan
            else f'prediction <{pred[0].shown}> and truth <{truth[0].shown}> were paired '
            'as the only ones; see whether they are of one scan'
        )
        return Pairing((Pair(pred[0], truth[0], note),), (), ())
    pairs: list[Pair] = []
    left, right = list(pred), list(truth)
    tables = any(source.listed is not None for source in (*pred, *truth))
    plainly = {id(source): _plainly(source) if tables else source for source in (*pred, *truth)}
    known = {id(source): source for source in (*pred, *truth)}
    for how, names in (
        ('same', known), ('same', plainly), ('session', plainly), ('participant', plainly),
    ):  # fmt: skip
        for first in list(left):
            mine = names[id(first)]
            same = [other for other in right if _fits(mine, names[id(other)], how)]
            rivals = [
                other for other in left
                if same and _fits(names[id(other)], names[id(same[0])], how)
            ]  # fmt: skip
            if len(same) == 1 and len(rivals) == 1:
                pairs.append(Pair(first, same[0], _note(first, same[0], how)))
                left.remove(first)
                right.remove(same[0])
    pairs.sort(key=lambda pair: pair.scan)
    return Pairing(tuple(pairs), tuple(left), tuple(right))


def _plainly(source: Source) -> Source:
    """Write numbers as programs for tables do, which make 1 of 01."""
    pairs = (word.split('-', 1) for word in source.entities.split('_') if word)
    return replace(
        source,
        participant=plain(source.participant),
        session=plain(source.session) if source.session else None,
        entities='_'.join(f'{key}-{plain(value)}' for key, value in pairs),
    )


def _is_known(source: Source) -> bool:
    return source.named or source.listed is not None


def _note(first: Source, second: Source, how: str) -> str:
    if first.scan == second.scan:
        return ''
    by = {
        'same': 'their labels without zeros before numbers',
        'session': 'participant and session',
        'participant': 'participant',
    }[how]
    return f'prediction {first.scan} and truth {second.scan} were paired by {by}'


def _contradict(first: Source, second: Source) -> bool:
    """Whether an entity that both sides name differs: run-1 is never run-2."""
    one, other = (
        dict(word.split('-', 1) for word in source.entities.split('_') if word)
        for source in (first, second)
    )
    return any(one[key] != other[key] for key in one.keys() & other.keys())


def _fits(first: Source, second: Source, how: str) -> bool:
    if how == 'same':
        return first.scan == second.scan
    if _contradict(first, second):
        return False
    if how == 'participant':
        # a side without sessions fits a participant's only session, never another session
        return first.participant == second.participant and None in (first.session, second.session)
    return (first.participant, first.session) == (second.participant, second.session)


def keep_participants(found: list[Source], labels: Iterable[str]) -> list[Source]:
    """Keep the sources of some participants; ``sub-`` may be written or not.

    A label that no source has is that of a table which lost the zeros before its number.
    """
    wanted = {label.removeprefix('sub-') for label in labels}
    lost = {plain(label) for label in wanted - {source.participant for source in found}}
    return [
        source for source in found
        if source.participant in wanted
        or (source.listed is not None and plain(source.participant) in lost)
    ]  # fmt: skip


def some(names: Iterable[str]) -> str:
    """List the first few names for a message."""
    names = list(names)
    more = f' and {len(names) - MANY} more' if len(names) > MANY else ''
    return ', '.join(names[:MANY]) + more
