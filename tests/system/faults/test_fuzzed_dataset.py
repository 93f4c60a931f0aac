"""One run of the installed command over a dataset of fuzzed headers and sidecars."""

from __future__ import annotations

import csv
import io
import re
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shivacmb.exceptions import DataError
from shivacmb.imaging import load_scan

pytestmark = [pytest.mark.system, pytest.mark.slow]

GOOD = ('good1', 'good2')
FEW_HEADERS, HEADERS = 24, 500
FEW_SIDECARS, SIDECARS = 10, 200
#: Coarse, so that a scan takes half a second
VOXEL_MM = (3.0, 3.0, 3.0)


@pytest.fixture(scope='module')
def bids(fuzz: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A participant for each damaged file, beside those that are well."""
    root = tools.dataset(tmp_path_factory.mktemp('fuzzed') / 'bids')
    whole = tools.head(voxel_mm=VOXEL_MM)
    for label in GOOD:
        tools.place(root, f'sub-{label}_T2starw', whole)
    files = fuzz.draws(fuzz.nifti_files(whole.to_bytes()), FEW_HEADERS, HEADERS)
    for number, (content, _) in enumerate(files):
        packed = content[:2] == b'\x1f\x8b'
        name = f'sub-header{number:03d}_T2starw' + ('' if packed else '.nii')
        tools.place(root, name, whole).write_bytes(content)
    for number, content in enumerate(fuzz.draws(fuzz.sidecars(), FEW_SIDECARS, SIDECARS)):
        path = tools.place(root, f'sub-sidecar{number:03d}_T2starw', whole)
        path.with_name(path.name.replace('.nii.gz', '.json')).write_bytes(content)
    return root


def refusals(bids: Path) -> dict[str, str]:
    """What the reader alone says of each damaged image."""
    said = {}
    for path in sorted(bids.glob('sub-header*/anat/*.nii*')):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                load_scan(path)
            except DataError as error:
                said[path.parts[-3]] = str(error)
    return said


@pytest.mark.timeout(7200)
def test_one_run_over_fuzzed_scans(
    app: Any, fuzz: Any, tools: Any, bids: Path, record_property: Any
) -> None:
    out = app.root / 'out'
    app.timeout_s = 7000 if fuzz.FULL else app.timeout_s
    began = time.monotonic()
    done = app.participant(bids, out, '--nprocs', '1')
    took = time.monotonic() - began
    participants = {path.name for path in bids.glob('sub-*')}
    assert 'Traceback' not in done.stderr + done.stdout
    assert done.returncode == 1, done.stderr
    tools.check_whole(out)

    rows = tools.scan_rows(out)
    # an image whose sidecar calls it a phase image is no scan, and that is said
    without = set(re.findall(r'^shivacmb: (sub-\w+) has no usable scan', done.stderr, re.M))
    assert without <= {name for name in participants if 'sidecar' in name}
    assert set(rows) == participants - without
    outcomes: Counter[str] = Counter()
    for name, row in rows.items():
        outcomes[f'{row["status"]} ({re.sub("[0-9]|sub-", "", name)})'] += 1
        if row['status'] == 'ok':
            assert row['reason'] == 'n/a'
            label_map = out / name / row['filename']
            assert label_map.is_file()
        else:
            assert row['status'] == 'failed'
            assert len(row['reason']) > 20
            assert f'{name} failed: {row["reason"]}' in done.stderr
    for name in GOOD:
        assert (rows[f'sub-{name}']['status'], rows[f'sub-{name}']['cmb_count']) == ('ok', '3')
    for name, reason in refusals(bids).items():
        assert rows[name]['status'] == 'failed'
        assert rows[name]['reason'] in reason
    # a sidecar changes no voxel: whatever it says, the same lesions
    counts = {r['cmb_count'] for n, r in rows.items() if 'sidecar' in n and r['status'] == 'ok'}
    assert counts == {'3'}
    outcomes['without a usable scan (sidecar)'] = len(without)
    record_property('faults: damaged files in one run', f'{dict(outcomes)}, {took:.0f} s')

    gathered = app.run(bids, out, 'group')
    assert gathered.returncode == 0, gathered.stderr
    table = (out / 'participants.tsv').read_text('utf-8')
    listed = {row['participant_id'] for row in csv.DictReader(io.StringIO(table), delimiter='\t')}
    assert listed == participants
