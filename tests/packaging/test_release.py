"""Wheel and sdist: what they hold, which version they have, and that an installed wheel works."""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / '.ci' / 'release_check.py'

pytestmark = pytest.mark.skipif(
    not SCRIPT.is_file(), reason='needs a checkout: an sdist has no .ci/release_check.py'
)


@pytest.fixture(scope='module')
def check() -> Any:
    spec = importlib.util.spec_from_file_location('release_check', SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_both_are_built_whole_and_the_installed_wheel_finds_the_lesions(tmp_path: Path) -> None:
    pytest.importorskip('build')
    command = [sys.executable, str(SCRIPT), '--dist', str(tmp_path), '--install', 'borrowed']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'version \S+: all is well', done.stdout)


# -- the checks themselves can fail -----------------------------------------------------------


def _pair(
    check: Any,
    folder: Path,
    *,
    extra: str = '',
    without: str = '',
    change: Callable[[tarfile.TarInfo], None] | None = None,
) -> tuple[Path, Path]:
    """A wheel and an sdist of empty files, with a name more or less in the wheel."""
    info = 'shivacmb-1.2.3.dist-info'
    names = {*check._tracked(), *check.NEEDED_IN_WHEEL, extra} - {without, ''}
    names |= {f'{info}/licenses/LICENSE', f'{info}/licenses/NOTICE'}
    wheel = folder / 'shivacmb-1.2.3-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        for name in sorted(names):
            archive.writestr(name, '')
        archive.writestr(f'{info}/METADATA', 'Version: 1.2.3\nLicense-Expression: Apache-2.0\n')
    sdist = folder / 'shivacmb-1.2.3.tar.gz'
    with tarfile.open(sdist, 'w:gz') as archive:
        for name in check.NEEDED_IN_SDIST:
            member = tarfile.TarInfo(f'shivacmb-1.2.3/{name}')
            if change is not None and name == 'LICENSE':
                change(member)
            archive.addfile(member, io.BytesIO())
    return wheel, sdist


def _link(member: tarfile.TarInfo) -> None:
    member.type, member.linkname = tarfile.SYMTYPE, '/etc/passwd'


def _outside(member: tarfile.TarInfo) -> None:
    member.name = 'shivacmb-1.2.3/../LICENSE'


def test_a_good_pair_passes(check: Any, tmp_path: Path) -> None:
    assert check.look(*_pair(check, tmp_path)) == '1.2.3'


@pytest.mark.parametrize(
    ('wrong', 'text'),
    [
        ({'extra': 'tests/test_a.py'}, 'at its top'),
        ({'extra': 'shivacmb/tests/test_a.py'}, 'should not be packed'),
        ({'extra': 'shivacmb/__pycache__/a.pyc'}, 'should not be packed'),
        ({'without': 'shivacmb/py.typed'}, 'not packed: shivacmb/py.typed'),
        ({'without': 'shivacmb/models/bundles/synth-cmb/fold-0.bin'}, 'the wheel lacks'),
        ({'change': _link}, 'the sdist holds a link'),
        ({'change': _outside}, 'leads out of it'),
    ],
)
def test_a_bad_one_is_refused(
    check: Any, tmp_path: Path, wrong: dict[str, Any], text: str
) -> None:
    with pytest.raises(check.CheckError, match=text):
        check.look(*_pair(check, tmp_path, **wrong))


def test_a_version_that_is_not_the_tag_ends_with_1(
    check: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pair(check, tmp_path)
    descriptor = tmp_path / 'boutiques.json'
    descriptor.write_text('{"tool-version": "1.2.3", "container-image": {"image": "a:1.2.3"}}')
    monkeypatch.setattr(check, 'DESCRIPTOR', descriptor)
    assert check.main(['--dist', str(tmp_path), '--install', 'no', '--tag', 'v1.2.3']) == 0
    assert check.main(['--dist', str(tmp_path), '--install', 'no', '--tag', 'v1.2.4']) == 1
    assert 'the tag is v1.2.4, the files are of version 1.2.3' in capsys.readouterr().err
    descriptor.write_text('{"tool-version": "1.2.2", "container-image": {"image": "a:1.2.3"}}')
    assert check.main(['--dist', str(tmp_path), '--install', 'no', '--tag', 'v1.2.3']) == 1
    assert 'boutiques.json is of version 1.2.2, 1.2.3, the files are of 1.2.3: set VERSION' in (
        capsys.readouterr().err
    )


# -- version ----------------------------------------------------------------------------------

BUILT_FROM = ('pyproject.toml', 'README.md', 'LICENSE', 'NOTICE')


def _git(folder: Path, *commands: list[str]) -> None:
    """Begin a repository with these commands, whatever the settings of this user."""
    git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', '-c', 'commit.gpgsign=false']
    for command in (['init', '-q'], *commands):
        subprocess.run([*git, *command], cwd=folder, check=True)


def _version(folder: Path) -> str:
    """What a build of this folder would call itself."""
    done = subprocess.run(
        [sys.executable, '-m', 'hatchling', 'version'],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ('tag', 'later', 'expected'),
    [('v1.2.3', 0, '1.2.3'), ('v1.2.3', 2, '1.2.4.dev2'), ('', 0, '0.1.0.dev0')],
)
def test_the_version_is_the_tag(tmp_path: Path, tag: str, later: int, expected: str) -> None:
    pytest.importorskip('hatch_vcs')
    pytest.importorskip('hatchling')
    (tmp_path / 'shivacmb').mkdir()
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, tmp_path)
    if tag:
        more = [['commit', '-q', '--allow-empty', '-m', 'more']] * later
        _git(tmp_path, ['commit', '-q', '--allow-empty', '-m', 'first'], ['tag', tag], *more)
    assert _version(tmp_path) == expected


@pytest.mark.parametrize(('later', 'expected'), [(0, '1.2.3'), (2, '1.2.4.dev2')])
def test_an_archive_knows_its_version(tmp_path: Path, later: int, expected: str) -> None:
    pytest.importorskip('hatch_vcs')
    pytest.importorskip('hatchling')
    origin, unpacked = tmp_path / 'origin', tmp_path / 'unpacked'
    (origin / 'shivacmb').mkdir(parents=True)
    (origin / 'shivacmb' / '__init__.py').touch()
    for name in (*BUILT_FROM, '.gitattributes', '.git_archival.txt'):
        shutil.copy(ROOT / name, origin)
    more = [['commit', '-q', '--allow-empty', '-m', 'more']] * later
    packed = ['archive', '-o', str(tmp_path / 'it.tar'), 'HEAD']
    first = [['add', '.'], ['commit', '-q', '-m', 'first'], ['tag', 'v1.2.3']]
    _git(origin, *first, *more, packed)
    shutil.unpack_archive(tmp_path / 'it.tar', unpacked)
    assert not (unpacked / '.git').exists()
    assert _version(unpacked) == expected


# -- workflows --------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['ci', 'release'])
def test_actions_are_pinned_and_targets_exist(name: str) -> None:
    text = (ROOT / '.github' / 'workflows' / f'{name}.yml').read_text(encoding='utf-8')
    used = re.findall(r'uses: (\S+)( # v\S+)?', text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r'[\w./-]+@[0-9a-f]{40}', action), action
        assert comment, action
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    assert set(re.findall(r'run: make ([a-z-]+)', text)) <= targets


@pytest.mark.parametrize('name', ['ci', 'release'])
def test_slurm_is_tested_as_root_and_not_skipped(name: str, tmp_path: Path) -> None:
    yaml = pytest.importorskip('yaml')
    text = (ROOT / '.github' / 'workflows' / f'{name}.yml').read_text(encoding='utf-8')
    steps = [step.get('run', '') for step in yaml.safe_load(text)['jobs']['check']['steps']]
    (run,) = (step for step in steps if 'test_slurm.py' in step)
    assert steps.index('.ci/run') < steps.index(run)  # which makes the environment
    assert (ROOT / 'tests' / 'system' / 'test_slurm.py').is_file()
    # the step itself, with commands that only say what was asked of them
    for said, code in (('2 passed', 0), ('SKIPPED [2] no SLURM', 1), ('1 failed', 1)):
        (tmp_path / 'sudo').write_text(
            '#!/bin/sh\n'
            f'case "$*" in *pytest*) echo "{said}"; test "{said}" != "1 failed" ;; esac\n'
        )
        (tmp_path / 'sudo').chmod(0o755)
        done = subprocess.run(
            ['bash', '--noprofile', '--norc', '-eo', 'pipefail', '-c', run],
            env={'PATH': f'{tmp_path}:/usr/bin:/bin', 'RUNNER_TEMP': str(tmp_path)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, said


def test_publishing_is_for_tags_alone_and_asks_first() -> None:
    yaml = pytest.importorskip('yaml')
    text = (ROOT / '.github' / 'workflows' / 'release.yml').read_text(encoding='utf-8')
    jobs = yaml.safe_load(text)['jobs']
    publish = jobs['publish']
    assert publish['if'] == "github.ref_type == 'tag'"
    assert publish['environment'] == 'release'
    assert {'build', 'check', 'docs', 'containers'} <= set(publish['needs'])
    assert "&& 'release'" in jobs['containers']['environment']
    assert {'build', 'check', 'docs'} <= set(jobs['containers']['needs'])
    for name in set(jobs) - {'publish', 'containers'}:
        assert 'permissions' not in jobs[name]
