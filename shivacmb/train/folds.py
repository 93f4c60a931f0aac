"""Folds: alike in lesion load and dataset, and nobody in two of them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from shivacmb.exceptions import DataError, UsageError

#: Lesions of the person's worst scan from which the next class of load begins (Tsuchida 2024).
LOADS = (0, 1, 4, 10)


def load_class(count: float) -> int:
    """Index of the class of load: 0, 1-3, 4-9, 10 and more lesions."""
    return sum(count >= least for least in LOADS) - 1


def check_folds(people: int, folds: int) -> None:
    """Refuse more folds than people.

    Raises
    ------
    UsageError
        Then.
    """
    if people < folds:
        raise UsageError(
            f'{people} person(s) cannot fill {folds} folds, because all scans of a person '
            'stay in one; label more people, or lower --folds'
        )


def assign_folds(
    persons: Sequence[str],
    datasets: Sequence[str],
    counts: Sequence[int],
    *,
    folds: int,
    seed: int,
    fixed: Mapping[str, int] | None = None,
) -> list[int]:
    """Deal scans into folds, stratified on lesion load within each dataset.

    Persons go one by one, class of load by class of load and those with most scans first, to the
    fold with the fewest scans of their dataset and class so far, then of their dataset, then of
    all; the seed decides what is still equal.

    Parameters
    ----------
    persons, datasets : sequence of str
        Of each scan; all scans of a person go to one fold.
    counts : sequence of int
        Lesions of each scan. A person's class is that of the scan with the most.
    folds : int
        How many.
    seed : int
        Of the order.
    fixed : mapping of str to int, optional
        Persons whose fold is decided already (an earlier round of labelling).

    Returns
    -------
    list of int
        Fold of each scan, from 0.

    Raises
    ------
    UsageError
        There are fewer persons than folds.
    """
    scans = Counter(persons)
    check_folds(len(scans), folds)
    home = dict(zip(persons, datasets, strict=True))
    worst: dict[str, int] = defaultdict(int)
    for person, count in zip(persons, counts, strict=True):
        worst[person] = max(worst[person], count)
    rng = np.random.default_rng(seed)
    names = sorted(scans)
    lot = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
    order = sorted(names, key=lambda name: (home[name], -load_class(worst[name]), -scans[name],
                                            lot[name]))  # fmt: skip
    chosen: dict[str, int] = {name: fold for name, fold in (fixed or {}).items() if name in scans}
    in_class: Counter[tuple[str, int, int]] = Counter()
    in_dataset: Counter[tuple[str, int]] = Counter()
    total: Counter[int] = Counter()

    def enter(name: str, fold: int) -> None:
        chosen[name] = fold
        in_class[home[name], load_class(worst[name]), fold] += scans[name]
        in_dataset[home[name], fold] += scans[name]
        total[fold] += scans[name]

    for name in order:
        if name in chosen:
            enter(name, chosen[name])
    for name in order:
        if name in chosen:
            continue
        turn = rng.permutation(folds).tolist()
        enter(name, min(range(folds), key=lambda fold: (
            in_class[home[name], load_class(worst[name]), fold],
            in_dataset[home[name], fold], total[fold], turn[fold],
        )))  # fmt: skip
    empty = [fold for fold in range(folds) if not total[fold]]
    if empty:
        raise UsageError(
            f'fold {empty[0]} is left without a scan; give a table of folds with all of 0 to '
            f'{folds - 1}, or lower --folds'
        )
    return [chosen[person] for person in persons]


def write_folds(rows: Sequence[tuple[str, str, int | str, int]]) -> str:
    """Return the text of a table of folds: person, scan and lesions (n/a: none here), fold."""
    lines = ['person\tscan\tlesions\tfold']
    lines += ['\t'.join(str(cell) for cell in row) for row in rows]
    return '\n'.join(lines) + '\n'


def read_folds(path: Path, folds: int) -> dict[str, int]:
    """Read the folds of persons from a table that an earlier training wrote.

    Parameters
    ----------
    path : Path
        TSV with the columns ``person`` and ``fold``.
    folds : int
        Number of folds.

    Returns
    -------
    dict of str to int
        Fold by person.

    Raises
    ------
    DataError
        It is no UTF-8, a column is missing, a fold does not exist, or a person is in two.
    """
    found: dict[str, int] = {}
    for number, row in enumerate(_rows(path), start=2):
        person, text = row.get('person'), row.get('fold') or ''
        if not person or not text.isdecimal() or int(text) >= folds:
            raise DataError(
                f'line {number} of <{path}> must have a person and a fold from 0 to '
                f'{folds - 1}; take the folds.tsv of an earlier training'
            )
        if found.setdefault(person, int(text)) != int(text):
            raise DataError(f'<{path}> has {person} in two folds; keep one')
    return found


def folds_sha256(folds: Mapping[str, int]) -> str:
    """Checksum of a table of folds, by which a later one is known for the same; it has no names.

    Parameters
    ----------
    folds : mapping of str to int
        Of :func:`read_folds`.

    Returns
    -------
    str
    """
    return hashlib.sha256(json.dumps(sorted(folds.items())).encode()).hexdigest()


def absent_in(path: Path) -> set[str]:
    """Return persons of a table who had no scan in the training that wrote it."""
    rows = _rows(path)
    present = {row.get('person') for row in rows if row.get('scan') != 'n/a'}
    return {row['person'] for row in rows if row.get('person')} - present


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        # some programs begin such files with a mark
        with path.open(newline='', encoding='utf-8-sig') as stream:
            return list(csv.DictReader(stream, delimiter='\t'))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f'the table of folds <{path}> is no text in UTF-8 with tabs ({error}); save it as '
            'such, or take the folds.tsv of an earlier training'
        ) from error
