"""What killed runs left beside the outputs is removed by the next one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shivacmb.bids import find_scans
from shivacmb.cli.run import _tidy


def _half_written(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = (
        'import os, sys, pathlib; from shivacmb.bids import replacing\n'
        'with replacing(pathlib.Path(sys.argv[1])) as t: t.write_text("half"); os._exit(9)'
    )
    subprocess.run([sys.executable, '-c', code, str(path)], check=False)


@pytest.mark.parametrize(
    ('participants', 'kept'),
    [
        # a task over one participant does not list the folders of thousands of others
        (['01'], ['logs/run-1', 'logs/sub-02/run-1']),
        (['01', '02'], []),
    ],
)
def test_half_written_files_of_earlier_runs(
    tmp_path: Path, participants: list[str], kept: list[str]
) -> None:
    bids, out = tmp_path / 'bids', tmp_path / 'out'
    for participant in ('01', '02'):
        anat = bids / f'sub-{participant}' / 'anat'
        anat.mkdir(parents=True)
        (anat / f'sub-{participant}_T2starw.nii.gz').write_bytes(b'not looked at')
    (bids / 'dataset_description.json').write_text(
        json.dumps({'Name': 'test', 'BIDSVersion': '1.10.0'})
    )
    for folder in ('logs/run-1', 'logs/sub-01/run-1', 'logs/sub-02/run-1'):
        _half_written(out / folder / 'settings.toml')
    _tidy(out, find_scans(bids, participants=participants).scans)
    left = sorted(path.parent.relative_to(out).as_posix() for path in out.rglob('.tmp-*'))
    assert left == kept
