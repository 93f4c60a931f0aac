"""Packages of FSL, unpacked for the images where its licence was named."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]

# conda's own placeholders are of this length, so that every prefix is shorter
PLACEHOLDER = '/placehold' * 25


def _package(folder: Path, name: str) -> str:
    """Write a package of two files that hold the placeholder; return its line of a lock file."""
    binary = b'\x7fELF' + PLACEHOLDER.encode() + b'/lib\0after'
    entries = [
        {'_path': f'bin/{name}', 'prefix_placeholder': PLACEHOLDER, 'file_mode': 'text'},
        {'_path': f'lib/{name}.so', 'prefix_placeholder': PLACEHOLDER, 'file_mode': 'binary'},
        {'_path': 'etc/plain'},
    ]
    files = {
        f'bin/{name}': f'#!{PLACEHOLDER}/bin/sh\n'.encode(),
        f'lib/{name}.so': binary,
        'info/paths.json': json.dumps({'paths': entries}).encode(),
        'info/licenses/LICENCE': b'non-commercial',
        'etc/plain': b'plain',
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = 0o755
            tar.addfile(member, io.BytesIO(content))
    if name == 'new':
        packed = subprocess.run(
            ['zstd', '-c'], input=buffer.getvalue(), capture_output=True, check=True
        ).stdout
        path = folder / f'{name}-1.0-0.conda'
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('metadata.json', '{}')
            archive.writestr(f'pkg-{name}-1.0-0.tar.zst', packed)
    else:
        path = folder / f'{name}-1.0-0.tar.bz2'
        path.write_bytes(bz2.compress(buffer.getvalue()))
    return f'{path.as_uri()} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}'


@pytest.mark.parametrize('name', ['old', 'new'])
def test_packages_of_both_formats_are_unpacked_for_their_folder(
    container_script: Script, tmp_path: Path, name: str
) -> None:
    if name == 'new' and shutil.which('zstd') is None:
        pytest.skip('zstd is not installed')
    lock, prefix, scripts = tmp_path / 'lock.txt', tmp_path / 'fsl', tmp_path / 'scripts'
    lock.write_text(f'# a comment\n{_package(tmp_path, name)}\n')
    scripts.mkdir()
    (scripts / 'imtest').write_text('of fslpy')
    (scripts / 'shivacmb').write_text('not of fslpy')
    container_script('install_fsl').main(str(lock), str(prefix), str(scripts))
    assert (prefix / 'bin' / name).read_text() == f'#!{prefix}/bin/sh\n'
    assert os.access(prefix / 'bin' / name, os.X_OK)
    binary = (prefix / 'lib' / f'{name}.so').read_bytes()
    assert len(binary) == len(b'\x7fELF' + PLACEHOLDER.encode() + b'/lib\0after')
    assert binary.startswith(b'\x7fELF' + f'{prefix}/lib'.encode() + b'\0')
    assert binary.endswith(b'\0after')
    assert (prefix / 'packages' / f'{name}-1.0-0' / 'licenses' / 'LICENCE').is_file()
    assert (prefix / 'bin' / 'imtest').readlink() == scripts / 'imtest'
    assert not (prefix / 'bin' / 'shivacmb').exists()


def test_a_folder_whose_name_is_too_long_for_a_program_is_refused(
    container_script: Script, tmp_path: Path
) -> None:
    lock = tmp_path / 'lock.txt'
    lock.write_text(_package(tmp_path, 'old'))
    deep = tmp_path / ('a' * 120) / ('b' * 120) / ('c' * 120)
    with pytest.raises(SystemExit, match='choose a folder with a shorter name'):
        container_script('install_fsl').main(str(lock), str(deep), str(tmp_path))


def test_a_package_with_another_checksum_is_refused(
    container_script: Script, tmp_path: Path
) -> None:
    lock = tmp_path / 'lock.txt'
    line = _package(tmp_path, 'old')
    lock.write_text(line[:-64] + '0' * 64)
    with pytest.raises(SystemExit, match=r'has the SHA-256 [0-9a-f]{64}, expected 0{64}'):
        container_script('install_fsl').main(str(lock), str(tmp_path / 'fsl'), str(tmp_path))
