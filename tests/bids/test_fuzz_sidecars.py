"""Damaged and hostile sidecars: their scan fails in a sentence or is found; others are found."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import find_scans, settings_hash
from shivacmb.exceptions import DataError

FEW, FULL = 200, 2000
SLOW_S = 20.0


@pytest.mark.timeout(3600)
def test_fuzzed_sidecars(fuzz: Any, tmp_path: Path, record_property: Any) -> None:
    """Beside the scan, above it, and of one echo of several; the neighbour is found each time."""
    for name in ('01_T2starw', '02_T2starw', '03_echo-1_MEGRE', '03_echo-2_MEGRE'):
        path = tmp_path / f'sub-{name[:2]}' / 'anat' / f'sub-{name}.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (tmp_path / 'sub-02' / 'anat' / 'sub-02_T2starw.json').write_text('{"EchoTime": 0.02}')
    (alone,) = find_scans(tmp_path, participants=['02']).scans
    places = [
        tmp_path / 'sub-01' / 'anat' / 'sub-01_T2starw.json',
        tmp_path / 'sub-01' / 'sub-01_T2starw.json',
        tmp_path / 'sub-03' / 'anat' / 'sub-03_echo-1_MEGRE.json',
    ]
    outcomes: Counter[str] = Counter()
    places_and_contents = fuzz.tuples(fuzz.integers(0, len(places) - 1), fuzz.sidecars())

    @fuzz.examples(places_and_contents, FEW, FULL)
    def check(drawn: tuple[int, bytes]) -> None:
        place, content = places[drawn[0]], drawn[1]
        place.write_bytes(content)
        began = time.monotonic()
        try:
            found = find_scans(tmp_path)
        except Exception as error:  # noqa: BLE001  whatever it is, it says which sidecar
            pytest.fail(f'{place} {content[:200]!r}: {type(error).__name__}: {error}')
        assert time.monotonic() - began < SLOW_S
        place.unlink()
        label = place.relative_to(tmp_path).parts[0].removeprefix('sub-')
        scans = {scan.participant: scan for scan in found.scans}
        assert scans['02'] == alone
        assert len(found.scans) == 2 + (label in scans)
        if label not in scans:
            reasons = [
                item.reason for item in found.passed_over if f'sub-{label}' in item.path.name
            ]
            assert any('ImageType of its sidecar' in reason for reason in reasons)
            outcomes['passed over with a reason'] += 1
            return
        scan = scans[label]
        assert scan.contrast in ('T2starw', 'swi')
        json.dumps([scan.stem, scan.uri, scan.reason, scan.warnings]).encode('utf-8')
        settings_hash({'reason': scan.reason})
        if scan.error is None:
            outcomes['found'] += 1
        else:
            with pytest.raises(DataError, match=r'sidecar <'):
                scan.check()
            assert '\n' not in scan.error
            outcomes['fails in a sentence'] += 1

    check()
    count = sum(outcomes.values())
    assert min(outcomes[name] for name in ('found', 'fails in a sentence')) > count / 10, outcomes
    record_property('faults: damaged sidecars', f'{count}, {dict(outcomes)}')


def test_damaged_description_of_the_dataset(fuzz: Any, tmp_path: Path) -> None:
    from shivacmb.exceptions import DatasetError

    image = tmp_path / 'sub-01' / 'anat' / 'sub-01_T2starw.nii.gz'
    image.parent.mkdir(parents=True)
    image.touch()
    for text in fuzz.TEXTS:
        (tmp_path / 'dataset_description.json').write_bytes(text)
        said = 'dataset_description.json>'
        try:
            assert len(find_scans(tmp_path).scans) == 1
        except DatasetError as error:
            said = str(error)
        assert 'dataset_description.json>' in said
        assert len(find_scans(tmp_path, require_description=False).scans) == 1
