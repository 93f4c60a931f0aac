"""Somebody rewrites a scan while it is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

FEW = 6
READS = ('open-read', 'read', 'stat')


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.timeout(7200)
def test_scan_rewritten_at_each_read(
    nursery: Any, shim: Any, tools: Any, chosen: Any, tmp_path: Path, record_property: Any
) -> None:
    """The record never has the checksum of one image and the results of another."""
    bids = tools.dataset(tmp_path / 'bids')
    images = {
        'a': tools.head(seed=1, voxel_mm=(2.0, 2.0, 2.0)),
        'b': tools.head([(20.0, 5.0, 10.0)], seed=2, voxel_mm=(2.0, 2.0, 2.0)),
    }
    scan = tools.place(bids, 'sub-01_T2starw', images['a'])
    kept, tables = {}, {}
    for name, image in images.items():
        kept[name] = tmp_path / f'{name}.nii.gz'
        image.to_filename(kept[name])
        shutil.copyfile(kept[name], scan)
        shim.watch(scan, READS)
        assert nursery.participant(bids, tmp_path / name).code == 0
        calls = shim.calls(scan)
        shim.clear()
        table = tmp_path / name / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.tsv'
        tables[sha256(scan)] = table.read_bytes()
    assert len(set(tables.values())) == 2
    codes: Counter[int] = Counter()
    for at in chosen([f'{number} {call}' for number, call in enumerate(calls)], FEW):
        shutil.copyfile(kept['a'], scan)
        out = tmp_path / f'out-{at}'
        shim.inject(scan, at, kinds=READS, action='swap', swap=kept['b'])
        done = nursery.participant(bids, out)
        hits = shim.state.hits
        shim.clear()
        done.check()
        codes[done.code] += 1
        record = json.loads((out / 'logs' / 'sub-01' / 'sub-01.json').read_text())
        if done.code == 0:
            table = out / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.tsv'
            assert tables[record['input_sha256']] == table.read_bytes()
            assert record['input_size'] == next(
                path.stat().st_size
                for path in kept.values()
                if sha256(path) == record['input_sha256']
            )
        else:
            assert hits
            assert done.code == 75
            assert 'was changed while it was read' in record['reason']
        again = nursery.participant(bids, out)
        assert again.code == 0, again.err
        record = json.loads((out / 'logs' / 'sub-01' / 'sub-01.json').read_text())
        assert record['input_sha256'] == sha256(scan)
    record_property(
        'faults: scan rewritten at the n-th call', f'{len(calls)} calls, exit codes {dict(codes)}'
    )


def test_rewritten_under_its_old_time(nursery: Any, tools: Any, tmp_path: Path) -> None:
    """Same size, same time of change: only the second time, which nobody can set, tells."""
    bids, out = tools.dataset(tmp_path / 'bids'), tmp_path / 'out'
    before = tools.head(seed=1, voxel_mm=(2.0, 2.0, 2.0))
    after = tools.head([(20.0, 5.0, 10.0)], seed=1, voxel_mm=(2.0, 2.0, 2.0))
    scan = tools.place(bids, 'sub-01_T2starw.nii', before)
    assert nursery.participant(bids, out).code == 0
    assert tools.scan_rows(out)['sub-01']['cmb_count'] == '3'
    status = scan.stat()
    after.to_filename(scan)
    os.utime(scan, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (scan.stat().st_size, scan.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert nursery.participant(bids, out).code == 0
    assert tools.scan_rows(out)['sub-01']['cmb_count'] == '1'
