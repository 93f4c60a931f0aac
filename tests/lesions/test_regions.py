"""Which zone a lesion is said to lie in."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from shivacmb.lesions import (
    Lesion,
    group_counts,
    lesions_to_tsv,
    read_lesions,
    with_regions,
)

LESION = Lesion(1, 'CMB1', 0.0, 0.0, 0.0, 2.0, 2, 0.9, 0.8, 1.0, 3.0)


@pytest.fixture
def zones() -> np.ndarray:
    zones = np.zeros((30, 30, 30), np.uint8)
    zones[:10], zones[10:14], zones[14:20] = 11, 7, 24
    return zones


def region(zones: np.ndarray, *place: object, voxel_mm: float = 1.0) -> str:
    labels = np.zeros(zones.shape, np.int32)
    labels[place] = 1
    return with_regions([LESION], labels, zones, voxel_mm)[0].region


def test_most_voxels_decide_and_fluid_does_not_count(zones: np.ndarray) -> None:
    assert region(zones, slice(5, 12), 5, 5) == 'left cerebral cortex'
    assert region(zones, slice(9, 15), 5, 5) == 'left cerebral cortex'  # 1 to 1: smaller index
    assert region(zones, slice(9, 16), 5, 5) == 'right thalamus'  # 1 to 2, 4 in fluid


def test_a_lesion_in_fluid_or_outside_takes_the_nearest_tissue(zones: np.ndarray) -> None:
    assert region(zones, slice(12, 13), 5, 5) == 'right thalamus'
    assert region(zones, slice(22, 23), 5, 5) == 'right thalamus'
    assert region(zones, slice(29, 30), 5, 5) == 'right thalamus'
    assert region(zones, slice(29, 30), 5, 5, voxel_mm=1.25) == ''  # 12.5 mm away


def test_each_lesion_has_its_own_zone(zones: np.ndarray) -> None:
    labels = np.zeros(zones.shape, np.int32)
    labels[2, 2, 2], labels[16, 2, 2], labels[12, 2, 2] = 2, 1, 4
    lesions = [dataclasses.replace(LESION, index=index) for index in (1, 2, 4)]
    found = with_regions(lesions, labels, zones, 1.0)
    assert [item.region for item in found] == [
        'right thalamus',
        'left cerebral cortex',
        'right thalamus',
    ]
    with pytest.raises(ValueError, match=r'zones has shape \(2, 2, 2\)'):
        with_regions(lesions, labels, zones[:2, :2, :2], 1.0)


def test_counts_by_group_add_up() -> None:
    names = [
        'left cerebral cortex',
        'right cerebral white matter',
        'brainstem',
        '',
        'left thalamus',
    ]
    lesions = [dataclasses.replace(LESION, region=name) for name in names]
    assert group_counts(lesions) == {'lobar': 2, 'deep': 1, 'infratentorial': 1, 'unplaced': 1}
    assert sum(group_counts([]).values()) == 0


def test_the_table_keeps_the_region_and_reads_tables_without_it(tmp_path: Path) -> None:
    path = tmp_path / 'table.tsv'
    first = dataclasses.replace(LESION, region='left thalamus', parenchyma_fraction=0.5)
    lesions = [first, LESION]
    path.write_text(lesions_to_tsv(lesions))
    assert [item.region for item in read_lesions(path)] == ['left thalamus', '']
    assert path.read_text().splitlines()[1].endswith('\tleft thalamus\t0.5000')
    assert path.read_text().splitlines()[2].endswith('\tn/a\tn/a')
    rows = [line.split('\t') for line in path.read_text().splitlines()]
    path.write_text('\n'.join('\t'.join(row[:-2]) for row in rows) + '\n')
    assert [item.region for item in read_lesions(path)] == ['', '']
    assert all(math.isnan(item.parenchyma_fraction) for item in read_lesions(path))
