"""Which people are the same, and what may have been seen before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shivacmb.exceptions import DataError, UsageError
from shivacmb.train.curves import read_curve
from shivacmb.train.dataset import Query
from shivacmb.train.loop import _read_curve
from shivacmb.train.plan import Plan
from shivacmb.train.run import (
    RUNS,
    SETTINGS,
    Task,
    _check_continued,
    _dataset_names,
    _fixed_folds,
    _note_run,
    gather,
    read_runs,
    start_caution,
    used_precision,
)


def task(tmp_path: Path, **changes: Any) -> Task:
    plan = Plan(folds=2)
    return Task(plan, Query(plan.inputs, plan.classes), (), tmp_path / 'work', **changes)


def start(folds: int) -> Any:
    return SimpleNamespace(name='first', version='1.0', folds=tuple(range(folds)))


def test_only_further_folders_of_a_name_get_a_number(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ('a/raw', 'b/raw', 'c/raw', 'c/other', 'd/raw-2')]
    assert _dataset_names(folders[:1]) == ['raw']
    assert _dataset_names(folders) == ['raw', 'raw-2', 'raw-3', 'other', 'raw-2-2']


def test_a_dataset_given_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'raw')
    folders = [tmp_path / 'raw', tmp_path / 'other', tmp_path / 'link', tmp_path / 'x/../raw']
    assert _dataset_names(folders) == ['raw', 'other', 'raw', 'raw']


def test_a_scan_with_two_label_maps_is_refused(labelled: Path, tmp_path: Path) -> None:
    pair = (labelled / 'raw', labelled / 'labels')
    mine = replace(task(tmp_path), sets=(pair, pair))
    with pytest.raises(
        UsageError, match='5 scans, such as raw/sub-01_T2starw, have labels in two'
    ):
        gather(mine, lambda: False, lambda _: None)


def test_a_table_of_other_people_is_refused(tmp_path: Path) -> None:
    table = tmp_path / 'folds.tsv'
    table.write_text('person\tscan\tlesions\tfold\nraw/sub-01\tx\t1\t1\n')
    mine = task(tmp_path, fold_table=table)
    told: list[str] = []
    with pytest.raises(UsageError, match='names none of the 2 people of the scans, such as new/s'):
        _fixed_folds(mine, {'new/sub-01', 'new/sub-02'}, told.append)
    fixed = _fixed_folds(mine, {'raw/sub-01', 'raw/sub-02'}, told.append)
    assert fixed == {'raw/sub-01': 1}
    assert told == [f'1 of 2 people keep their folds from <{table}>']


def test_a_start_that_may_have_seen_the_unseen_scans_is_told(tmp_path: Path) -> None:
    table = tmp_path / 'folds.tsv'
    assert start_caution(task(tmp_path)) == ''
    assert start_caution(task(tmp_path, start=start(2), fold_table=table)) == ''
    alone = start_caution(task(tmp_path, start=start(2)))
    assert alone.startswith('the training began with first 1.0, without a table of folds: if')
    mean = start_caution(task(tmp_path, start=start(3), fold_table=table))
    assert 'each fold with the mean of its 3: if people of these scans' in mean


def test_the_precision_of_every_run_is_remembered(tmp_path: Path) -> None:
    assert read_runs(tmp_path) == []
    for precision in ('mixed_bfloat16', 'mixed_bfloat16', 'float32'):
        _note_run(tmp_path, {'device': 'cpu'}, precision)
    assert [run['precision'] for run in read_runs(tmp_path)] == ['mixed_bfloat16', 'float32']
    assert used_precision(Plan(patch=16, precision='mixed_bfloat16')) == 'float32'
    assert used_precision(Plan(patch=32, precision='mixed_bfloat16')) == 'mixed_bfloat16'


@pytest.mark.parametrize('text', ['', '{"a', '[1]', '{"scans": 3}', '"text"', '\x80'])
def test_damaged_records_are_named(tmp_path: Path, text: str) -> None:
    for name in (RUNS, SETTINGS):
        (tmp_path / name).write_text(text, encoding='latin-1')
    with pytest.raises(DataError, match=r'runs\.json> cannot be read, .* copy it again, or'):
        read_runs(tmp_path)
    with pytest.raises(DataError, match=r'settings\.json> cannot be read'):
        _check_continued({'scans': {}}, tmp_path / SETTINGS)


@pytest.mark.parametrize('row', ['1\t2', 'x\t1\t1', '\x80'])
def test_a_damaged_curve_is_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / 'curve.tsv'
    assert read_curve(path) == []
    path.write_text(f'step\tlearning_rate\tloss\n{row}\n', encoding='latin-1')
    with pytest.raises(DataError, match=r'the learning curve <.*> cannot be read'):
        read_curve(path)
    if not row.startswith('1'):
        with pytest.raises(DataError, match=r'the learning curve <.*> cannot be read'):
            _read_curve(path, 5)
