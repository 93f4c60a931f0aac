from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from shivacmb.bids import ScanRecord, write_record
from shivacmb.cli.plans import build_detection
from shivacmb.cli.run import prepare, search
from shivacmb.cli.settings import Settings
from shivacmb.models import find_bundle
from shivacmb.workflows.plan import ScanPlan


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Have signals of this process as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def finished(tmp_path: Path, spot_bundle: Path) -> ScanPlan:
    """Return the plan of a scan all of whose files are there."""
    bids = tmp_path / 'bids'
    folder = bids / 'sub-01' / 'anat'
    folder.mkdir(parents=True)
    header = nib.Nifti1Image(np.zeros((64, 64, 40), np.uint8), np.eye(4) * [2, 2, 5, 1])
    nib.save(header, folder / 'sub-01_T2starw.nii.gz')
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
