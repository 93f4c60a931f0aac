"""Checkpoints as they lie on disk; how a training goes on from them is in test_resume."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shivacmb.exceptions import DataError
from shivacmb.train.checkpoint import CHECKPOINT, State

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
