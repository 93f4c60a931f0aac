"""Damaged and hostile NIfTI files: a sentence or the right voxels, never anything else.

The judge of what was read is nibabel, which shares no code with the reader under test.
"""

from __future__ import annotations

import gzip
import os
import re
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

FEW, FULL = 500, 5000
#: Longest time for one file of 60 kB, on a machine that is busy.
SLOW_S = 20.0


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
def test_fuzzed_headers(fuzz: Any, tmp_path: Path, record_property: Any) -> None:
    outcomes: Counter[str] = Counter()
    slowest = 0.0

    @fuzz.examples(fuzz.nifti_files(), FEW, FULL)
    def check(file: tuple[bytes, str]) -> None:
        nonlocal slowest
        content, how = file
        path = tmp_path / ('scan.nii.gz' if sum(outcomes.values()) % 2 else 'scan.nii')
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
            pytest.fail(f'{how}: {error}')
        except Exception as error:  # noqa: BLE001  whatever it is, it says which file
            pytest.fail(f'{how}: {type(error).__name__}: {error}')
        else:
            judge(path, loaded, how)
            outcomes['read as nibabel reads it'] += 1
        assert f'<{path}>' in said, how
        assert '\n' not in said, how
        slowest = max(slowest, time.monotonic() - began)

    check()
    assert slowest < SLOW_S
    assert min(outcomes.values()) > sum(outcomes.values()) / 10, outcomes
    record_property('faults: damaged NIfTI files', f'{sum(outcomes.values())}, {dict(outcomes)}')


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


def test_bomb(fuzz: Any, tmp_path: Path) -> None:
    """Zeros that unpack to far more than the header announces cost time, not memory."""
    path = tmp_path / 'scan.nii.gz'
    with gzip.open(path, 'wb', 9) as stream:
        stream.write(fuzz.specimen())
        for _ in range(200):
            stream.write(bytes(1 << 20))
    import tracemalloc

    tracemalloc.start()
    load_scan(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 << 20
