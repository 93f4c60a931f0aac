"""Options of the training that cannot be: a usage message, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from shivacmb.cli.tools import main


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('--seed', '-1'),
        ('--seed', 'x'),
        ('--max-shift', '-1'),
        ('--max-rotation', '-3'),
        ('--max-rotation', 'nan'),
        ('--growth', '0'),
        ('--growth', 'inf'),
        ('--min-rate', 'nan'),
        ('--max-rate', '-1'),
        ('--decay', 'nan'),
        ('--max-minutes', 'nan'),
        ('--only-fold', '-1'),
    ],
)
def test_a_value_that_cannot_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(
            ['train', str(tmp_path), str(tmp_path), '-o', str(tmp_path / 'm'), f'{option}={value}']
        )
    assert left.value.code == 64
    said = capsys.readouterr().err
    assert f'argument {option}: expected' in said
    assert repr(value) in said
