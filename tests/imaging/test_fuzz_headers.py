"""Damaged and hostile NIfTI files: a sentence or the right voxels, never anything else.

The judge of what was read is nibabel, which shares no code with the reader under test.
"""

from __future__ import annotations

import gzip
import math
import os
import random
import re
import struct
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError, TemporaryError
from shivacmb.imaging import load_scan, reorient_to_std

COUNT = 5000 if os.environ.get('SHIVACMB_FAULTS') == 'full' else 500
#: Longest time for one file of 60 kB, on a machine that is busy.
SLOW_S = 20.0
#: Fields of a NIfTI-1 header: offset, format, how many.
FIELDS = {
    'sizeof_hdr': (0, 'i', 1), 'dim_info': (39, 'B', 1), 'dim': (40, 'h', 8),
    'intent': (56, 'f', 3), 'intent_code': (68, 'h', 1), 'datatype': (70, 'h', 1),
    'bitpix': (72, 'h', 1), 'slice_start': (74, 'h', 1), 'pixdim': (76, 'f', 8),
    'vox_offset': (108, 'f', 1), 'scl_slope': (112, 'f', 1), 'scl_inter': (116, 'f', 1),
    'xyzt_units': (123, 'B', 1), 'cal_max': (124, 'f', 1), 'qform_code': (252, 'h', 1),
    'sform_code': (254, 'h', 1), 'quatern': (256, 'f', 3), 'qoffset': (268, 'f', 3),
    'srow': (280, 'f', 12), 'magic': (344, 'B', 4),
}  # fmt: skip
WORDS = [0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 44, 64, 127, 128, 255, 256, 348, 512, 768, 1024, 1280,
         1536, 1792, 2304, 32767, -32768]  # fmt: skip
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    0.1,
    2.0,
    10.0,
    10.001,
    1e-30,
    1e-45,
    1e30,
    3.4e38,
    -3.4e38,
    math.inf,
    -math.inf,
    math.nan,
    348.0,
    351.0,
    352.0,
    352.5,
    353.0,
    1e9,
    4294967296.0,
]


def specimen() -> bytes:
    """A whole file: 28 x 26 x 27 voxels of 2 mm, oblique, as int16."""
    rng = np.random.default_rng(7)
    values = rng.integers(0, 900, (28, 26, 27)).astype(np.int16)
    angle = 0.2
    affine = np.array(
        [
            [2 * np.cos(angle), -2 * np.sin(angle), 0, -28],
            [2 * np.sin(angle), 2 * np.cos(angle), 0, -26],
            [0, 0, 2, -27],
            [0, 0, 0, 1],
        ]
    )
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return bytes(image.to_bytes())


def damage(whole: bytes, random_: random.Random) -> tuple[bytes, str]:
    """Change one to three fields or bytes, cut the file, or compress it badly."""
    data = bytearray(whole)
    done = []
    for _ in range(random_.randint(1, 3)):
        kind = random_.choice(['field', 'field', 'field', 'field', 'byte', 'cut', 'order'])
        done.append(kind)
        if kind == 'field':
            name = random_.choice(sorted(FIELDS))
            offset, code, count = FIELDS[name]
            index = random_.randrange(count)
            size = struct.calcsize(code)
            value: Any = random_.choice(FLOATS if code == 'f' else WORDS)
            if code == 'B':
                value %= 256
            if code == 'f' and random_.random() < 0.3:
                value = random_.uniform(-400, 400)
            data[offset + index * size : offset + (index + 1) * size] = struct.pack(
                f'<{code}', value
            )
            done[-1] = f'{name}[{index}]={value}'
        elif kind == 'byte':
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        elif kind == 'cut':
            del data[random_.choice([0, 1, 4, 100, 347, 348, 352, 353, 5000, len(data) - 1]) :]
        elif kind == 'order' and len(data) >= 348:
            data[0:4] = data[0:4][::-1]
        if len(data) < 400:
            break
    packed = bytes(data)
    how = random_.choice(['plain', 'gzip', 'gzip', 'gzip-cut', 'gzip-flip', 'twice', 'tail'])
    if how != 'plain':
        packed = gzip.compress(packed, 1, mtime=0)
    if how == 'gzip-cut':
        packed = packed[: random_.randrange(len(packed))]
    if how == 'gzip-flip':
        flipped = bytearray(packed)
        flipped[random_.randrange(len(flipped))] ^= 1 << random_.randrange(8)
        packed = bytes(flipped)
    if how == 'twice':
        packed = gzip.compress(packed, 1, mtime=0)
    if how == 'tail':
        packed += bytes(random_.choice([1, 8, 512]))
    return packed, ', '.join([*done, how])


def judge(path: Path, loaded: Any, how: str) -> None:
    """Assert that what was read is what the file says, by nibabel and by the rules here."""
    image = loaded.image
    values = np.asarray(image.dataobj)
    assert values.ndim == 3
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.min() < values.max()
    assert np.isfinite(image.affine).all()
    assert loaded.source.size == path.stat().st_size
    try:
        other = nib.load(path)
        expected = np.asarray(other.dataobj, dtype=np.float64)
    except Exception:  # noqa: BLE001  nibabel refuses more than has to be refused
        return
    shape = values.shape
    if re.search(r'vox_offset\[0\]=-?0\.0', how):
        return  # nibabel then takes the header itself for voxels; the standard says 352
    if int(np.prod(expected.shape)) != values.size:
        return
    expected = expected.reshape(shape)
    usable = np.isfinite(expected) & (np.abs(expected) < 1e38)
    np.testing.assert_allclose(values[usable], expected[usable], rtol=2e-6, atol=1e-3, err_msg=how)
    if 'form_code' in how:
        return  # codes that the standard does not know count as 0 there, as "aligned" here
    header = other.header
    if int(header['sform_code']) in (1, 2, 3, 4):
        np.testing.assert_allclose(image.affine, header.get_sform(), atol=1e-3)
    elif int(header['qform_code']) in (1, 2, 3, 4) and int(header['sform_code']) == 0:
        np.testing.assert_allclose(image.affine, header.get_qform(), atol=1e-3)


@pytest.mark.timeout(3600)
def test_fuzzed_headers(tmp_path: Path, record_property: Any) -> None:
    whole, random_ = specimen(), random.Random(20261121)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number in range(COUNT):
        content, how = damage(whole, random_)
        path = tmp_path / ('scan.nii.gz' if number % 2 else 'scan.nii')
        path.write_bytes(content)
        said = f'<{path}>'
        began = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('error')
                loaded = load_scan(path)
                reorient_to_std(loaded.image)
        except DataError as error:
            said = str(error)
            outcomes['refused in a sentence'] += 1
        except TemporaryError as error:
            pytest.fail(f'{number} {how}: {error}')
        except Exception as error:  # noqa: BLE001  whatever it is, it says which file
            pytest.fail(f'{number} {how}: {type(error).__name__}: {error}')
        else:
            judge(path, loaded, f'{number} {how}')
            outcomes['read as nibabel reads it'] += 1
        assert f'<{path}>' in said, how
        assert '\n' not in said, how
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < SLOW_S
    assert min(outcomes.values()) > COUNT / 10, outcomes
    record_property('faults: damaged NIfTI files', f'{COUNT}, {dict(outcomes)}')


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda path: os.mkfifo(path), 'a pipe or a device'),
        (lambda path: path.mkdir(), 'a folder'),
        (lambda path: path.symlink_to('/dev/zero'), 'a pipe or a device'),
        (lambda path: path.symlink_to(path), 'cannot be read'),
    ],
    ids=['pipe', 'folder', 'device', 'loop'],
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Any, words: str) -> None:
    path = tmp_path / 'scan.nii'
    make(path)
    with pytest.raises(DataError, match=words):
        load_scan(path)


def test_bomb(tmp_path: Path) -> None:
    """Zeros that unpack to far more than the header announces cost time, not memory."""
    path = tmp_path / 'scan.nii.gz'
    with gzip.open(path, 'wb', 9) as stream:
        stream.write(specimen())
        for _ in range(200):
            stream.write(bytes(1 << 20))
    import tracemalloc

    tracemalloc.start()
    load_scan(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 << 20
