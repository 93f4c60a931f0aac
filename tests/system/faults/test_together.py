"""Two runs on one participant at once, with the same and with other settings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

DEADLINE_S = 400


@pytest.fixture(scope='module')
def alone(app: Any, tools: Any, pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one run writes with a threshold."""

    @cache
    def results(threshold: str) -> dict[str, str]:
        out = tmp_path_factory.mktemp('alone')
        done = app.participant(pair, out, '--participant-label', '01', '--threshold', threshold)
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = tools.results(out)
        return found

    return results


@pytest.mark.parametrize('thresholds', [('0.4', '0.4'), ('0.4', '0.7')], ids=['same', 'other'])
def test_files_of_a_scan_are_of_one_run(
    thresholds: tuple[str, str],
    app: Any,
    shim: Any,
    tools: Any,
    pair: Path,
    alone: Any,
    ended: Any,
    tmp_path: Path,
) -> None:
    """Each waits while the other puts its files in place, slowly."""
    expected = [alone(threshold) for threshold in thresholds]
    assert (expected[0] == expected[1]) == (thresholds[0] == thresholds[1])
    out = tmp_path / 'out'
    shim.inject(out / 'sub-01', 1, kinds=('rename',), action='stall', milliseconds=150, times=0)
    both = [
        tools.start(
            app, pair, out, 'participant', *app.quick, '--participant-label', '01',
            '--nprocs', '1', '--threshold', threshold, **shim.environment,
        )
        for threshold in thresholds
    ]  # fmt: skip
    ended.extend(both)
    for running in both:
        _, said = running.process.communicate(timeout=DEADLINE_S)
        assert running.process.returncode == 0, said
    # the page shows what was there when it was made
    found = {name: value for name, value in tools.results(out).items() if '.html' not in name}
    alternatives = [
        {name: value for name, value in one.items() if '.html' not in name} for one in expected
    ]
    assert found in alternatives
    tools.check_whole(out)
