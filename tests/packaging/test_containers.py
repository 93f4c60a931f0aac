"""The recipes of the images say what they promise; the long test builds one and tries it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
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
Script = Callable[[str], ModuleType]
PINNED = re.compile(r'^([A-Za-z0-9._-]+)==(\S+)', re.M)


def _steps(name: str) -> list[str]:
    """Arguments of a Dockerfile instruction, continued lines joined."""
    joined = DOCKERFILE.replace('\\\n', ' ')
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(f'{name} ')]


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


def test_fsl_is_inside_only_where_its_licence_was_named(container_script: Script) -> None:
    assert _steps('ARG')[-1] != 'FSL=non-commercial'
    assert re.search(r'^ARG FSL=$', DOCKERFILE, re.M)
    assert "'') mkdir /opt/fsl" in DOCKERFILE
    lock = (CONTAINERS / 'locks' / 'fsl.txt').read_text()
    assert 'non-commercial use alone' in lock
    packages = container_script('install_fsl').read_lock(CONTAINERS / 'locks' / 'fsl.txt')
    names = {url.rsplit('/', 1)[1].rsplit('-', 2)[0] for url, _ in packages}
    assert {'fsl-avwutils', 'fsl-flirt', 'fsl-bet2'} <= names


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    assert os.access(script, os.X_OK)
    if shutil.which('shellcheck') is None:
        pytest.skip('shellcheck is not installed')
    done = subprocess.run(['shellcheck', str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == ''


# --- the Boutiques descriptor -------------------------------------------------------------------


def test_descriptor_is_what_the_parser_says(container_script: Script) -> None:
    written = json.loads((CONTAINERS / 'boutiques.json').read_text())
    assert written == container_script('descriptor').descriptor(), (
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
