"""Which simulator a scan of the pool comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.simulate import dataset
from shivacmb.simulate.dataset import MIMIC, UNSURE, Example
from shivacmb.train import pool, rule
from shivacmb.train.pool import Pool, load_scan, make_scan, missing_scans


@pytest.mark.parametrize(
    ('index', 'wild', 'source'),
    [(0, 4, 1), (1, 4, 2), (2, 4, 2), (4, 4, 1), (2, 2, 1), (0, 0, 2), (1, 0, 2)],
)
def test_scans_to_judge_on_come_from_a_susceptibility_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, index: int, wild: int, source: int
) -> None:
    def example(value: int) -> Any:
        empty = np.zeros((4, 4, 4), np.uint8)
        return lambda *_, **__: Example(empty + value, empty, empty.astype(np.uint16), [])

    monkeypatch.setattr(pool, '_head', lambda *_: None)
    monkeypatch.setattr(dataset, 'random_example', example(1))
    monkeypatch.setattr(dataset, 'random_subject_example', example(2))
    make_scan(tmp_path, 3, index, wild=wild)
    assert load_scan(tmp_path, index).image.max() == source


@pytest.mark.parametrize(('contrast', 'left'), [('T2starw', True), ('swi', False)])
def test_the_rule_of_a_contrast_decides_what_is_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contrast: str, *, left: bool
) -> None:
    flags = np.zeros((12, 12, 12), np.uint8)
    flags[6, 6, 6] = MIMIC
    example = Example(flags, flags, flags.astype(np.uint16), [], contrast)
    monkeypatch.setattr(pool, '_head', lambda *_: None)
    monkeypatch.setattr(dataset, 'random_subject_example', lambda *_, **__: example)
    monkeypatch.setattr(rule, 'find_zones', np.zeros_like)
    make_scan(tmp_path, 3, 1, rule={'T2starw': 0.5})
    assert bool(load_scan(tmp_path, 1).flags[6, 6, 6] & UNSURE) is left


def test_a_pool_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / 'scan-00000.npy', np.zeros((3, 4, 4, 4), np.uint8))
    (tmp_path / 'scan-00000.json').write_text('[]')
    with pytest.raises(DataError, match=r'was made by an earlier version; give another work'):
        load_scan(tmp_path, 0)


def test_processes_share_heads_not_scans_and_keep_to_the_order_of_pools(tmp_path: Path) -> None:
    first, second = Pool(tmp_path / 'a', 1, 10, {}), Pool(tmp_path / 'b', 2, 4, {})
    first.folder.mkdir()
    # of the heads 0 to 2, 3 to 5, 6 to 8 and 9 the second is there, and the first in part
    for index in (1, 3, 4, 5):
        (first.folder / f'scan-{index:05d}.npy').touch()
    assert missing_scans([first, second], 2) == [
        [(first, 0), (first, 2), (first, 9), (second, 3)],
        [(first, 6), (first, 7), (first, 8), (second, 0), (second, 1), (second, 2)],
    ]
    assert len(missing_scans([first, second], 9)) == 5
    assert missing_scans([Pool(first.folder, 1, 0, {})], 2) == []
