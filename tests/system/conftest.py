"""The installed command, datasets for it, and looks at what it leaves behind."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

DESCRIPTION = {'Name': 'test', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
TIMEOUT_S = 400


@dataclass
class App:
    """Runs ``shivacmb`` and ``shivacmb-tools`` as a user would, with folders of its own."""

    root: Path
    bundle: Path
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: int = TIMEOUT_S
    # Short, because a socket in it may have a path of 107 bytes only
    tmp: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix='smb-')))

    def __post_init__(self) -> None:
        for name in ('home', 'models', 'cache'):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def environment(self, **changes: str) -> dict[str, str]:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key not in {'FSLDIR', 'PYTEST_ADDOPTS'}
        }
        return {
            **inherited,
            'HOME': str(self.root / 'home'),
            'SHIVACMB_MODELS': str(self.root / 'models'),
            'XDG_CACHE_HOME': str(self.root / 'cache'),
            'TMPDIR': str(self.tmp),
            'TF_CPP_MIN_LOG_LEVEL': '3',
            **self.env,
            **changes,
        }

    def command(self, *args: Any, program: str = 'shivacmb') -> list[str]:
        return [str(Path(sys.executable).with_name(program)), *map(str, args)]

    def run(
        self, *args: Any, program: str = 'shivacmb', cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args, program=program),
            env=self.environment(**env),
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            timeout=self.timeout_s,
            check=False,
        )

    @property
    def quick(self) -> tuple[str, ...]:
        """The model of the tests, and no network that looks at a brain of the tests.

        It takes longer than all the rest of a small scan.
        """
        return ('--model', str(self.bundle), '--mask', 'background', '--no-zones')

    def participant(
        self, bids: Path, out: Path, *args: Any, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the participant level, quickly."""
        return self.run(bids, out, 'participant', *self.quick, *args, **env)

    def default(
        self, bids: Path, out: Path, *args: Any, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the participant level with the model of the tests and nothing else changed."""
        return self.run(bids, out, 'participant', '--model', self.bundle, *args, **env)

    @property
    def temporary(self) -> list[str]:
        """What lies in the folder for temporary files."""
        return sorted(path.name for path in self.tmp.iterdir())


@dataclass
class Running:
    """A command under way, whose processes can be found again."""

    process: subprocess.Popen[str]
    token: str

    def others(self) -> list[int]:
        """Return processes of this command, also those whose parent is gone."""
        found = []
        wanted = f'SHIVACMB_TEST_TOKEN={self.token}'.encode()
        for path in Path('/proc').iterdir():
            if path.name.isdigit():
                try:
                    environment = (path / 'environ').read_bytes().split(b'\0')
                    state = (path / 'stat').read_text().rpartition(')')[2].split()[0]
                except OSError:
                    continue
                if wanted in environment and state != 'Z':
                    found.append(int(path.name))
        return found

    def wait_gone(self, seconds: float) -> list[int]:
        """Wait until no process is left; return those that stay."""
        deadline = time.monotonic() + seconds
        while (left := self.others()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


@dataclass
class Tools:
    """Small helpers, so that test modules need no imports from each other."""

    head: Any
    app_type: type[App] = App

    def dataset(self, root: Path, *, description: bool = True) -> Path:
        """Make an empty BIDS dataset."""
        root.mkdir(parents=True)
        if description:
            (root / 'dataset_description.json').write_text(json.dumps(DESCRIPTION))
        return root

    def place(
        self, root: Path, name: str, image: nib.Nifti1Image | None = None, **sidecar: Any
    ) -> Path:
        """Write an image under its BIDS name, and a sidecar where there is something to say."""
        words = dict(word.split('-', 1) for word in name.split('_')[:-1])
        folder = root / f'sub-{words["sub"]}'
        if 'ses' in words:
            folder /= f'ses-{words["ses"]}'
        folder /= 'anat'
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / (name if name.endswith('.nii') else f'{name}.nii.gz')
        (image if image is not None else self.head()).to_filename(path)
        if sidecar:
            stem = path.name.removesuffix('.gz').removesuffix('.nii')
            (folder / f'{stem}.json').write_text(json.dumps(sidecar))
        return path

    def start(self, app: App, *args: Any, program: str = 'shivacmb', **env: str) -> Running:
        """Start a command without waiting for it."""
        token = uuid.uuid4().hex
        process = subprocess.Popen(
            app.command(*args, program=program),
            env=app.environment(SHIVACMB_TEST_TOKEN=token, **env),
            cwd=app.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return Running(process, token)

    def rows(self, path: Path) -> list[dict[str, str]]:
        """Read a table."""
        with path.open(encoding='utf-8', newline='') as stream:
            return list(csv.DictReader(stream, delimiter='\t'))

    def scan_rows(self, out: Path) -> dict[str, dict[str, str]]:
        """Rows of all scan tables, by participant and session, as ``sub-x[_ses-y]``; one each."""
        rows: dict[str, dict[str, str]] = {}
        for path in sorted(out.glob('sub-*/**/*_scans.tsv')):
            for row in self.rows(path):
                stem = Path(row['filename']).name.split('_desc-')[0]
                assert stem not in rows
                rows[stem] = row
        return rows

    def results(self, out: Path) -> dict[str, str]:
        """Checksums of everything but what tells of runs: log folders and methods texts."""
        return {
            # a lock is a link to nowhere
            str(path.relative_to(out)): str(path.readlink())
            if path.is_symlink()
            else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.rglob('*'))
            if (path.is_symlink() or path.is_file())
            and not path.parent.name.startswith('run-')
            and not path.name.startswith('CITATION-')
        }

    def check_whole(self, out: Path) -> None:
        """Assert that nothing in OUT is half-written: no temporary name, every file readable."""
        for path in out.rglob('*'):
            assert not path.name.startswith(('.tmp', '.staging')), path
            if path.name.endswith('.nii.gz'):
                gzip.decompress(path.read_bytes())
                nib.load(path).get_fdata()
            elif path.suffix == '.json':
                json.loads(path.read_text('utf-8'))

    def sentence(self, text: str) -> str:
        """Return the one line that a command ended with; assert that it is no traceback."""
        assert 'Traceback' not in text, text
        lines = [line for line in text.strip().splitlines() if line.startswith('shivacmb: ')]
        assert len(lines) == 1, text
        return lines[0]


@pytest.fixture(scope='session')
def tools(make_head: Any) -> Tools:
    return Tools(make_head)


@pytest.fixture(scope='module')
def app(tmp_path_factory: pytest.TempPathFactory, spot_bundle: Path) -> Iterator[App]:
    made = App(tmp_path_factory.mktemp('app'), spot_bundle)
    yield made
    shutil.rmtree(made.tmp)


@pytest.fixture
def own_app(tmp_path: Path, spot_bundle: Path) -> Iterator[App]:
    """Return a command whose temporary folder belongs to one test."""
    made = App(tmp_path / 'app', spot_bundle)
    yield made
    shutil.rmtree(made.tmp)


@pytest.fixture
def ended() -> Iterator[list[Running]]:
    """Kill what a failing test leaves running."""
    started: list[Running] = []
    yield started
    for running in started:
        for pid in running.others():
            os.kill(pid, signal.SIGKILL)
        running.process.wait()
