"""Folds: nobody in two, loads and datasets spread."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shivacmb.exceptions import DataError, UsageError
from shivacmb.train.folds import absent_in, assign_folds, load_class, read_folds, write_folds


def cohort(seed: int) -> tuple[list[str], list[str], list[int]]:
    """Two datasets; some people with several scans."""
    rng = np.random.default_rng(seed)
    persons, datasets, counts = [], [], []
    for dataset, people in (('a', 30), ('b', 18)):
        for number in range(people):
            base = int(rng.choice([0, 0, 2, 6, 15]))
            for _ in range(int(rng.integers(1, 4))):
                persons.append(f'{dataset}/sub-{number:02d}')
                datasets.append(dataset)
                counts.append(base)
    return persons, datasets, counts


@pytest.mark.parametrize('seed', range(5))
def test_nobody_is_in_two_folds_and_every_stratum_is_spread(seed: int) -> None:
    persons, datasets, counts = cohort(seed)
    folds = assign_folds(persons, datasets, counts, folds=3, seed=seed)
    homes: dict[str, set[int]] = {}
    for person, fold in zip(persons, folds, strict=True):
        homes.setdefault(person, set()).add(fold)
    assert all(len(own) == 1 for own in homes.values())
    strata = Counter(zip(datasets, map(load_class, counts), folds, strict=True))
    for dataset in 'ab':
        for load in range(4):
            sizes = [strata[dataset, load, fold] for fold in range(3)]
            # a person has at most three scans
            assert max(sizes) - min(sizes) <= 3
    totals = Counter(folds)
    assert max(totals.values()) - min(totals.values()) <= 0.25 * len(folds) / 3 + 3


def test_the_same_seed_gives_the_same_folds_in_any_order() -> None:
    persons, datasets, counts = cohort(1)
    folds = assign_folds(persons, datasets, counts, folds=3, seed=7)
    order = np.random.default_rng(0).permutation(len(persons))
    again = assign_folds(
        [persons[i] for i in order], [datasets[i] for i in order], [counts[i] for i in order],
        folds=3, seed=7,
    )  # fmt: skip
    assert [folds[i] for i in order] == again
    assert assign_folds(persons, datasets, counts, folds=3, seed=8) != folds


def test_a_load_class_ends_where_the_paper_says() -> None:
    assert [load_class(n) for n in (0, 1, 3, 4, 9, 10, 99)] == [0, 1, 1, 2, 2, 3, 3]


def test_decided_folds_stay_and_others_fill_up(tmp_path: Path) -> None:
    persons = ['d/sub-1', 'd/sub-2', 'd/sub-3', 'd/sub-4']
    table = tmp_path / 'folds.tsv'
    table.write_text(write_folds([('d/sub-2', 'x', 1, 1), ('d/sub-9', 'y', 0, 0)]))
    fixed = read_folds(table, 2)
    assert fixed == {'d/sub-2': 1, 'd/sub-9': 0}
    for seed in range(8):
        folds = assign_folds(persons, ['d'] * 4, [1] * 4, folds=2, seed=seed, fixed=fixed)
        assert folds[1] == 1
        assert sorted(folds) == [0, 0, 1, 1]


def test_too_few_people_are_refused() -> None:
    with pytest.raises(UsageError, match=r'2 person\(s\) cannot fill 3 folds'):
        assign_folds(['a', 'a', 'b'], ['d'] * 3, [1, 1, 1], folds=3, seed=0)


def test_a_table_that_leaves_a_fold_empty_is_refused() -> None:
    with pytest.raises(UsageError, match='fold 1 is left without a scan'):
        assign_folds(['a', 'b'], ['d'] * 2, [1, 1], folds=2, seed=0, fixed={'a': 0, 'b': 0})


@pytest.mark.parametrize(
    ('row', 'message'),
    [('p\tx\t1\t5', 'line 2 of <.*> must have a person and a fold from 0 to 2'),
     ('p\tx\t1\t\u00b2', 'line 2 of <.*> must have a person and a fold from 0 to 2'),
     ('p\tx\t1\t0\np\ty\t1\t1', 'has p in two folds')],
)  # fmt: skip
def test_a_table_with_nonsense_is_refused(tmp_path: Path, row: str, message: str) -> None:
    table = tmp_path / 'folds.tsv'
    table.write_text('person\tscan\tlesions\tfold\n' + row + '\n', 'utf-8')
    with pytest.raises(DataError, match=message):
        read_folds(table, 3)


def test_a_table_with_a_mark_at_its_start_is_read(tmp_path: Path) -> None:
    table = tmp_path / 'folds.tsv'
    table.write_text('person\tscan\tlesions\tfold\r\nd/sub-1\tx\t1\t1\r\n', 'utf-8-sig')
    assert read_folds(table, 2) == {'d/sub-1': 1}
    assert absent_in(table) == set()


@pytest.mark.parametrize('content', [
    'person\tscan\tlesions\tfold\nd/sub-1\tx\t1\t0\n'.encode('utf-16'),
    'person\tscan\tlesions\tfold\nd/é\tx\t1\t0\n'.encode('latin-1'),
    b'person\tfold\n' + b'x' * 200_000 + b'\t0\n',
], ids=['utf-16', 'latin-1', 'endless'])  # fmt: skip
def test_a_table_that_is_no_utf8_is_named(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / 'folds.tsv'
    table.write_bytes(content)
    with pytest.raises(DataError, match=r'<.*folds\.tsv> is no text in UTF-8 .*; save it as such'):
        read_folds(table, 2)
