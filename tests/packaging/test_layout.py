"""The repository shows what it should, and what is built from it is whole."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = ('workflows', 'interfaces', 'models')


@pytest.mark.skipif(
    not (ROOT / '.ci').is_dir(), reason='needs a checkout: an sdist has no links at its root'
)
@pytest.mark.parametrize('name', LINKED)
def test_root_link_leads_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path('shivacmb') / name
    assert (link / '__init__.py').is_file()


def _modules() -> list[Path]:
    return sorted((ROOT / 'shivacmb').rglob('*.py'))


def test_no_file_is_longer_than_500_lines() -> None:
    long = {path: len(path.read_text().splitlines()) for path in _modules()}
    assert {path: size for path, size in long.items() if size > 500} == {}


@pytest.mark.parametrize(
    'heavy', ['tensorflow', 'keras', 'openvino', 'matplotlib', 'nilearn', 'torch']
)
def test_heavy_packages_are_imported_inside_functions(heavy: str) -> None:
    found = []
    for path in _modules():
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            found += [path for name in names if name.split('.')[0] == heavy]
    assert found == []


@pytest.mark.parametrize('command', ['shivacmb', 'shivacmb-tools'])
def test_help_imports_nothing_heavy(command: str) -> None:
    module = 'main' if command == 'shivacmb' else 'tools'
    code = (
        f'import sys; sys.argv = [{command!r}, "--help"]\n'
        f'from shivacmb.cli.{module} import main\n'
        'try:\n    main()\nexcept SystemExit:\n    pass\n'
        'print("LOADED", *sorted({name.split(".")[0] for name in sys.modules}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rsplit('LOADED', 1)[1].split())
    assert not loaded & {'nipype', 'numpy', 'pandas', 'bids', 'nibabel', 'openvino', 'tensorflow'}
    assert 'research use only' in done.stdout.lower()
