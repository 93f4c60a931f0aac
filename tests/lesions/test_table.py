from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from shivacmb.exceptions import DataError
from shivacmb.lesions import (
    LESION_COLUMNS,
    Lesion,
    burden_class,
    lesion_totals,
    lesions_to_tsv,
    read_lesions,
)

ONE = Lesion(1, 'CMB1', -12.345, 0.001, 7.0, 12.0, 12, 0.98765, 0.5, 2 / 3, 1.4142)


def test_columns_are_the_lesion_s_fields_in_order():
    assert list(LESION_COLUMNS) == [field.name for field in fields(Lesion)]
    # a unit makes the validator take a column for numbers
    for name, entry in LESION_COLUMNS.items():
        units = set() if name in ('name', 'region') else {'Units'}
        assert set(entry) == {'Description'} | units
    # BIDS asks dseg tables for these two
    assert list(LESION_COLUMNS)[:2] == ['index', 'name']


def test_text_has_fixed_decimals():
    assert lesions_to_tsv([ONE]).splitlines()[1].split('\t') == [
        '1', 'CMB1', '-12.35', '0.00', '7.00', '12.00', '12', '0.9877', '0.5000', '0.6667', '1.41',
        'n/a', 'n/a',
    ]  # fmt: skip


def test_no_minus_zero():
    assert '\t0.00\t' in lesions_to_tsv([replace(ONE, x=-0.001)])
    assert '-0.00\t' not in lesions_to_tsv([replace(ONE, x=-0.001)])


def test_no_lesion_is_the_header_alone(tmp_path):
    text = lesions_to_tsv([])
    assert text == '\t'.join(LESION_COLUMNS) + '\n'
    (tmp_path / 'a.tsv').write_text(text)
    assert read_lesions(tmp_path / 'a.tsv') == []


def test_read_back_gives_the_same_text(tmp_path):
    lesions = [ONE, replace(ONE, index=2, name='CMB2', edge_distance_mm=math.nan)]
    text = lesions_to_tsv(lesions)
    path = tmp_path / 'a.tsv'
    path.write_text(text)
    back = read_lesions(path)
    assert lesions_to_tsv(back) == text
    assert back[0].index == 1
    assert back[0].x == -12.35
    assert math.isnan(back[1].edge_distance_mm)


def test_further_columns_are_passed_over(tmp_path):
    head, row = lesions_to_tsv([ONE]).splitlines()
    (tmp_path / 'a.tsv').write_text(f'{head}\tregion\n{row}\tlobar\n')
    assert read_lesions(tmp_path / 'a.tsv')[0].name == 'CMB1'


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / 'a.tsv'
    path.write_text('index\tname\n1\tCMB1\n')
    with pytest.raises(DataError, match=r'<.*a\.tsv> lacks the column x, y, z'):
        read_lesions(path)


@pytest.mark.parametrize(('column', 'cell'), [('voxels', '3.5'), ('p_max', 'high'), ('index', '')])
def test_a_cell_that_is_no_number_is_named(tmp_path, column, cell):
    path = tmp_path / 'a.tsv'
    head, row = (line.split('\t') for line in lesions_to_tsv([ONE]).splitlines())
    row[head.index(column)] = cell
    path.write_text('\t'.join(head) + '\n' + '\t'.join(row) + '\n')
    with pytest.raises(DataError, match=f'says "{cell}" under {column}'):
        read_lesions(path)


@pytest.mark.parametrize(
    ('count', 'expected'),
    [(0, '0'), (1, '1-3'), (3, '1-3'), (4, '4-9'), (9, '4-9'), (10, '>=10'), (500, '>=10')],
)
def test_burden_class(count, expected):
    assert burden_class(count) == expected


def test_negative_count_is_refused():
    with pytest.raises(ValueError, match='not negative'):
        burden_class(-1)


def test_totals():
    totals = lesion_totals([ONE, replace(ONE, volume_mm3=0.1)])
    assert (totals.count, totals.burden_class) == (2, '1-3')
    assert totals.volume_mm3 == pytest.approx(12.1)
    voxel = 0.125000003  # of an affine in single precision
    totals = lesion_totals([replace(ONE, volume_mm3=1256 * voxel)])
    assert totals.volume_mm3 == 157
    assert lesion_totals([]).burden_class == '0'
