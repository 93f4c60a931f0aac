from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from shivacmb.models.checksums import md5_of, sha256_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_has_the_plain_sums(tmp_path: Path) -> None:
    file = tmp_path / 'a'
    file.write_bytes(b'abc')
    # RFC 1321 A.5 and FIPS 180-2 B.1
    assert md5_of(file) == '900150983cd24fb0d6963f7d28e17f72'
    assert sha256_of(file) == 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'


def test_a_folder_has_shivais_md5(tmp_path: Path) -> None:
    # SHiVAi hashes the contents in the order of sorted Path objects, which compare part by part:
    # 'a/z' comes before 'a.b', though '.' sorts before '/'
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'z').write_bytes(b'1')
    (tmp_path / 'a.b').write_bytes(b'2')
    (tmp_path / 'B').write_bytes(b'0')
    assert md5_of(tmp_path) == hashlib.md5(b'012').hexdigest()  # noqa: S324


def test_moving_a_byte_to_the_next_file_changes_only_sha256(tmp_path: Path) -> None:
    sums = []
    for number, (first, second) in enumerate([(b'xy', b'z'), (b'x', b'yz')]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / 'a').write_bytes(first)
        (folder / 'b').write_bytes(second)
        sums.append((md5_of(folder), sha256_of(folder)))
    assert sums[0][0] == sums[1][0]
    assert sums[0][1] != sums[1][1]


def test_renaming_a_file_changes_the_sha256_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / 'a').write_bytes(b'x')
    before = sha256_of(tmp_path)
    (tmp_path / 'a').rename(tmp_path / 'b')
    assert sha256_of(tmp_path) != before
