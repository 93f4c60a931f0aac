"""The labelled scans of one dataset or several, each with maps and a mask of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from shivacmb.bids.channels import bare_name, session_images
from shivacmb.bids.find import name_some
from shivacmb.exceptions import NoInputError, UsageError
from shivacmb.train.dataset import LabelledScan, Query, endings_of, find_labelled


def dataset_names(folders: Sequence[Path]) -> list[str]:
    """Name of each folder; a number tells further folders of a name apart.

    The first keeps its name, so that a table of folds still fits when a dataset is added, and a
    folder that is given twice is one dataset, its people the same.
    """
    names: dict[Path, str] = {}
    for path in (folder.resolve() for folder in folders):
        if path not in names:
            free = (path.name, *(f'{path.name}-{number}' for number in range(2, len(folders) + 2)))
            names[path] = next(name for name in free if name not in names.values())
    return [names[folder.resolve()] for folder in folders]


def gather_labelled(
    sets: Sequence[tuple[Path, Path]], query: Query, tell: Callable[[str], None]
) -> list[LabelledScan]:
    """Find the labelled scans of all datasets.

    Parameters
    ----------
    sets : sequence of (Path, Path)
        Datasets and their labels.
    query : Query
        What to look for. With several datasets a folder of masks whose name is that of a dataset
        serves this one alone, and ``{dataset}`` in a pattern of masks stands for the name.
    tell : callable
        Receives a line about each scan that is passed over.

    Returns
    -------
    list of LabelledScan

    Raises
    ------
    UsageError
        A scan is found twice, or datasets that share a participant's label share their masks.
    NoInputError
        A label map is that of several scans, a mask that of several people, or nobody who was
        asked for is there.
    """
    tags = dataset_names([bids for bids, _ in sets])
    scans: list[LabelledScan] = []
    people: dict[str, set[str]] = {}
    known: set[str] = set()
    for (bids, labels), tag in zip(sets, tags, strict=True):
        found = find_labelled(bids, labels, _for_dataset(query, tag, tags), name=tag)
        scans += found.scans
        people.setdefault(tag, set()).update(found.participants)
        for name, reason in found.passed_over:
            tell(f'passed over {name}: {reason}')
        for name, reason in found.refused:
            known.add(name.partition('/')[0].removeprefix('sub-'))
            tell(f'warning: passed over {name}: {reason}')
        if found.two_maps:
            tell(
                f'warning: {len(found.two_maps)} scans, such as {found.two_maps[0]}, have label '
                'maps of both names (desc-..._dseg and label-..._mask); the first is taken. '
                'Remove the others, or name those that are meant with --labels'
            )
    _tell_mistyped(sets, query, tell)
    if not scans:
        raise NoInputError(
            'no scan of '
            + ', '.join(f'sub-{label}' for label in query.participants or ())
            + ' in '
            + ', '.join(f'<{bids}>' for bids, _ in sets)
            + '; check --participant-label'
        )
    _check_masks(query, people)
    _check_scans(scans)
    _tell_left_over(sets, query, known.union(*people.values()), tell)
    labelled: dict[str, set[str]] = {}
    for scan in scans:
        labelled.setdefault(scan.dataset, set()).add(scan.participant)
    for one, other in combinations(labelled, 2):
        if shared := labelled[one] & labelled[other]:
            tell(
                f'warning: {len(shared)} labels, such as sub-{min(shared)}, are in {one} and in '
                f'{other} and count as different people; if they are the same, put them into the '
                'same folds with --fold-table'
            )
    return scans


def _tell_mistyped(
    sets: Sequence[tuple[Path, Path]], query: Query, tell: Callable[[str], None]
) -> None:
    """Say which labels of the selection are those of nobody."""
    known = {path.name.removeprefix('sub-') for bids, _ in sets for path in bids.glob('sub-*')}
    for option, labels, then in (
        ('--participant-label', query.participants or (), 'nothing is learnt from them'),
        ('--exclude-participant-label', query.exclude, 'whoever is meant is learnt from'),
    ):
        if unknown := sorted(set(labels) - known):
            named = name_some(f'sub-{label}' for label in unknown)
            tell(
                f'warning: {option}: there is no {named}; see whether that is what you meant: '
                + then
            )


def _tell_left_over(
    sets: Sequence[tuple[Path, Path]], query: Query, known: Set[str],
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    """Say who has label maps and no scan: a slip in a name would cost them without a word."""
    if query.pattern is not None or query.filters is not None:
        return
    endings = tuple(f'_{ending}' for item in query.classes for ending in endings_of(item))
    left_over = sorted({
        path.name
        for _, labels in sets
        for folder in labels.glob('sub-*')
        if _is_meant(folder.name.removeprefix('sub-'), query, known)
        for session in (folder, *folder.glob('ses-*'))
        for path in session_images(session)
        if bare_name(path).endswith(endings)
    })  # fmt: skip
    if left_over:
        contrasts = ' or '.join(query.inputs[0].contrasts)
        tell(
            f'warning: {name_some(left_over)}: no scan ({contrasts}) of these people was found '
            'and nothing is learnt from their labels; see whether a name has a slip, or --input'
        )


def _is_meant(label: str, query: Query, known: Set[str]) -> bool:
    asked = query.participants is None or label in query.participants
    return asked and label not in known and label not in query.exclude


def _for_dataset(query: Query, tag: str, tags: Sequence[str]) -> Query:
    if len(set(tags)) == 1:
        return query
    folders = query.derivatives
    own = [tag] if tag in folders else [name for name in folders if name not in tags]
    pattern = query.mask_pattern
    return replace(
        query,
        derivatives={name: folders[name] for name in own},
        mask_pattern=None if pattern is None else pattern.replace('{dataset}', tag),
    )


def _check_masks(query: Query, people: dict[str, set[str]]) -> None:
    """Refuse masks of which nobody can tell whose they are."""
    for one, other in combinations(people, 2):
        shared = people[one] & people[other]
        if not shared:
            continue
        both = f'{one} and {other} both have a sub-{min(shared)}'
        if query.mask_pattern is not None:
            if '{dataset}' not in query.mask_pattern:
                raise UsageError(
                    f'{both}, and --brain-mask {query.mask_pattern!r} names one mask for the two; '
                    'add {dataset}, which stands for the name of the dataset'
                )
        elif any(name not in people for name in query.derivatives) and not (
            {one, other} & query.derivatives.keys()
        ):
            raise UsageError(
                f'{both}, whose masks may be the same file; name the folder of each dataset: '
                f'-d {one}=PATH {other}=PATH'
            )


def _check_scans(scans: Sequence[LabelledScan]) -> None:
    counts = Counter(scan.name for scan in scans)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UsageError(
            f'{len(twice)} scans, such as {twice[0]}, have labels in two of the folders given; '
            'a dataset may be given twice only with labels of other scans'
        )
    owners: dict[Path, LabelledScan] = {}
    wearers: dict[Path, LabelledScan] = {}
    for scan in scans:
        if scan.mask is not None:
            other = wearers.setdefault(scan.mask, scan)
            if other.person != scan.person:
                raise NoInputError(
                    f'the brain mask <{scan.mask}> is taken for {other.name} and for {scan.name}, '
                    'who are two people; name the folder of each dataset with -d'
                )
        for path in set(scan.labels):
            # links are not followed: maps of zeros may be links to one file
            other = owners.setdefault(path, scan)
            if other is not scan:
                raise NoInputError(
                    f'the label map <{path}> is taken for {other.name} and for {scan.name}; give '
                    'each its own, with {stem} in --labels, or leave one of the scans out with '
                    '--bids-filter-file'
                )
