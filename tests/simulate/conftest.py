from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shivacmb.exceptions import DataError


@pytest.fixture
def no_brain_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network sees no brain in any scan."""

    def find(*_: Any, **__: Any) -> None:
        raise DataError('the built-in brain mask sees 0 mL of brain')

    monkeypatch.setattr('shivacmb.models.brain_mask.find_brain', find)


@pytest.fixture
def all_white_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network takes any brain for white matter: balls of noise are asked about too often."""

    def find(image: Any, **_: Any) -> SimpleNamespace:
        values = np.asarray(image.dataobj)
        return SimpleNamespace(
            mask=lambda: (values > 0.3 * values.max()).astype(np.uint8),
            is_bare=lambda _: True,
            zones=lambda mask: 22 * np.asarray(mask, np.uint8),
        )

    monkeypatch.setattr('shivacmb.models.brain_mask.find_brain', find)
