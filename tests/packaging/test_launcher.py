"""What starts the app inside the images: caches, temporary folders, umask."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / 'containers' / 'launch'


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
            text = LAUNCH.read_text()
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
