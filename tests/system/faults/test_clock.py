"""Clocks that are wrong, and clocks that jump."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

YEAR_S = 31_557_600


def test_times_of_files_in_the_future(
    nursery: Any, tools: Any, pair: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """Other times alone change nothing: results stay, and are known to be current."""
    out, bids = tmp_path / 'out', tmp_path / 'bids'
    shutil.copytree(pair, bids)
    assert nursery.participant(bids, out).code == 0
    written = {path: path.stat().st_mtime_ns for path in out.glob('sub-*/anat/*')}
    for seconds in (4e9, 1.0):
        for path in [*out.rglob('*'), *bids.rglob('*')]:
            os.utime(path, (seconds, seconds))
        again = nursery.participant(bids, out)
        assert again.code == 0, again.err
        assert '2 already finished' in again.out
        assert {int(path.stat().st_mtime) for path in written} == {int(seconds)}
    # the dataset lies elsewhere, and its times are in the records
    without_times = {name: value for name, value in undisturbed.items() if name[:4] == 'sub-'}
    found = tools.results(out)
    assert {name: found[name] for name in without_times} == without_times


@pytest.mark.parametrize('offset', [-40 * YEAR_S, 11 * YEAR_S])
def test_clock_that_jumps_during_the_run(
    offset: int,
    nursery: Any,
    shim: Any,
    tools: Any,
    pair: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
) -> None:
    """The time of day is another for one run, and right again for the next."""
    out = tmp_path / 'out'
    shim.state.clock_offset = offset
    first = nursery.participant(pair, out, '--participant-label', '01')
    shim.clear()
    assert first.code == 0, first.err
    second = nursery.participant(pair, out)
    assert second.code == 0, second.err
    assert '1 already finished' in second.out
    assert tools.results(out) == undisturbed
