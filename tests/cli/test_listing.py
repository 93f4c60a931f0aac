"""``--dry-run`` says what a run would do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shivacmb.bids import ScanRecord, write_record
from shivacmb.cli.main import main
from shivacmb.cli.plans import build_detection
from shivacmb.cli.run import prepare, search
from shivacmb.cli.settings import Settings
from shivacmb.models import find_bundle
from shivacmb.workflows.plan import ScanPlan

SKIPPED = 'finished with the same settings: would be skipped'


@pytest.fixture
def finished(tmp_path: Path, spot_bundle: Path) -> ScanPlan:
    """Return the plan of a scan all of whose files are there."""
    bids = tmp_path / 'bids'
    folder = bids / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    (folder / 'sub-01_T2starw.nii.gz').write_bytes(b'not looked at')
    description = {'Name': 'test', 'BIDSVersion': '1.10.0'}
    (bids / 'dataset_description.json').write_text(json.dumps(description))
    settings = Settings(bids, tmp_path / 'out', 'participant', model=str(spot_bundle))
    bundle = find_bundle(settings.model)
    [scan] = search(settings).scans
    _, plan = prepare(settings, scan, build_detection(settings, bundle), bundle)
    assert isinstance(plan, ScanPlan)
    for path in map(Path, plan.outputs.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_record(settings.out_dir, ScanRecord(**plan.facts['record']))
    return plan


@pytest.mark.parametrize(
    ('removed', 'options', 'skipped'),
    [
        (None, [], True),
        ('overview', [], True),
        (None, ['--overwrite'], False),
        (None, ['--threshold', '0.3'], False),
        *((key, [], False) for key in ('dseg', 'dseg_tsv', 'probseg', 'zones', 'preproc_json')),
    ],
)
def test_what_is_there_of_a_finished_scan(
    tmp_path: Path,
    finished: ScanPlan,
    spot_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    removed: str | None,
    options: list[str],
    skipped: bool,
) -> None:
    if removed is not None:
        Path(finished.outputs[removed]).unlink()
    words = [str(tmp_path / 'bids'), str(tmp_path / 'out'), 'participant', '--dry-run']
    assert main([*words, '--model', str(spot_bundle), *options]) == 0
    said = capsys.readouterr().out
    assert (SKIPPED in said) == skipped
    assert ('would be processed' in said) != skipped
