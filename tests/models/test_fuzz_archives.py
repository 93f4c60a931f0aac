"""Damaged and hostile archives are refused in a sentence, and nothing leaves the folder."""

from __future__ import annotations

import io
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from shivacmb.exceptions import ModelError
from shivacmb.models.archives import unpack
from shivacmb.models.safety import keras_config

COUNT = 300
NAMES = [
    'model.json', 'a/b/fold-0.xml', 'config.json', '../out', '/etc/out', 'a/../../out', 'C:/out',
    'a\\out', '.', 'a', 'a/', 'x' * 300, 'n\x01', 'é/ü', '..', 'a/b', ' ',
]  # fmt: skip
KINDS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def archive(random_: random.Random) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as made:
        for _ in range(random_.randint(1, 4)):
            member = zipfile.ZipInfo(
                random_.choice(NAMES if random_.random() < 0.3 else NAMES[:3])
            )
            member.compress_type = random_.choice(KINDS)
            # regular, folder, link, device
            mode = random_.choice([0, 0o100644, 0o100644, 0o100644, 0o120777, 0o020666])
            member.external_attr = mode << 16
            content = random_.choice([b'', b'{}', b'x' * 5000, random_.randbytes(300)])
            made.writestr(member, content)
    data = bytearray(stream.getvalue())
    for _ in range(random_.choice([0, 0, 1, 1, 2, 8])):
        data[random_.randrange(len(data))] = random_.randrange(256)
    if random_.random() < 0.2:
        del data[random_.randrange(len(data)) :]
    return bytes(data)


def test_fuzzed_archives(tmp_path: Path, recwarn: Any, record_property: Any) -> None:
    random_ = random.Random(20261121)
    outcomes: Counter[str] = Counter()
    path = tmp_path / 'in' / 'model.zip'
    path.parent.mkdir()
    for number in range(COUNT):
        path.write_bytes(archive(random_))
        folder = tmp_path / 'work' / str(number)
        folder.mkdir(parents=True)
        said = f'<{path}>'
        try:
            unpack(path, folder)
            outcomes['unpacked'] += 1
        except ModelError as error:
            said = str(error)
            outcomes['refused'] += 1
        assert f'<{path}>' in said
        for item in folder.rglob('*'):
            assert not item.is_symlink()
            assert item.is_file() or item.is_dir()
        try:
            keras_config(path)
        except ModelError:
            outcomes['no .keras file'] += 1
        assert {item.name for item in tmp_path.iterdir()} == {'in', 'work'}
        assert [item.name for item in path.parent.iterdir()] == ['model.zip']
    assert min(outcomes['unpacked'], outcomes['refused']) > 5, outcomes
    record_property('faults: damaged model archives', f'{COUNT}, {dict(outcomes)}')
