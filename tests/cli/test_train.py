from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from shivacmb.cli.train import register
from shivacmb.exceptions import TemporaryError, UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Main = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def train_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools_main: Main
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command with another training in it."""
    monkeypatch.setattr('shivacmb.cli.train.check_backend', lambda: None)
    for name in ('bids', 'labels'):
        (tmp_path / name).mkdir()

    def run(training: Callable[..., Any]) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr('shivacmb.train.run.train_folds', training)
        return tools_main('train', tmp_path / 'bids', tmp_path / 'labels', '-o', tmp_path / 'new')

    return run


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


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


@pytest.mark.parametrize(
    'error',
    [
        ResourceExhaustedError('failed to allocate a tensor'),
        RuntimeError('CUDA out of memory. Tried to allocate 2 GiB'),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_said(train_with: Main, error: Exception) -> None:
    def training(*_: object, **__: object) -> None:
        raise error

    done = train_with(training)
    assert done.returncode == 75
    assert f'its GPU ({type(error).__name__}); free some' in done.stderr
    assert 'report it' not in done.stderr


def test_another_error_stays_what_it_is(train_with: Main) -> None:
    def training(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    assert 'unexpected ZeroDivisionError' in train_with(training).stderr


@pytest.mark.parametrize(
    ('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 75)]
)
def test_a_signal_is_told_as_one_whatever_it_ended(
    train_with: Main, number: int | None, code: int
) -> None:
    # tests may have been started with it ignored, as in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def training(*_: object, **__: object) -> None:
        if number is not None:
            os.kill(os.getpid(), number)
        # waiting for a lock, or processes that the signal ended
        raise TemporaryError('another training works in <work>')

    done = train_with(training)
    assert done.returncode == code
    assert ('another training works' in done.stderr) == (number is None)
