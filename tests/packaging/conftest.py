"""What tests of the images share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CONTAINERS = Path(__file__).parents[2] / 'containers'


@pytest.fixture
def container_script() -> Callable[[str], ModuleType]:
    """Import a Python script of containers/, which is no package."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, CONTAINERS / f'{name}.py')
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
