"""What a bundle's folder holds, and when it appears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shivacmb.exceptions import OutputError
from shivacmb.models import write_bundle


def test_papers_come_with_the_bundle_or_nothing_does(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    fold, card = tmp_path / 'any.keras', tmp_path / 'README.md'
    fold.write_bytes(b'not opened without its OpenVINO form')
    target = tmp_path / 'models' / 'small'
    with pytest.raises(OutputError, match=r'cannot write <.*small>'):
        write_bundle(target, [fold], description, openvino=False, papers=[card])
    assert not list(target.parent.iterdir())
    card.write_text('# small')
    write_bundle(target, [fold], description, openvino=False, papers=[card])
    assert sorted(path.name for path in target.iterdir()) == [
        'README.md', 'fold-0.keras', 'model.json',
    ]  # fmt: skip
