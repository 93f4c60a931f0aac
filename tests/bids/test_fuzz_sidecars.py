"""Damaged and hostile sidecars: their scan fails in a sentence or is found; others are found."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shivacmb.bids import find_scans, settings_hash
from shivacmb.exceptions import DataError

COUNT = 2000 if os.environ.get('SHIVACMB_FAULTS') == 'full' else 200
SLOW_S = 20.0
KEYS = [
    'EchoTime',
    'ImageType',
    'SeriesDescription',
    'ProtocolName',
    'SequenceName',
    'x',
    '',
    '\0',
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 20, 0.02, 1e308, -1e308, 10**300, -(10**4000), float('nan'),
    float('inf'), float('-inf'), '', 'swi', 'SWI', 'M', 'PHASE', '\ud800', '\x00\x1b[31m',
    'a' * 10**5, [], ['ORIGINAL', 'PRIMARY', 'M'], ['P'], [[['M']]], [None, 1, {}], {},
    {'a': {'b': []}},
    '../../../etc/passwd', '$(touch x)', '{0.__class__}', '%s%n',
]  # fmt: skip
TEXTS = [
    b'', b' ', b'null', b'[]', b'"text"', b'1', b'{', b'{"EchoTime": 0.02,', b'{"a": 1}}',
    b'\xff\xfe{\x00}\x00', b'\xef\xbb\xbf{"EchoTime": 0.02}', b'{"EchoTime": 1e999}',
    b'{"EchoTime": ' + b'9' * 5000 + b'}', b'{"EchoTime": 0.02, "EchoTime": "b"}',
    b'[' * 100_000, b'{"a":' * 100_000, b'{"a": "' + b'\\ud800' * 50 + b'"}', b'\x00' * 1000,
    b'{"\\u0000": 0}', b'// text\n{"EchoTime": 0.02}', b"{'EchoTime': 0.02}", b'\x80' * 10,
]  # fmt: skip


def sidecar(random_: random.Random) -> bytes:
    kind = random_.choice(['object', 'object', 'object', 'text', 'flip', 'bytes'])
    if kind == 'text':
        return random_.choice(TEXTS)
    if kind == 'bytes':
        return random_.randbytes(random_.randrange(200))
    content = {random_.choice(KEYS): random_.choice(VALUES) for _ in range(random_.randint(1, 6))}
    import sys

    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    text = json.dumps(content).encode()
    sys.set_int_max_str_digits(limit)
    if kind == 'flip':
        flipped = bytearray(text)
        flipped[random_.randrange(len(flipped))] ^= 1 << random_.randrange(8)
        return bytes(flipped)
    return text


@pytest.mark.timeout(3600)
def test_fuzzed_sidecars(tmp_path: Path, record_property: Any) -> None:
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
    random_ = random.Random(20261121)
    outcomes: Counter[str] = Counter()
    for number in range(COUNT):
        place = places[number % len(places)]
        content = sidecar(random_)
        place.write_bytes(content)
        began = time.monotonic()
        try:
            found = find_scans(tmp_path)
        except Exception as error:  # noqa: BLE001  whatever it is, it says which sidecar
            pytest.fail(f'{number} {content[:200]!r}: {type(error).__name__}: {error}')
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
            continue
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
    assert min(outcomes[name] for name in ('found', 'fails in a sentence')) > COUNT / 10, outcomes
    record_property('faults: damaged sidecars', f'{COUNT}, {dict(outcomes)}')


@pytest.mark.parametrize('text', TEXTS, ids=range(len(TEXTS)))
def test_damaged_description_of_the_dataset(tmp_path: Path, text: bytes) -> None:
    from shivacmb.exceptions import DatasetError

    path = tmp_path / 'sub-01' / 'anat' / 'sub-01_T2starw.nii.gz'
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / 'dataset_description.json').write_bytes(text)
    said = 'dataset_description.json>'
    try:
        assert len(find_scans(tmp_path).scans) == 1
    except DatasetError as error:
        said = str(error)
    assert 'dataset_description.json>' in said
    assert len(find_scans(tmp_path, require_description=False).scans) == 1
