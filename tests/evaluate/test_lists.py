"""Numbers and cells of tables that no scan can have: refused, with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from shivacmb.evaluate.lists import count_rows, read_points, read_rows
from shivacmb.exceptions import DataError

HUGE = '1' + 30 * '0'


def write(path: Path, text: str) -> Path:
    path.write_text(text.replace(' ', '\t'), encoding='utf-8')
    return path


@pytest.mark.parametrize(
    ('row', 'said'),
    [
        (f'1 2 {HUGE} 1 5', f'"{HUGE}" under z in line 4; places are in scanner mm'),
        ('1 2 -10001 1 5', '"-10001" under z in line 4; places are in scanner mm'),
        ('1 2 3 1000 5', '"1000" under radius in line 4; the radius of a lesion is at most 50 mm'),
        (
            f'1 2 3 1 {HUGE}',
            f'"{HUGE}" under index in line 4; a whole number from 0 to 2147483647',
        ),
        ('1 here 3 1 5', '"here" under y in line 4, where a number belongs'),
    ],
)
def test_numbers_beyond_any_scan_are_refused(tmp_path: Path, row: str, said: str) -> None:
    path = write(tmp_path / 'a.tsv', f'x y z radius index\n1 2 3 50 1\n\n{row}\n')
    with pytest.raises(DataError) as caught:
        read_points(path)
    assert f'The table <{path}> says {said}' in str(caught.value)


def test_largest_places_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.tsv', 'x y z radius\n-10000 10000 0 50\n')
    assert read_points(path).points == ((-10000, 10000, 0),)


def test_count_beyond_any_scan_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.tsv', f'participant_id count\n1 {HUGE}\n')
    with pytest.raises(DataError, match=r'a.tsv> says "10+" under count in line 2; a whole'):
        count_rows(path)


def test_cell_that_is_a_whole_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / 'a.tsv', f'x y z note\n1 2 3 n\n1 2 3 {131073 * "a"}\n')
    with pytest.raises(DataError, match=r'a.tsv> has a cell in line 3 that no table has \(field'):
        read_rows(path)
