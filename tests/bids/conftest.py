from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Path]


@pytest.fixture
def dataset(tmp_path: Path) -> Make:
    """Make a dataset from paths; a pair gives content, which is written as JSON unless text."""

    def make(*files: str | tuple[str, Mapping[str, Any] | str], name: str = 'raw') -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        description = root / 'dataset_description.json'
        description.write_text('{"Name": "test", "BIDSVersion": "1.10.0"}')
        for item in files:
            relative, content = (item, '') if isinstance(item, str) else item
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return root

    return make
