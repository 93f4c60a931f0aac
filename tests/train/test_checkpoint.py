"""Checkpoints as they lie on disk; how a training goes on from them is in test_resume."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shivacmb.exceptions import DataError, TemporaryError
from shivacmb.train.checkpoint import CHECKPOINT, State, saved_weights
from shivacmb.train.run import _steps_done

CANNOT_BE_READ = r'The checkpoint <.*> cannot be read .*copy it again, or'


@pytest.mark.parametrize(
    ('place', 'bits'), [(6, 128), (8, 1), (10, 20)], ids=['version', 'encrypted', 'compression']
)
def test_a_damaged_byte_is_named(tmp_path: Path, place: int, bits: int) -> None:
    path = tmp_path / CHECKPOINT
    np.savez(path, step=3)
    content = bytearray(path.read_bytes())
    content[content.rindex(b'PK\x01\x02') + place] ^= bits
    path.write_bytes(content)
    model: Any = SimpleNamespace()
    with pytest.raises(DataError, match=CANNOT_BE_READ):
        State(model).restore(path)
    np.savez(path, w000=np.ones(2))
    with pytest.raises(DataError, match=CANNOT_BE_READ):
        State(model).restore(path)


def test_more_than_a_thousand_arrays_keep_their_order(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {f'w{number:03d}': np.array([number]) for number in range(1101)}
    np.savez(tmp_path / CHECKPOINT, **arrays, step=2, seconds=1.0, losses=np.zeros(0))
    weights, step, _ = saved_weights(tmp_path)
    assert [int(weight[0]) for weight in weights] == list(range(1101))
    assert step == 2


def test_nobody_is_told_to_remove_a_checkpoint_for_a_failing_file_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / CHECKPOINT, w000=np.ones(2), step=2)
    assert _steps_done(tmp_path) == 2

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr('shivacmb.train.checkpoint.np.load', stale)
    model: Any = SimpleNamespace()
    with pytest.raises(TemporaryError, match='cannot be read now'):
        State(model).restore(tmp_path / CHECKPOINT)
    # nor is a fold that is trained taken for one that is not
    with pytest.raises(TemporaryError, match='cannot be read now'):
        _steps_done(tmp_path)
