"""Databases, settings and homes that cannot be used: the command asks none of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]


def test_locked_and_read_only_databases(
    nursery: Any, shim: Any, tools: Any, pair: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """pybids' index is in memory; files of that kind in the dataset are nobody's business."""
    names = ('.db', 'layout_index.sqlite', 'pybids.db')
    held = []
    for folder in (pair, pair / 'sub-01', nursery.folder / 'home'):
        for name in names:
            path = folder / name
            connection = sqlite3.connect(path)
            connection.execute('create table t (x)')
            connection.execute('begin exclusive')
            path.chmod(0o444)
            held.append((path, connection))
    shim.watch(nursery.folder.parent, ('open-write',))
    done = nursery.participant(pair, tmp_path / 'out')
    calls = shim.calls(nursery.folder.parent)
    for path, connection in held:
        connection.close()
        path.unlink()
    assert done.code == 0, done.err
    assert tools.results(tmp_path / 'out') == undisturbed
    assert calls
    assert [call for call in calls if '.db' in call or 'sqlite' in call] == []


@pytest.mark.parametrize('home', ['/proc/self/nowhere', '/dev/null'])
def test_home_that_cannot_be_used(
    app: Any, tools: Any, pair: Path, tmp_path: Path, home: str
) -> None:
    done = app.participant(
        pair, tmp_path / 'out', '--participant-label', '01', HOME=home, XDG_CACHE_HOME=home
    )
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr
    assert tools.scan_rows(tmp_path / 'out')['sub-01']['status'] == 'ok'


@pytest.mark.parametrize(
    ('settings', 'code'), [('{"config_paths": {"bids": "/nowhere.json"}}', 0), ('{', 64)]
)
def test_settings_of_pybids_in_the_home(
    app: Any, tools: Any, pair: Path, tmp_path: Path, settings: str, code: int
) -> None:
    """They must not change which entities are known; damaged ones are named."""
    home = tmp_path / 'home'
    home.mkdir()
    (home / 'pybids_config.json').write_text(settings)
    done = app.participant(pair, tmp_path / 'out', '--dry-run', HOME=str(home))
    assert done.returncode == code, done.stderr
    if code:
        assert 'pybids_config.json' in tools.sentence(done.stderr)
