"""Check a wheel and an sdist before anyone installs them.

    python .ci/release_check.py [--dist DIR] [--install {clean,borrowed,no}] [--tag v1.2.3]

Builds both where DIR has none, looks into them, and installs them in an empty environment, where
version, models and the demo have to work. ``clean`` installs wheel and sdist with all they depend
on; ``borrowed`` installs the wheel alone in an environment that sees the packages of this one, and
runs one scan. Exits with 1 at the first failure.
"""

from __future__ import annotations

import argparse
import email
import functools
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
DESCRIPTOR = ROOT / 'containers' / 'boutiques.json'
LINKS = ('workflows', 'interfaces', 'models')
# The package index takes no file over 100 MB; ours hold two small models
WHEEL_MB, SDIST_MB, FILE_MB = 30, 60, 25
FORBIDDEN = re.compile(
    r'(^|/)(__pycache__|\.git|\.venv|\.mypy_cache|\.pytest_cache)(/|$)|\.pyc$|~$'
)
NEEDED_IN_WHEEL = (
    'shivacmb/py.typed',
    'shivacmb/_version.py',
    'shivacmb/models/bundles/synth-cmb/model.json',
    'shivacmb/models/bundles/brain-zones/model.json',
    'shivacmb/reports/templates/session.html.j2',
)
NEEDED_IN_SDIST = (
    'LICENSE', 'NOTICE', 'README.md', 'CHANGELOG.md', 'SECURITY.md', 'CONTRIBUTING.md',
    'CITATION.cff', 'Makefile', 'pyproject.toml', 'docs/conf.py', 'tests/conftest.py',
    'bids_examples/demo/dataset_description.json', 'containers/Dockerfile',
)  # fmt: skip


class CheckError(Exception):
    """What is wrong with a distribution."""


def main(argv: list[str] | None = None) -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--dist', type=Path, default=ROOT / 'dist', help='default: dist')
    parser.add_argument('--install', choices=('clean', 'borrowed', 'no'), default='clean')
    parser.add_argument('--tag', help='the version must be that of this tag')
    args = parser.parse_args(argv)
    try:
        wheel, sdist = find(args.dist) or build(args.dist)
        version = look(wheel, sdist)
        if args.tag and args.tag != f'v{version}':
            raise CheckError(f'the tag is {args.tag}, the files are of version {version}')
        if args.tag:
            described(version)
        borrowed = args.install == 'borrowed'
        files = {'clean': (wheel, sdist), 'borrowed': (wheel,), 'no': ()}[args.install]
        for file in files:
            step = functools.partial(install, file, version, borrowed=borrowed)
            timed(f'installed and run: {file.name}', step)
    except CheckError as error:
        print(f'release check: {error}', file=sys.stderr)
        return 1
    print(f'version {version}: all is well')
    return 0


def timed(text: str, step: Callable[[], object]) -> None:
    """Do a step and say how long it took."""
    start = time.monotonic()
    step()
    print(f'{text} ({time.monotonic() - start:.0f} s)')


def find(dist: Path) -> tuple[Path, Path] | None:
    """Return the wheel and the sdist in a folder, or None when it has neither."""
    wheels, sdists = sorted(dist.glob('*.whl')), sorted(dist.glob('*.tar.gz'))
    if not wheels and not sdists:
        return None
    if len(wheels) != 1 or len(sdists) != 1:
        raise CheckError(f'{dist} must hold one wheel and one sdist; empty it first')
    return wheels[0], sdists[0]


def build(dist: Path) -> tuple[Path, Path]:
    """Build the sdist from the repository, and the wheel from the sdist."""
    command = [sys.executable, '-m', 'build', '--outdir', str(dist), str(ROOT)]
    timed('built', lambda: run(command))
    found = find(dist)
    if found is None:
        raise CheckError(f'nothing was built in {dist}')
    return found


def look(wheel: Path, sdist: Path) -> str:
    """Look into both; return their version."""
    packed, metadata = _wheel_names(wheel)
    members = _sdist_names(sdist)
    version = metadata['Version']
    _require(
        packed, [*NEEDED_IN_WHEEL, *_dist_info(packed, 'licenses/LICENSE', 'licenses/NOTICE')]
    )
    _require(members, NEEDED_IN_SDIST)
    tops = {name.split('/')[0] for name in packed}
    if tops != {'shivacmb', f'shivacmb-{version}.dist-info'}:
        raise CheckError(f'the wheel holds {", ".join(sorted(tops))} at its top')
    strangers = [name for name in packed if FORBIDDEN.search(name) or '/tests/' in name]
    strangers += [name for name in members if FORBIDDEN.search(name)]
    strangers += [name for name in members if name.split('/')[0] in LINKS]
    if strangers:
        raise CheckError(f'this should not be packed: {", ".join(strangers[:5])}')
    missing = [name for name in _tracked() if name not in packed]
    if missing:
        raise CheckError(f'the wheel lacks {", ".join(missing[:5])} ({len(missing)} in all)')
    if metadata['License-Expression'] != 'Apache-2.0':
        raise CheckError(f'the licence is {metadata["License-Expression"]!r}')
    if sdist.name != f'shivacmb-{version}.tar.gz':
        raise CheckError(f'{sdist.name} and {wheel.name} are of different versions')
    for file, limit in ((wheel, WHEEL_MB), (sdist, SDIST_MB)):
        size = file.stat().st_size / 1e6
        print(f'{file.name}: {size:.1f} MB')
        if size > limit:
            raise CheckError(f'{file.name} has {size:.1f} MB, more than {limit}')
    return str(version)


def described(version: str) -> None:
    """Check that the Boutiques descriptor, whose version is set by hand, is of this version."""
    text = json.loads(DESCRIPTOR.read_text(encoding='utf-8'))
    said = {text['tool-version'], text['container-image']['image'].partition(':')[2]}
    if said != {version}:
        raise CheckError(
            f'{DESCRIPTOR.name} is of version {", ".join(sorted(said))}, the files are of '
            f'{version}: set VERSION in containers/descriptor.py and run '
            'python containers/descriptor.py > containers/boutiques.json'
        )


def _dist_info(packed: Iterable[str], *names: str) -> list[str]:
    folder = next(name.split('/')[0] for name in packed if '.dist-info/' in name)
    return [f'{folder}/{name}' for name in names]


def _wheel_names(wheel: Path) -> tuple[set[str], email.message.Message]:
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            if item.external_attr >> 28 == 0xA:
                raise CheckError(f'the wheel holds a link: {item.filename}')
            if item.file_size > FILE_MB * 1e6:
                raise CheckError(f'{item.filename} in the wheel is larger than {FILE_MB} MB')
        names = set(archive.namelist())
        (record,) = (name for name in names if name.endswith('.dist-info/METADATA'))
        return names, email.message_from_bytes(archive.read(record))


def _sdist_names(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = set()
    for member in members:
        path = PurePosixPath(member.name)
        if not (member.isfile() or member.isdir()):
            raise CheckError(f'the sdist holds a link: {member.name}')
        if path.is_absolute() or '..' in path.parts:
            raise CheckError(f'the sdist holds a path that leads out of it: {member.name}')
        names.add('/'.join(path.parts[1:]))
    return names


def _require(names: set[str], needed: Iterable[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise CheckError(f'not packed: {", ".join(missing)}')


def _tracked() -> list[str]:
    """Files of the package that git knows; none outside of a checkout."""
    done = subprocess.run(
        ['git', 'ls-files', 'shivacmb'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.split()


def install(file: Path, version: str, *, borrowed: bool = False) -> None:
    """Install a file in an empty environment and use it as its user would.

    Parameters
    ----------
    file : Path
        Wheel or sdist.
    version : str
        What it should call itself.
    borrowed : bool
        Take what it depends on from the environment of this interpreter. An editable
        installation there is not seen: files that end in .pth count in an environment's own
        folder only.
    """
    with tempfile.TemporaryDirectory(prefix='shivacmb-release-') as name:
        folder = Path(name)
        venv.create(folder / 'env', with_pip=not borrowed, symlinks=True)
        programs = folder / 'env' / 'bin'
        if borrowed:
            (own,) = (folder / 'env' / 'lib').glob('python*/site-packages')
            (own / 'borrowed.pth').write_text(sysconfig.get_paths()['purelib'] + '\n')
            pip = [sys.executable, '-m', 'pip', '--python', str(programs / 'python')]
            run([*pip, 'install', '--quiet', '--no-deps', '--no-index', str(file)])
        else:
            pip = [str(programs / 'python'), '-m', 'pip']
            run([*pip, 'install', '--quiet', str(file)])
            run([*pip, 'check'])
        use(programs, folder, version, ('02',) if borrowed else ('01', '02', '03'))


def use(programs: Path, folder: Path, version: str, participants: Sequence[str]) -> None:
    """Ask for version and models, and run the demo in an environment."""
    said = run([str(programs / 'shivacmb'), '--version'], folder).strip()
    if said != f'shivacmb {version}':
        raise CheckError(f'shivacmb --version says {said!r}, the file is of {version}')
    run([str(programs / 'shivacmb-tools'), 'models', 'verify'], folder)
    out = folder / 'out'
    command = [str(programs / 'shivacmb'), str(ROOT / 'bids_examples' / 'demo'), str(out)]
    run([*command, 'participant', '--participant-label', *participants], folder)
    run([*command, 'group'], folder)
    table = (out / 'group_desc-CMB_counts.tsv').read_text(encoding='utf-8').splitlines()
    rows = [dict(zip(table[0].split('\t'), row.split('\t'), strict=True)) for row in table[1:]]
    if [row['status'] for row in rows] != ['ok'] * len(participants):
        raise CheckError(f'the demo ended with {[row["status"] for row in rows]}')
    if {row['software_version'] for row in rows} != {version}:
        raise CheckError('the demo ran another version than the one installed')


def run(command: list[str], folder: Path | None = None) -> str:
    """Run a command away from the checkout's packages; return what it printed.

    Raises
    ------
    CheckError
        With the end of its output.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith('PYTHON')}
    done = subprocess.run(
        command, cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    if done.returncode:
        end = (done.stdout + done.stderr)[-2000:]
        raise CheckError(f'{" ".join(command)} ended with {done.returncode}:\n{end}')
    return done.stdout


if __name__ == '__main__':
    sys.exit(main())
