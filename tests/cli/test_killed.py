"""What a run has found out by the time it is ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import read_records
from shivacmb.cli import engine, retry
from shivacmb.cli.interrupts import Terminated
from shivacmb.cli.main import EXIT_TERMINATED, main
from shivacmb.exceptions import DataError, OutputError


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Return four scans, of which one cannot even be planned: its sidecar is no JSON."""
    root = tmp_path / 'bids'
    for label in ('01', '02', '03', '04'):
        folder = root / f'sub-{label}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{label}_T2starw.nii.gz').write_bytes(b'not looked at')
    (root / 'sub-04' / 'anat' / 'sub-04_T2starw.json').write_text('{')
    description = {'Name': 'test', 'BIDSVersion': '1.10.0'}
    (root / 'dataset_description.json').write_text(json.dumps(description))
    return root


@pytest.mark.parametrize('full', [False, True])
def test_failures_are_recorded_when_they_happen(
    bids: Path, spot_bundle: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    out = bids.parent / 'out'
    seen: list[dict[str, str | None]] = []

    def failed() -> dict[str, str | None]:
        return {
            record.stem: record.reason
            for label in ('01', '02', '03', '04')
            for record in read_records(out, label)
        }

    def run(plans: list[Any], *_: Any, **__: Any) -> dict[str, Any]:
        seen.append(failed())
        if len(seen) == 3:
            raise Terminated
        return {plans[0].stem: DataError('the image is constant')}

    monkeypatch.setattr(engine, 'SCANS_PER_GRAPH', 1)
    monkeypatch.setattr(retry, 'run_scans', run)
    if full:

        def no_space(*_: Any) -> None:
            raise OutputError('no space')

        # what cannot be written stops no scan
        monkeypatch.setattr('shivacmb.bids.write_record', no_space)
    words = [str(bids), str(out), 'participant', '--model', str(spot_bundle), '--nprocs', '1']
    assert main(words) == EXIT_TERMINATED
    if full:
        assert seen == [{}, {}, {}]
        return
    assert [sorted(found) for found in seen] == [
        ['sub-04'], ['sub-01', 'sub-04'], ['sub-01', 'sub-02', 'sub-04'],
    ]  # fmt: skip
    assert 'sidecar <' in (failed()['sub-04'] or '')
    assert failed()['sub-01'] == 'the image is constant'
    assert (out / 'sub-04' / 'sub-04_scans.tsv').is_file()
