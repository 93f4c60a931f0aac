"""What the script of an array job gives its containers: folders, cards, models, options."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LABELS = tuple(f'{index:02d}' for index in range(1, 8))
Tools = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize('runtime', ['apptainer', 'docker'])
def test_temporary_files_of_a_container_are_on_the_disk_of_the_node(
    make: Any, runtime: str
) -> None:
    """Under --containall /tmp is a memory disk of 64 MB, and TMPDIR of the host is unknown."""
    script = make('--container', 'docker://x', '--runtime', runtime)
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert words[words.index('--env') + 1] == 'TMPDIR=/tmp'
    assert words[words.index('--work-dir') + 1] == '/tmp'
    given = words[words.index('--workdir' if runtime == 'apptainer' else '--volume') + 1]
    assert Path(given.removesuffix(':/tmp')).parent == script.tmp
    assert '--tmpfs' not in words


@pytest.mark.parametrize('runtime', ['docker', 'podman'])
def test_outputs_of_a_container_belong_to_who_submitted(make: Any, runtime: str) -> None:
    """With keep-id alone, Podman runs the user that the image names, who may write nowhere."""
    script = make('--container', 'x', '--runtime', runtime)
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert words[words.index('--user') + 1] == f'{os.getuid()}:{os.getgid()}'
    spaces = {'docker': [], 'podman': ['--userns=keep-id' if os.getuid() else '--userns=host']}
    assert [word for word in words if word.startswith('--userns')] == spaces[runtime]
    limited = runtime == 'docker' or os.getuid() == 0
    assert words[words.index('--cpus') + 1] == ('3' if limited else '0')


@pytest.mark.parametrize('runtime', ['docker', 'podman'])
def test_engines_keep_the_tmpdir_of_the_node(
    make: Any, tmp_path: Path, fake: Path, runtime: str
) -> None:
    """Podman may keep its state there: the folder of one task would hide it from the others."""
    (fake / 'bin' / runtime).write_text('#!/bin/bash\necho "$TMPDIR" > "$SEEN"\n')
    script = make('--container', 'x', '--runtime', runtime)
    assert script.task(0).returncode == 0
    assert script.seen.read_text() == f'{script.tmp}\n'


@pytest.mark.parametrize('told', [True, False])
def test_an_image_that_is_unmounted_under_an_app_told_to_end_is_no_crash(
    make: Any, fake: Path, told: bool
) -> None:
    """scancel ends the process that mounts the image, too: the app ends with SIGBUS."""
    wait = 'trap "exit 135" TERM; echo up; while :; do sleep 0.02; done' if told else 'exit 135'
    (fake / 'bin' / 'apptainer').write_text(f'#!/bin/bash\n{wait}\n')
    script = make('--container', 'x')
    if told:
        process = script.start()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 143
    else:
        done = script.task(0)
        out = done.stdout
        assert done.returncode == 135
    assert f'exit code {143 if told else 135}\n' in out


def test_container_sees_what_it_needs(make: Any, tmp_path: Path, bids: Path) -> None:
    masks = tmp_path / 'masks'
    for label in LABELS:
        (masks / f'sub-{label}').mkdir(parents=True)
        (masks / f'sub-{label}' / 'mask.nii').write_bytes(b'')
    filters = tmp_path / 'filter.json'
    filters.write_text('{}')
    pattern = f'{masks}/sub-{{participant}}/mask.nii'
    script = make(
        '--container', 'docker://lab/shivacmb:1', '--gres', 'gpu:1', '--bind', '/opt/atlas',
        passed=('--brain-mask', pattern, '--bids-filter-file', filters),
    )  # fmt: skip
    (tmp_path / 'out' / 'logs' / 'slurm' / '5_0.log').touch()
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert words[:4] == ['run', '--cleanenv', '--containall', '--nv']
    assert 'SLURM_JOB_ID=7' in words
    assert 'SLURM_MEM_PER_NODE=' in words
    assert f'SHIVACMB_TASK_LOG={tmp_path}/out/logs/slurm/5/0.log' in words
    binds = [words[i + 1] for i, word in enumerate(words) if word == '--bind']
    out = tmp_path / 'out'
    assert binds[:2] == [f'{bids}:{bids}:ro', f'{out}:{out}']
    assert f'{filters}:{filters}:ro' in binds
    assert f'{masks}:{masks}:ro' in binds
    assert '/opt/atlas:/opt/atlas:ro' in binds
    assert words[words.index('docker://lab/shivacmb:1') + 1] == str(bids)


@pytest.mark.parametrize('runtime', ['apptainer', 'docker'])
def test_containers_on_one_card_see_one_lock(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    locks = tmp_path / 'node' / 'locks'
    monkeypatch.setenv('SHIVACMB_GPU_LOCKS', str(locks))
    script = make('--container', 'x', '--runtime', runtime, '--gres', 'gpu:1')
    assert '${SHIVACMB_GPU_LOCKS:-/tmp/shivacmb-gpu-$UID}' in script.text
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert f'{locks}:/gpu-locks' in words
    assert 'SHIVACMB_GPU_LOCKS=/gpu-locks' in words
    assert locks.stat().st_mode & 0o777 == 0o700
    assert 'gpu-locks' not in make('--container', 'x', '--runtime', runtime).text


@pytest.mark.parametrize(
    ('runtime', 'env', 'expected'),
    [
        ('apptainer', {}, ['--nv']),
        ('apptainer', {'CUDA_VISIBLE_DEVICES': '0,2'},
         ['--nv', '--env', 'CUDA_VISIBLE_DEVICES=0,2']),
        ('docker', {}, ['--gpus', 'all']),
        ('docker', {'SLURM_JOB_GPUS': '1,3'}, ['--gpus', '"device=1,3"']),
        ('podman', {}, ['--device', 'nvidia.com/gpu=all']),
        ('podman', {'SLURM_JOB_GPUS': '1,3'},
         ['--device', 'nvidia.com/gpu=1', '--device', 'nvidia.com/gpu=3']),
    ],
)  # fmt: skip
def test_a_container_gets_the_cards_of_its_task(
    make: Any, monkeypatch: pytest.MonkeyPatch, runtime: str, env: dict[str, str],
    expected: list[str],
) -> None:  # fmt: skip
    for name in ('CUDA_VISIBLE_DEVICES', 'SLURM_JOB_GPUS'):
        monkeypatch.delenv(name, raising=False)
    script = make('--container', 'x', '--runtime', runtime, '--gres', 'gpu:2')
    assert script.task(0, **env).returncode == 0
    words = script.seen.read_text().splitlines()
    start = words.index(expected[0])
    assert words[start : start + len(expected)] == expected
    others = [word for word in words[start + len(expected) :] if 'gpu=' in word or 'CUDA_' in word]
    assert not others
    # a node without cards can gather the tables: Docker would not start there with --gpus
    assert script.task(0, 'group', **env).returncode == 0
    grouped = script.seen.read_text().splitlines()
    assert grouped[-1] == 'group'
    assert not {'--nv', '--gpus', '--device'} & set(grouped)


@pytest.mark.parametrize('kind', ['file', 'link', 'dangling'])
def test_lock_folder_that_is_none_stops_no_task(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    locks = tmp_path / 'locks'
    if kind == 'file':
        locks.touch()
    else:
        locks.symlink_to(tmp_path if kind == 'link' else tmp_path / 'nowhere')
    monkeypatch.setenv('SHIVACMB_GPU_LOCKS', str(locks))
    script = make('--container', 'x', '--gres', 'gpu:1')
    assert script.task(0).returncode == 0
    [bound] = [word for word in script.seen.read_text().splitlines() if 'gpu-locks' in word][:1]
    assert Path(bound.removesuffix(':/gpu-locks')).parent == script.tmp


def test_lock_folder_of_a_site_may_be_of_another_user(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = Path('/tmp')
    if os.getuid() == 0:
        locks = tmp_path / 'locks'
        locks.mkdir(mode=0o777)
        os.chown(locks, 1, 1)
    monkeypatch.setenv('SHIVACMB_GPU_LOCKS', str(locks))
    script = make('--container', 'x', '--gres', 'gpu:1')
    assert script.task(0).returncode == 0
    assert f'{locks}:/gpu-locks' in script.seen.read_text().splitlines()


@pytest.mark.parametrize(
    ('words', 'passed', 'device'),
    [
        ((), (), 'cpu'),
        (('--gres', 'tmp:20G,gpu:1'), (), 'gpu'),
        (('--gres', 'shard:1'), (), 'gpu'),
        (('--gres', 'tmp:gpu'), (), 'cpu'),
        (('--partition', 'gpu'), ('--device', 'gpu'), 'gpu'),
        (('--gres', 'gpu:1'), ('--device', 'cpu'), 'cpu'),
    ],
)
def test_a_gpu_that_is_asked_for_is_used(
    make: Any, words: tuple[str, ...], passed: tuple[str, ...], device: str
) -> None:
    script = make('--container', 'x', *words, passed=passed)
    assert script.task(0).returncode == 0
    seen = script.seen.read_text().splitlines()
    assert seen[seen.index('--device') + 1] == device
    assert ('--nv' in seen) == (device == 'gpu')


def test_container_gets_a_model_that_was_added(
    tools_main: Tools, tmp_path: Path, bids: Path, spot_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv('SHIVACMB_MODELS', raising=False)
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path / 'data'))
    models = tmp_path / 'data' / 'shivacmb' / 'models'
    shutil.copytree(spot_bundle, models / 'mine')
    words = ('slurm', bids, tmp_path / 'out', '--container', 'docker://x', '--')
    text = tools_main(*words, '--model', 'mine').stdout
    assert f'{models}:{models}:ro' in text
    assert f'--models-dir {models}' in text
    assert '--models-dir' not in tools_main(*words, '--model', 'default').stdout


def test_container_knows_where_models_are(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('SHIVACMB_MODELS', str(tmp_path / 'models'))
    (tmp_path / 'models').mkdir()
    script = make('--container', 'docker://x')
    assert script.task(0).returncode == 0
    words = script.seen.read_text().splitlines()
    assert f'{tmp_path}/models:{tmp_path}/models:ro' in words
    assert words[words.index('--models-dir') + 1] == str(tmp_path / 'models')


@pytest.mark.parametrize('named', ['', '{}/missing'])
def test_container_gets_no_folder_of_models_that_is_not_there(
    tools_main: Tools, tmp_path: Path, bids: Path, spot_bundle: Path,
    monkeypatch: pytest.MonkeyPatch, named: str,
) -> None:  # fmt: skip
    monkeypatch.setenv('SHIVACMB_MODELS', named.format(tmp_path))
    words = ('slurm', bids, tmp_path / 'out', '--container', 'docker://x')
    done = tools_main(*words, '--', '--model', spot_bundle)
    assert done.returncode == 0
    assert '--models-dir' not in done.stdout
    note = f'<{tmp_path}/missing> of $SHIVACMB_MODELS cannot be seen from here and is left out'
    assert (note in done.stderr) == bool(named)
