"""What a training must not replace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shivacmb.cli.tools import main

Refused = Callable[..., None]


@pytest.fixture
def refused(
    tmp_path: Path, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Return a function that runs the command and expects a code and a text."""
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'labels').mkdir()
    (tmp_path / 'raw' / 'precious').write_text('')

    def check(code: int, text: str, output: Path, *more: Any) -> None:
        assert main(command(tmp_path, output, *more)) == code
        said = capsys.readouterr().err
        assert text in said
        assert 'Traceback' not in said
        assert (tmp_path / 'raw' / 'precious').exists()

    return check


@pytest.mark.parametrize('place', ['raw', 'labels', 'raw/derivatives/model', '.'])
def test_the_model_does_not_replace_data(tmp_path: Path, refused: Refused, place: str) -> None:
    output = (tmp_path / place).resolve()
    refused(64, 'lie one inside the other; give a folder outside', output, '--overwrite')


def test_a_folder_that_is_no_model_is_not_replaced(tmp_path: Path, refused: Refused) -> None:
    other = tmp_path / 'thesis'
    other.mkdir()
    (other / 'chapter.txt').write_text('')
    refused(73, 'thesis> is not replaced, because it holds no model.json', other, '--overwrite')
    assert (other / 'chapter.txt').exists()


def test_the_work_is_not_in_the_model(tmp_path: Path, refused: Refused) -> None:
    for work in (tmp_path / 'model', tmp_path / 'model' / 'work'):
        refused(64, 'must not be the folder of the model', tmp_path / 'model', '--work', work)


@pytest.mark.parametrize('place', ['raw', 'labels', 'raw/derivatives/work'])
def test_a_training_does_not_work_in_the_data(
    tmp_path: Path, refused: Refused, place: str
) -> None:
    work = tmp_path / place
    refused(64, 'lies in the data', tmp_path / 'model', '--work', work)


def test_a_training_does_not_work_among_other_files(tmp_path: Path, refused: Refused) -> None:
    notes = tmp_path / 'project/README.md'
    notes.parent.mkdir()
    notes.write_text('my notes of three years')
    refused(
        64, 'is not empty and holds no training that could go on', tmp_path / 'model',
        '--work', notes.parent,
    )  # fmt: skip
    assert notes.read_text() == 'my notes of three years'
