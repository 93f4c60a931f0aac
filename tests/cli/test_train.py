from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import pytest

from shivacmb.cli.train import register
from shivacmb.exceptions import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize('absent', ['torch', 'keras'])
def test_a_backend_that_is_not_installed_stops_before_any_scan(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('KERAS_BACKEND', 'torch')
    monkeypatch.setitem(sys.modules, 'torch', sys)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, absent, None)  # type: ignore[arg-type]
    for name in ('bids', 'labels'):
        (tmp_path / name).mkdir()
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(
        ['train', str(tmp_path / 'bids'), str(tmp_path / 'labels'), '-o', str(tmp_path / 'new')]
    )
    with pytest.raises(UsageError, match=rf'needs {absent}, which is not installed'):
        args.handler(args)
    assert {path.name for path in tmp_path.iterdir()} == {'bids', 'labels'}
