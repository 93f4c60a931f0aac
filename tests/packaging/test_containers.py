"""The recipes of the images say what they promise; the long test builds one and tries it."""

from __future__ import annotations

import bz2
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

from shivacmb.cli.parser import parse_args

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / 'containers'
DOCKERFILE = (CONTAINERS / 'Dockerfile').read_text()
DEFINITION = (CONTAINERS / 'apptainer.def').read_text()
SCRIPTS = sorted([*CONTAINERS.glob('*.sh'), CONTAINERS / 'launch'])
PINNED = re.compile(r'^([A-Za-z0-9._-]+)==(\S+)', re.M)


def _steps(name: str) -> list[str]:
    """Arguments of a Dockerfile instruction, continued lines joined."""
    joined = DOCKERFILE.replace('\\\n', ' ')
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(f'{name} ')]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'containers_{name}', CONTAINERS / f'{name}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_recipes_start_from_the_same_base_pinned_by_date_and_digest() -> None:
    [(name, tag, digest)] = re.findall(
        r'^ARG BASE=(docker\.io/library/debian):([a-z]+-\d{8}-slim)@(sha256:[0-9a-f]{64})$',
        DOCKERFILE,
        re.MULTILINE,
    )
    # Apptainer before 1.4 refuses a tag beside the digest, so a comment says it
    bases = re.findall(r'^ +# (\S+);.*\n +BASE=(\S+)$', DEFINITION, re.MULTILINE)
    assert bases == [(tag, f'{name}@{digest}')] * 2


def test_every_stage_starts_from_the_base_or_from_a_stage() -> None:
    known = {'${BASE}'}
    stages = [step.split() for step in _steps('FROM')]
    for stage in stages:
        assert stage[0] in known
        known |= set(stage[2:])
    assert len(stages) > 2


def test_the_image_is_not_roots_and_starts_the_app() -> None:
    assert _steps('USER')[-1] not in {'root', '0'}
    assert _steps('ENTRYPOINT') == ['["shivacmb"]']
    assert 'exec /usr/local/bin/shivacmb "$@"' in DEFINITION
    for recipe in (DOCKERFILE, DEFINITION):
        assert "shivacmb --version | cut -d' ' -f2 > /version" in recipe
        assert '/usr/local/bin/shivacmb-tools' in recipe
        assert 'models verify' in recipe


@pytest.mark.parametrize('label', ['title', 'description', 'licenses'])
def test_both_recipes_carry_the_same_labels(label: str) -> None:
    name = re.escape(f'org.opencontainers.image.{label}')
    docker = re.search(rf'{name}="([^"]+)"', DOCKERFILE)
    apptainer = re.search(rf'^ +{name} (.+)$', DEFINITION, re.M)
    assert docker is not None
    assert apptainer is not None
    assert docker[1] == apptainer[1]


def test_the_docker_image_is_labelled_with_version_revision_and_date() -> None:
    for label in ('version', 'revision', 'created'):
        assert f'org.opencontainers.image.{label}="${{{label.upper()}}}"' in DOCKERFILE


def test_packages_are_installed_with_checksums_only() -> None:
    for recipe in (DOCKERFILE, DEFINITION):
        installs = re.findall(r'(?:\$pip|bin/python) install ([^\n]+)', recipe)
        assert len(installs) == 3
        for install in installs:
            assert '--require-hashes' in install or '--no-index --no-deps' in install


def test_singularity_knows_the_file_of_labels_by_another_name() -> None:
    assert '>> "${APPTAINER_LABELS:-$SINGULARITY_LABELS}"' in DEFINITION


def test_an_apptainer_build_leaves_the_tmp_of_the_host_alone() -> None:
    """Apptainer shows the host's /tmp to %post: what lies there may be a run of somebody."""
    posts = re.findall(r'^%post\n(.*?)(?=^%|^Bootstrap)', DEFINITION, re.M | re.S)
    assert len(posts) == 2
    for post in posts:
        assert '/tmp' not in re.sub(r'#.*', '', post)
    assert 'export TMPDIR=/opt/temporary' in posts[1].partition('/bin/shivacmb --version')[0]


def test_the_build_sees_the_wheel_and_its_own_files_only() -> None:
    lines = (ROOT / '.dockerignore').read_text().splitlines()
    assert [line for line in lines if line and line[0] not in '#!'] == ['*']
    sources = [
        word for step in _steps('COPY') if '--from' not in step for word in step.split()[:-1]
    ]
    allowed = [line[1:] for line in lines if line.startswith('!')]
    for source in sources:
        assert any(source == name or source.startswith(f'{name}/') for name in allowed), source


def _lock(name: str) -> dict[str, str]:
    return {
        match[1].lower(): match[2]
        for match in PINNED.finditer((CONTAINERS / 'locks' / f'{name}.txt').read_text())
    }


@pytest.mark.parametrize('name', ['cpu', 'gpu', 'build'])
def test_every_package_of_a_lock_has_checksums(name: str) -> None:
    lines = (CONTAINERS / 'locks' / f'{name}.txt').read_text().replace('\\\n', ' ').splitlines()
    entries = [line for line in lines if line and not line.startswith('#')]
    for entry in entries:
        assert re.fullmatch(r'[A-Za-z0-9._-]+==\S+( +--hash=sha256:[0-9a-f]{64})+', entry), entry
    assert len(entries) == len(_lock(name))


@pytest.mark.parametrize('name', ['cpu', 'gpu'])
def test_locks_hold_what_the_package_asks_for(name: str) -> None:
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    wanted = [Requirement(text) for text in project['dependencies']]
    if name == 'gpu':
        wanted += [Requirement(text) for text in project['optional-dependencies']['gpu']]
    environment = {'python_version': '3.13', 'python_full_version': '3.13.5'}
    lock = _lock(name)
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            version = lock.get(requirement.name.lower())
            assert version is not None, f'{requirement.name}: run containers/lock.sh'
            assert requirement.specifier.contains(version), (
                f'{requirement}: run containers/lock.sh'
            )


def test_the_cpu_image_holds_no_tensorflow() -> None:
    assert 'tensorflow' not in _lock('cpu')
    assert any(package.startswith('nvidia-cudnn') for package in _lock('gpu'))


def test_fsl_is_inside_only_where_its_licence_was_named() -> None:
    assert _steps('ARG')[-1] != 'FSL=non-commercial'
    assert re.search(r'^ARG FSL=$', DOCKERFILE, re.M)
    assert "'') mkdir /opt/fsl" in DOCKERFILE
    lock = (CONTAINERS / 'locks' / 'fsl.txt').read_text()
    assert 'non-commercial use alone' in lock
    packages = _script('install_fsl').read_lock(CONTAINERS / 'locks' / 'fsl.txt')
    names = {url.rsplit('/', 1)[1].rsplit('-', 2)[0] for url, _ in packages}
    assert {'fsl-avwutils', 'fsl-flirt', 'fsl-bet2'} <= names


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    assert os.access(script, os.X_OK)
    if shutil.which('shellcheck') is None:
        pytest.skip('shellcheck is not installed')
    done = subprocess.run(['shellcheck', str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == ''


# --- the launcher -------------------------------------------------------------------------------


class Launcher:
    """The launcher with a stand-in for the app that prints what it was given."""

    def __init__(self, folder: Path) -> None:
        self.tmp = folder / 'tmp'
        self.tmp.mkdir()
        programs = folder / 'bin'
        programs.mkdir()
        for name in ('shivacmb', 'shivacmb-tools'):
            (programs / name).write_text('#!/bin/sh\necho "name=$0"; echo "args=$*"; umask; env\n')
            (programs / name).chmod(0o755)
            text = (CONTAINERS / 'launch').read_text()
            text = text.replace('/opt/shivacmb/bin', str(programs))
            text = text.replace('${TMPDIR:-/tmp}', f'${{TMPDIR:-{self.tmp}}}')
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.folder = folder

    def __call__(
        self, *args: str, name: str = 'shivacmb', **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / name), *args],
            env={'PATH': os.environ['PATH'], **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, **env: str) -> dict[str, str]:
        done = self('x', **env)
        assert done.returncode == 0, done.stderr
        return dict(line.split('=', 1) for line in done.stdout.splitlines() if '=' in line)


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path)


def test_launcher_passes_arguments_and_the_name(launcher: Launcher) -> None:
    done = launcher('models', 'a b', name='shivacmb-tools')
    assert 'args=models a b' in done.stdout
    assert done.stdout.startswith(f'name={launcher.folder}/bin/shivacmb-tools\n')


def test_launcher_keeps_caches_in_the_temporary_folder(launcher: Launcher) -> None:
    own = launcher.tmp / f'shivacmb-{os.getuid()}'
    seen = launcher.environment(HOME='/nowhere', PYTHONPATH='/host', PYTHONHOME='/host')
    assert seen['HOME'] == str(own)
    for name in ('XDG_CACHE_HOME', 'MPLCONFIGDIR', 'NIPYPE_CONFIG_DIR'):
        assert Path(seen[name]).is_relative_to(own)
    assert 'PYTHONPATH' not in seen
    assert 'PYTHONHOME' not in seen
    assert seen['PYTHONNOUSERSITE'] == '1'
    assert own.stat().st_mode & 0o777 == 0o700
    # The second time it is there already
    assert launcher.environment(HOME='/nowhere')['HOME'] == str(own)


def test_launcher_leaves_a_good_home_and_the_users_choices(
    launcher: Launcher, tmp_path: Path
) -> None:
    home = tmp_path / 'home'
    home.mkdir()
    seen = launcher.environment(HOME=str(home), XDG_CACHE_HOME='/mine', TMPDIR=str(home))
    assert seen['HOME'] == str(home)
    assert seen['XDG_CACHE_HOME'] == '/mine'
    assert Path(seen['MPLCONFIGDIR']).is_relative_to(home)


def test_launcher_does_not_trust_a_link_in_the_place_of_its_folder(
    launcher: Launcher, tmp_path: Path
) -> None:
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (launcher.tmp / f'shivacmb-{os.getuid()}').symlink_to(elsewhere)
    seen = launcher.environment(HOME='/nowhere')
    assert re.fullmatch(r'shivacmb-\w{8}', Path(seen['XDG_CACHE_HOME']).name)


@pytest.mark.skipif(os.getuid() != 0, reason='needs root to make a folder of another user')
def test_launcher_does_not_trust_a_folder_of_another_user(launcher: Launcher) -> None:
    folder = launcher.tmp / f'shivacmb-{os.getuid()}'
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    seen = launcher.environment(HOME='/nowhere')
    assert Path(seen['XDG_CACHE_HOME']) != folder


def test_launcher_says_that_tmpdir_is_not_bound(launcher: Launcher) -> None:
    done = launcher('x', TMPDIR='/local/of/the/host')
    assert done.returncode == 0
    assert 'TMPDIR </local/of/the/host> cannot be written inside the container' in done.stderr
    assert 'TMPDIR=' not in done.stdout


def test_launcher_stops_where_nothing_can_be_written(launcher: Launcher) -> None:
    launcher.tmp.rmdir()
    done = launcher('/data', '/out', 'participant')
    assert done.returncode == 73
    assert 'add --tmpfs /tmp' in done.stderr
    assert launcher('--version').returncode == 0


@pytest.mark.parametrize(
    ('free', 'args', 'told'),
    [
        (65536, ('/data', '/out', 'participant'), True),
        (65536, ('/data', '/out', 'participant', '--work-dir', '/w'), False),
        (65536, ('/data', '/out', 'participant', '--work_dir', '/w'), False),
        (65536, ('/data', '/out', 'participant', '-w', '/w'), False),
        (65536, ('/data', '/out', 'participant', '-w/w'), False),
        (65536, ('/data', '/out', 'participant', '--dry-run'), False),
        (65536, ('/data', '/out', 'group'), False),
        ('-', ('/data', '/out', 'participant'), False),
        (65536, ('--version',), False),
        (8388608, ('/data', '/out', 'participant'), False),
    ],
)
def test_launcher_says_that_the_memory_disk_is_small(
    launcher: Launcher, tmp_path: Path, free: int | str, args: tuple[str, ...], told: bool
) -> None:
    """Apptainer gives --containall a /tmp of 64 MB."""
    (tmp_path / 'df').write_text(f'#!/bin/sh\necho Avail; echo {free}\n')
    (tmp_path / 'df').chmod(0o755)
    done = launcher(*args, PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert done.returncode == 0
    assert ('64 MB are free for temporary files' in done.stderr) == told
    assert ('give --workdir FOLDER to apptainer' in done.stderr) == told
    assert told or done.stderr == ''


def test_launcher_sets_the_umask_asked_for(launcher: Launcher) -> None:
    assert '\n0007\n' in launcher('x', SHIVACMB_UMASK='007').stdout


# --- the Boutiques descriptor -------------------------------------------------------------------


def test_descriptor_is_what_the_parser_says() -> None:
    written = json.loads((CONTAINERS / 'boutiques.json').read_text())
    assert written == _script('descriptor').descriptor(), (
        'run: python containers/descriptor.py > containers/boutiques.json'
    )


def test_descriptor_names_every_option_once() -> None:
    written = json.loads((CONTAINERS / 'boutiques.json').read_text())
    keys = re.findall(r'\[[A-Z_]+\]', written['command-line'])
    assert keys == [entry['value-key'] for entry in written['inputs']]
    assert len(keys) == len(set(keys))
    codes = {entry['code'] for entry in written['error-codes']}
    assert {1, 16, 17, 18, 64, 65, 66, 73, 75} <= codes


def _bosh(*args: Any) -> str:
    pytest.importorskip('boutiques')
    done = subprocess.run(
        [Path(sys.executable).with_name('bosh'), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_boutiques_accepts_the_descriptor() -> None:
    assert 'OK' in _bosh('validate', CONTAINERS / 'boutiques.json')


def test_the_app_understands_what_boutiques_makes_of_the_descriptor(tmp_path: Path) -> None:
    invocation = {
        'bids_dir': str(tmp_path),
        'out_dir': '/out',
        'analysis_level': 'participant',
        'participant_label': ['01', '02'],
        'derivatives': [f'a={tmp_path}', f'b={tmp_path}'],
        'threshold': 0.5,
        'mem': '8G',
        'dry_run': True,
    }
    (tmp_path / 'invocation.json').write_text(json.dumps(invocation))
    said = _bosh(
        'exec', 'simulate', '-i', tmp_path / 'invocation.json', CONTAINERS / 'boutiques.json'
    )
    (command,) = [line for line in said.splitlines() if line.startswith('shivacmb ')]
    args = parse_args(command.split()[1:])
    assert args.participant_label == ['01', '02']
    assert [name for name, _ in args.derivatives] == ['a', 'b']
    assert args.threshold == 0.5
    assert args.mem_mb == 8000
    assert args.dry_run is True


# --- FSL as single packages ---------------------------------------------------------------------

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
def test_packages_of_both_formats_are_unpacked_for_their_folder(tmp_path: Path, name: str) -> None:
    if name == 'new' and shutil.which('zstd') is None:
        pytest.skip('zstd is not installed')
    lock, prefix, scripts = tmp_path / 'lock.txt', tmp_path / 'fsl', tmp_path / 'scripts'
    lock.write_text(f'# a comment\n{_package(tmp_path, name)}\n')
    scripts.mkdir()
    (scripts / 'imtest').write_text('of fslpy')
    (scripts / 'shivacmb').write_text('not of fslpy')
    _script('install_fsl').main(str(lock), str(prefix), str(scripts))
    assert (prefix / 'bin' / name).read_text() == f'#!{prefix}/bin/sh\n'
    assert os.access(prefix / 'bin' / name, os.X_OK)
    binary = (prefix / 'lib' / f'{name}.so').read_bytes()
    assert len(binary) == len(b'\x7fELF' + PLACEHOLDER.encode() + b'/lib\0after')
    assert binary.startswith(b'\x7fELF' + f'{prefix}/lib'.encode() + b'\0')
    assert binary.endswith(b'\0after')
    assert (prefix / 'packages' / f'{name}-1.0-0' / 'licenses' / 'LICENCE').is_file()
    assert (prefix / 'bin' / 'imtest').readlink() == scripts / 'imtest'
    assert not (prefix / 'bin' / 'shivacmb').exists()


def test_a_folder_whose_name_is_too_long_for_a_program_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / 'lock.txt'
    lock.write_text(_package(tmp_path, 'old'))
    deep = tmp_path / ('a' * 120) / ('b' * 120) / ('c' * 120)
    with pytest.raises(SystemExit, match='choose a folder with a shorter name'):
        _script('install_fsl').main(str(lock), str(deep), str(tmp_path))


def test_a_package_with_another_checksum_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / 'lock.txt'
    line = _package(tmp_path, 'old')
    lock.write_text(line[:-64] + '0' * 64)
    with pytest.raises(SystemExit, match=r'has the SHA-256 [0-9a-f]{64}, expected 0{64}'):
        _script('install_fsl').main(str(lock), str(tmp_path / 'fsl'), str(tmp_path))


# --- an image, built and tried ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(5400)
@pytest.mark.skipif(
    'SHIVACMB_TEST_IMAGE' not in os.environ,
    reason='builds an image (ten minutes, 6 GB, root, network): SHIVACMB_TEST_IMAGE=1 asks for it',
)
def test_image_from_debootstrap_gives_the_bytes_of_a_plain_run(tmp_path: Path) -> None:
    for program in ('debootstrap', 'buildah', 'unshare'):
        if shutil.which(program) is None:
            pytest.skip(f'{program} is not installed')
    if os.getuid() != 0:
        pytest.skip('debootstrap needs root')
    shutil.rmtree(ROOT / 'dist', ignore_errors=True)
    subprocess.run([sys.executable, '-m', 'build', '--wheel', str(ROOT)], check=True)
    try:
        subprocess.run(
            [CONTAINERS / 'build_from_debootstrap.sh', '--work', tmp_path / 'w'], check=True
        )
        done = subprocess.run(
            [
                CONTAINERS / 'try.sh', '--work', tmp_path / 'w',
                '--plain', Path(sys.executable).with_name('shivacmb'),
            ],
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    finally:
        subprocess.run(
            ['buildah', '--root', tmp_path / 'w/store', '--runroot', tmp_path / 'w/run',
             'rmi', '--all', '--force'],
            check=False,
        )  # fmt: skip
        # buildah leaves the folder of its layers mounted on itself
        subprocess.run(['umount', tmp_path / 'w/store/overlay'], check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'have the bytes of a plain run' in done.stdout
