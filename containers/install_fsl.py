"""Unpack the packages of FSL that shivacmb uses, each checked against its SHA-256.

    python3 containers/install_fsl.py containers/locks/fsl.txt /opt/fsl /opt/shivacmb/bin

FSL is published as single packages in conda's formats. They and the libraries they load are
unpacked below one folder, and the folder's name is written where the packages hold a placeholder
for it, as their info/paths.json asks. No solver and no Python of theirs: flirt, bet2 and the image
utilities are programs and shell scripts. The small Python scripts that these scripts call (imtest,
remove_ext...) are those of fslpy, which shivacmb itself needs, and are linked into bin/.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

LINE = re.compile(r'(?P<url>[a-z]+://\S+)\s+sha256:(?P<sha256>[0-9a-f]{64})')
TIMEOUT_S = 120
FSLPY_SCRIPTS = (
    'fsl_abspath', 'imcp', 'imglob', 'imln', 'immv', 'imrm', 'imtest', 'remove_ext',
)  # fmt: skip


def read_lock(lock: Path) -> list[tuple[str, str]]:
    """Return address and checksum of each package of a lock file."""
    packages = []
    for line in lock.read_text(encoding='utf-8').splitlines():
        if line.strip() and not line.startswith('#'):
            match = LINE.fullmatch(line.strip())
            if match is None:
                raise SystemExit(f'{lock}: expected an address and sha256:..., got {line!r}')
            packages.append((match['url'], match['sha256']))
    return packages


def fetch(url: str, sha256: str) -> bytes:
    """Return a package's bytes, or stop when they are not those that were pinned."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as stream:  # noqa: S310 (pinned)
        content = bytes(stream.read())
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SystemExit(f'{url} has the SHA-256 {found}, expected {sha256}')
    return content


def unpack(name: str, content: bytes, prefix: Path) -> None:
    """Unpack one package and put ``prefix`` where it holds a placeholder."""
    if name.endswith('.conda'):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [m for m in archive.namelist() if m.endswith('.tar.zst')]
            archives = {m.split('-', 1)[0]: _unzstd(archive.read(m)) for m in members}
    else:
        archives = {'all': content}
    for part in archives.values():
        with tarfile.open(fileobj=io.BytesIO(part), mode='r:*') as tar:
            # Python 3.11.2, Debian's, has no filters; checksums say whose packages these are
            kept: dict[str, Any] = {'filter': 'tar'} if hasattr(tarfile, 'tar_filter') else {}
            tar.extractall(prefix, **kept)  # noqa: S202
    listing = json.loads((prefix / 'info/paths.json').read_text(encoding='utf-8'))
    for entry in listing['paths']:
        if 'prefix_placeholder' in entry:
            _replace(
                prefix / entry['_path'], entry['prefix_placeholder'], entry['file_mode'], prefix
            )
    # What the package says of itself, its licence among it
    (prefix / 'info').rename(prefix / 'packages' / re.sub(r'\.(conda|tar\.bz2)$', '', name))


def _unzstd(content: bytes) -> bytes:
    return subprocess.run(['zstd', '-dc'], input=content, capture_output=True, check=True).stdout


def _replace(path: Path, placeholder: str, mode: str, prefix: Path) -> None:
    old, new = placeholder.encode(), str(prefix).encode()
    content = path.read_bytes()
    if mode == 'binary':
        if len(new) > len(old):
            raise SystemExit(
                f'<{prefix}> does not fit into {path.name}: choose a folder with a shorter name'
            )

        # A string in a program keeps its length: what the shorter name leaves is filled with zeros
        def shorter(match: re.Match[bytes]) -> bytes:
            return (new + match[1]).ljust(len(match[0]) - 1, b'\0') + b'\0'

        content = re.sub(re.escape(old) + rb'([^\0]*)\0', shorter, content)
    else:
        content = content.replace(old, new)
    path.write_bytes(content)


def link_scripts(scripts: Path, prefix: Path) -> None:
    """Link the scripts of fslpy that FSL's own call, where FSL itself has none of that name."""
    for script in sorted(scripts.iterdir()):
        target = prefix / 'bin' / script.name
        ours = script.name in FSLPY_SCRIPTS
        if ours and not target.exists():
            target.symlink_to(script)


def main(lock: str, folder: str, scripts: str) -> None:
    """Install every package of a lock file."""
    prefix = Path(folder).absolute()
    (prefix / 'packages').mkdir(parents=True)
    for url, sha256 in read_lock(Path(lock)):
        name = url.rsplit('/', 1)[1]
        sys.stdout.write(f'{name}\n')
        unpack(name, fetch(url, sha256), prefix)
    link_scripts(Path(scripts), prefix)


if __name__ == '__main__':
    main(*sys.argv[1:])
