"""Damaged and hostile files, drawn by hypothesis, which also makes a file that fails smaller.

Loaded by the fixture ``fuzz``. Draws are the same in every run.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

#: SHIVACMB_FAULTS=full draws every file there is to draw; without it, fewer.
FULL = os.environ.get('SHIVACMB_FAULTS') == 'full'
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
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 0.1, 2.0, 10.0, 10.001, 1e-30, 1e-45, 1e30, 3.4e38, -3.4e38,
          math.inf, -math.inf, math.nan, 348.0, 351.0, 352.0, 352.5, 353.0, 1e9,
          4294967296.0]  # fmt: skip
#: For tests that combine draws
integers, tuples = st.integers, st.tuples
KINDS = ('field', 'field', 'field', 'field', 'shape', 'byte', 'cut', 'order')
PACKINGS = ('plain', 'gzip', 'gzip', 'gzip-cut', 'gzip-flip', 'twice', 'tail')


def examples(strategy: Any, few: int, full: int) -> Callable[[Callable[[Any], None]], Any]:
    """Call a function with ``few`` draws, or with ``full`` for SHIVACMB_FAULTS=full."""

    def decorate(check: Callable[[Any], None]) -> Any:
        return settings(
            max_examples=full if FULL else few,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(given(strategy)(check))

    return decorate


def draws(strategy: Any, few: int, full: int) -> list[Any]:
    """Return that many draws, all different."""
    found: dict[Any, None] = {}

    # Twice as many and more, as some come several times
    @settings(
        max_examples=3 * (full if FULL else few),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(strategy)
    def collect(drawn: Any) -> None:
        found[drawn] = None

    collect()
    return list(found)[: full if FULL else few]


def specimen(kind: Any = nib.Nifti1Image) -> bytes:
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
    image = kind(values, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return bytes(image.to_bytes())


def nifti_files(whole: bytes | None = None) -> st.SearchStrategy[tuple[bytes, str]]:
    """Draw files with what was done to them: one to three changes, then a packing."""
    return _nifti_files(specimen() if whole is None else whole)


@st.composite
def _nifti_files(draw: Any, whole: bytes) -> tuple[bytes, str]:
    second = draw(st.integers(0, 9)) == 9
    data = bytearray(specimen(nib.Nifti2Image) if second else whole)
    kinds = ('byte', 'cut', 'order') if second else KINDS
    done = ['NIfTI-2'] if second else []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(kinds))
        change = {'field': _change_field, 'shape': _change_shape}.get(kind)
        done.append(change(draw, data) if change else kind)
        if kind == 'byte':
            data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
        elif kind == 'cut':
            del data[
                draw(st.sampled_from((0, 1, 4, 100, 347, 348, 352, 353, 5000, len(data) - 1))) :
            ]
        elif kind == 'order':
            data[0:4] = data[0:4][::-1]
        if len(data) < 600:
            break
    how = draw(st.sampled_from(PACKINGS))
    return _pack(draw, bytes(data), how), ', '.join([*done, how])


def _change_field(draw: Any, data: bytearray) -> str:
    name = draw(st.sampled_from(sorted(FIELDS)))
    offset, code, count = FIELDS[name]
    index = draw(st.integers(0, count - 1))
    size = struct.calcsize(code)
    if code == 'f':
        value = draw(st.sampled_from(FLOATS) | st.floats(-400, 400, width=32))
    else:
        value = draw(st.sampled_from(WORDS))
        value = value % 256 if code == 'B' else value
    start = offset + index * size
    data[start : start + size] = struct.pack(f'<{code}', value)
    return f'{name}[{index}]={value}'


def _change_shape(draw: Any, data: bytearray) -> str:
    """Announce other dimensions, some of which the voxels suffice for."""
    sizes = draw(st.lists(st.sampled_from((1, 1, 2, 3, 26, 27, 28, 300)), min_size=1, max_size=7))
    struct.pack_into('<8h', data, 40, len(sizes), *sizes, *[1] * (7 - len(sizes)))
    return f'dim={sizes}'


def _pack(draw: Any, data: bytes, how: str) -> bytes:
    if how == 'plain':
        return data
    packed = gzip.compress(data, 1, mtime=0)
    if how == 'gzip-cut':
        return packed[: draw(st.integers(0, len(packed) - 1))]
    if how == 'gzip-flip':
        flipped = bytearray(packed)
        flipped[draw(st.integers(0, len(packed) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    if how == 'twice':
        return gzip.compress(packed, 1, mtime=0)
    if how == 'tail':
        return packed + bytes(draw(st.sampled_from((1, 8, 512))))
    return packed


KEYS = ('EchoTime', 'ImageType', 'SeriesDescription', 'ProtocolName', 'SequenceName', 'x', '',
        '\0')  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 20, 0.02, 1e308, -1e308, 10**300, -(10**4000), float('nan'),
    float('inf'), float('-inf'), '', 'swi', 'SWI', 'M', 'PHASE', '\ud800', '\x00\x1b[31m',
    'a' * 10**5, [], ['ORIGINAL', 'PRIMARY', 'M'], ['P'], [[['M']]], [None, 1, {}], {},
    {'a': {'b': []}}, '../../../etc/passwd', '$(touch x)', '{0.__class__}', '%s%n',
]  # fmt: skip
TEXTS = (
    b'', b' ', b'null', b'[]', b'"text"', b'1', b'{', b'{"EchoTime": 0.02,', b'{"a": 1}}',
    b'\xff\xfe{\x00}\x00', b'\xef\xbb\xbf{"EchoTime": 0.02}', b'{"EchoTime": 1e999}',
    b'{"EchoTime": ' + b'9' * 5000 + b'}', b'{"EchoTime": 0.02, "EchoTime": "b"}',
    b'[' * 100_000, b'{"a":' * 100_000, b'{"a": "' + b'\\ud800' * 50 + b'"}', b'\x00' * 1000,
    b'{"\\u0000": 0}', b'// text\n{"EchoTime": 0.02}', b"{'EchoTime': 0.02}", b'\x80' * 10,
)  # fmt: skip


@st.composite
def sidecars(draw: Any) -> bytes:
    """Draw the bytes of a sidecar: an object with odd values, an odd text, flipped, or noise."""
    kind = draw(st.sampled_from(('object', 'object', 'object', 'text', 'flip', 'bytes')))
    if kind == 'text':
        return draw(st.sampled_from(TEXTS))  # type: ignore[no-any-return]
    if kind == 'bytes':
        return draw(st.binary(max_size=200))  # type: ignore[no-any-return]
    any_json = st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=8,
    )
    value = st.sampled_from(VALUES) | st.sampled_from(VALUES) | any_json
    pairs = draw(st.lists(st.tuples(st.sampled_from(KEYS), value), min_size=1, max_size=6))
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    text = bytearray(json.dumps(dict(pairs)).encode())
    sys.set_int_max_str_digits(limit)
    if kind == 'flip':
        text[draw(st.integers(0, len(text) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(text)
