"""Scripts of array jobs, with stand-ins for SLURM, containers and the app."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: A client whose container is no child of the task, and that a signal of SLURM does not end.
CLIENT = """
if [ "$1" != run ]; then
    echo "$*" >> "$SEEN.told"
    [ "$1" != kill ] || kill "$(cat "$SEEN.container")"
    exit
fi
printf "%s\\n" "$@" > "$SEEN"
[ -z "$SLOW" ] || {
    sleep 60 > /dev/null &
    trap "" TERM
    echo $! > "$SEEN.container"
    echo up
    wait $!
}
"""
LABELS = tuple(f'{index:02d}' for index in range(1, 8))
Tools = Callable[..., subprocess.CompletedProcess[str]]


def _dataset(root: Path, labels: tuple[str, ...] = LABELS) -> Path:
    root.mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for label in labels:
        folder = root / f'sub-{label}' / 'anat'
        folder.mkdir(parents=True)
        (folder / f'sub-{label}_T2starw.nii.gz').write_bytes(b'not opened')
    return root


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    """Make a dataset of participants with a scan each, which nobody opens."""
    return _dataset


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    """Participants 01 to 07."""
    return _dataset(tmp_path / 'bids')


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A virtual environment whose shivacmb writes down what it was told, and other programs."""
    folder = tmp_path / 'venv' / 'bin'
    folder.mkdir(parents=True)
    programs = {
        'shivacmb': 'printf "%s\\n" "$@" > "$SEEN"\n[ -z "$SLOW" ] || {\n'
        'trap "echo term; exit 143" TERM\necho up\nwhile :; do sleep 0.02; done\n}\n'
        'exit "${CODE:-0}"\n',
        'scontrol': 'echo "scontrol $*"\n',
        'sbatch': 'printf "%s " "$@" >> "$SEEN"; echo >> "$SEEN"\necho "42;cluster"\n',
        'apptainer': 'printf "%s\\n" "$@" > "$SEEN"\n',
        'docker': CLIENT,
        'podman': CLIENT,
    }
    for name, text in programs.items():
        (folder / name).write_text(f'#!/bin/bash\n{text}')
        (folder / name).chmod(0o755)
    return folder.parent


class Script:
    """A printed script, and ways to run it."""

    def __init__(self, text: str, tmp_path: Path, fake: Path) -> None:
        self.text = text
        self.path = tmp_path / 'run.sbatch'
        self.path.write_text(text)
        self.seen = tmp_path / 'seen'
        self.tmp = tmp_path / 'node'
        self.tmp.mkdir(exist_ok=True)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith('SLURM')},
            'PATH': f'{fake / "bin"}:{os.environ["PATH"]}',
            'SEEN': str(self.seen),
            'TMPDIR': str(self.tmp),
            'SHIVACMB_GPU_LOCKS': os.environ.get('SHIVACMB_GPU_LOCKS', str(self.tmp / 'locks')),
            'SLOW': '',
        }

    def task(self, number: int, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ['bash', str(self.path), *args],
            env=self.environment | self.slurm(number) | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, **options: Any) -> subprocess.Popen[str]:
        """Start task 0 with an app that runs until it is told to stop; return when it is up."""
        process = subprocess.Popen(
            ['bash', str(self.path)],
            env=self.environment | self.slurm(0) | {'SLOW': '1'},
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        assert process.stdout is not None
        while process.stdout.readline() != 'up\n':
            time.sleep(0.01)
        return process

    def slurm(self, number: int) -> dict[str, str]:
        return {
            'SLURM_ARRAY_TASK_ID': str(number),
            'SLURM_ARRAY_JOB_ID': '5',
            'SLURM_JOB_ID': '7',
            'SLURM_CPUS_PER_TASK': '3',
        }

    def labels(self) -> list[str]:
        words = self.seen.read_text().splitlines()
        start = words.index('--participant-label') + 1
        end = next((i for i, word in enumerate(words) if i >= start and word[0] == '-'), None)
        return words[start:end]


@pytest.fixture
def make(tools_main: Tools, tmp_path: Path, bids: Path, fake: Path, spot_bundle: Path) -> Any:
    def made(*options: Any, passed: tuple[Any, ...] = (), out: Path | None = None) -> Script:
        place = () if '--container' in options or '--conda' in options else ('--venv', fake)
        done = tools_main(
            'slurm', bids, out or tmp_path / 'out', *place, *options,
            '--', '--model', spot_bundle, *passed,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return Script(done.stdout, tmp_path, fake)

    return made
