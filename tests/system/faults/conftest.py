"""A shim below the command that injects faults, and a quick way to run the command under it."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
#: SHIVACMB_FAULTS=full injects every fault there is; without it, a sample of each kind.
FULL = os.environ.get('SHIVACMB_FAULTS') == 'full'
KINDS = {
    'open-write': 1, 'write': 2, 'mkdir': 4, 'rename': 8, 'fsync': 16,
    'open-read': 32, 'read': 64, 'listdir': 128, 'stat': 256,
}  # fmt: skip
WRITES = ('open-write', 'write', 'mkdir', 'rename', 'fsync')
READS = ('open-read', 'read', 'listdir', 'stat')
ACTIONS = {'fail': 0, 'stall': 1, 'kill': 2, 'swap': 3}
#: Seconds that no run of a small scan takes, however busy the machine is.
HANGS_S = 240


class _Control(ctypes.Structure):
    _fields_ = (
        ('count', ctypes.c_int64),
        ('hits', ctypes.c_int64),
        ('at', ctypes.c_int64),
        ('times', ctypes.c_int64),
        ('kinds', ctypes.c_int64),
        ('action', ctypes.c_int64),
        ('error', ctypes.c_int64),
        ('milliseconds', ctypes.c_int64),
        ('clock_offset', ctypes.c_int64),
        ('root', ctypes.c_char * 1024),
        ('swap', ctypes.c_char * 1024),
        ('last', ctypes.c_char * 1024),
        ('log', ctypes.c_char * 1024),
    )


class Shim:
    """The library that stands between the command and its files."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which('gcc') or shutil.which('cc')
        if compiler is None or not sys.platform.startswith('linux'):
            pytest.skip('the shim that injects faults needs Linux and a C compiler')
        self.library = folder / 'shim.so'
        subprocess.run(
            [compiler, '-O1', '-shared', '-fPIC', '-o', self.library, HERE / 'shim.c', '-ldl'],
            check=True,
        )
        self._file = folder / 'control'
        self._log = folder / 'calls'
        self._file.write_bytes(bytes(ctypes.sizeof(_Control)))
        with self._file.open('r+b') as stream:
            self._map = mmap.mmap(stream.fileno(), 0)
        self.state = _Control.from_buffer(self._map)

    @property
    def environment(self) -> dict[str, str]:
        return {'LD_PRELOAD': str(self.library), 'SHIVACMB_FAULT_CONTROL': str(self._file)}

    def clear(self) -> None:
        """Inject nothing from now on."""
        ctypes.memset(ctypes.byref(self.state), 0, ctypes.sizeof(_Control))

    def inject(
        self,
        root: Path,
        at: int,
        *,
        kinds: Iterable[str],
        action: str = 'fail',
        error: int = 0,
        times: int = 1,
        milliseconds: int = 0,
        swap: Path | None = None,
    ) -> None:
        """Disturb the ``at``-th call below ``root``; ``times`` 0 means all that follow, too."""
        self.clear()
        state = self.state
        state.root, state.kinds = os.fsencode(root), sum(KINDS[kind] for kind in kinds)
        state.action, state.error, state.times = ACTIONS[action], error, times
        state.milliseconds, state.swap = milliseconds, os.fsencode(swap or '')
        state.at = at

    def watch(self, root: Path, kinds: Iterable[str]) -> None:
        """List calls without disturbing any."""
        self.inject(root, 1 << 60, kinds=kinds)
        self._log.unlink(missing_ok=True)
        self.state.log = os.fsencode(self._log)

    def calls(self, root: Path) -> list[str]:
        """Return the calls since ``watch``, without what differs from run to run in names."""
        text = self._log.read_text(errors='replace') if self._log.exists() else ''
        names = (line.replace(str(root), 'OUT') for line in text.splitlines())
        return [
            re.sub(
                r'run-[0-9TZ]+-[0-9a-f]+|\.tmp-[^/]*?-[0-9a-f]{8}-|'
                r'\.[0-9a-f]{8}@[^/]*',
                '*',
                name,
            )
            for name in names
        ]


class Outcome:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def said(self) -> list[str]:
        """Sentences for the user."""
        return [line for line in self.err.splitlines() if line.startswith('shivacmb: ')]

    def check(self) -> None:
        """Assert that it ended in words, not in a traceback or a hang."""
        assert 'Traceback' not in self.err + self.out, self.err
        assert self.code in (-signal.SIGKILL, 0, 1, 16, 65, 66, 73, 74, 75), (self.code, self.err)
        if self.code > 0:
            assert self.said, self.err


class Nursery:
    """Runs the command in children of one process that has imported everything."""

    def __init__(self, folder: Path, bundle: Path, shim: Shim) -> None:
        self.folder, self.bundle, self.shim = folder, bundle, shim
        self.tmp = Path(tempfile.mkdtemp(prefix='smb-'))
        self._process: subprocess.Popen[str] | None = None
        self.token = uuid.uuid4().hex

    def _start(self) -> subprocess.Popen[str]:
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in {'FSLDIR', 'PYTEST_ADDOPTS'}
        }
        home = self.folder / 'home'
        home.mkdir(parents=True, exist_ok=True)
        environment.update(
            {
                'HOME': str(home),
                'SHIVACMB_MODELS': str(self.folder / 'models'),
                'XDG_CACHE_HOME': str(self.folder / 'cache'),
                'TMPDIR': str(self.tmp),
                **self.shim.environment,
            }
        )
        return subprocess.Popen(
            [sys.executable, HERE / 'nursery.py'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, *args: Any, **env: str) -> Outcome:
        """Run ``shivacmb`` with these arguments and changes of the environment."""
        if self._process is None:
            self._process = self._start()
        process = self._process
        out, err = self.folder / 'stdout', self.folder / 'stderr'
        task = {
            'argv': [str(arg) for arg in args],
            'stdout': str(out),
            'stderr': str(err),
            'env': {'TMPDIR': str(self.tmp), 'SHIVACMB_TEST_TOKEN': self.token, **env},
        }
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + '\n')
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, 'the nursery died'
        return Outcome(int(answer), out.read_text(), err.read_text())

    def participant(self, bids: Path, out: Path, *args: Any, **env: str) -> Outcome:
        """Run the participant level with the model of the tests, in one process."""
        return self.run(
            bids,
            out,
            'participant',
            '--model',
            self.bundle,
            '--nprocs',
            '1',
            '--mask',
            'background',
            '--no-zones',
            *args,
            **env,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self.tmp, ignore_errors=True)


@pytest.fixture(scope='session')
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    return Shim(tmp_path_factory.mktemp('shim'))


@pytest.fixture(autouse=True)
def _nothing_injected(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if 'shim' in request.fixturenames:
        request.getfixturevalue('shim').clear()


@pytest.fixture(scope='session')
def nursery(
    tmp_path_factory: pytest.TempPathFactory, spot_bundle: Path, shim: Shim
) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp('nursery'), spot_bundle, shim)
    yield made
    made.close()


@pytest.fixture(scope='session')
def pair(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of two small scans."""
    root = tools.dataset(tmp_path_factory.mktemp('pair') / 'bids')
    for seed, label in enumerate(('01', '02')):
        tools.place(root, f'sub-{label}_T2starw', tools.head(seed=seed, voxel_mm=(2.0, 2.0, 2.0)))
    return root


@pytest.fixture(scope='session')
def one_done(nursery: Nursery, pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output folder in which sub-02 is finished."""
    out = tmp_path_factory.mktemp('one') / 'out'
    nursery.shim.clear()
    done = nursery.participant(pair, out, '--participant-label', '02')
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope='session')
def undisturbed(
    nursery: Nursery, tools: Any, pair: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the checksums of what a run over both writes."""
    out = tmp_path_factory.mktemp('undisturbed') / 'out'
    nursery.shim.clear()
    done = nursery.participant(pair, out)
    assert done.code == 0, done.err
    return dict(tools.results(out))


def sample(calls: list[str], few: int, seed: int = 0) -> list[int]:
    """Return numbers of calls to disturb, from 1.

    With SHIVACMB_FAULTS=full the first and the last of each kind of call on each file; else
    ``few`` of those, drawn by ``seed``.
    """
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, call in enumerate(calls, start=1):
        first.setdefault(call, number)
        last[call] = number
    numbers = sorted({*first.values(), *last.values()})
    return numbers if FULL else sorted(random.Random(seed).sample(numbers, min(few, len(numbers))))


def check_honest(tools: Any, out: Path, expected: dict[str, str], done: Iterable[str]) -> None:
    """Assert that what OUT calls finished is finished, whoever reads it, and nothing is lost.

    ``done`` names participants that were finished before the fault.
    """
    found = tools.results(out)
    leftover = [name for name in found if Path(name).name.startswith('.tmp')]
    assert not leftover, leftover
    finished = set()
    for record in out.glob('logs/sub-*/sub-*.json'):
        if json.loads(record.read_text())['status'] == 'ok':
            finished.add(record.parent.name)
    assert {f'sub-{label}' for label in done} <= finished
    for participant in finished:
        mine = {
            name: value
            for name, value in expected.items()
            if f'{participant}/' in name and not name.endswith(('_scans.tsv', '_scans.json'))
        }
        assert {name: found.get(name) for name in mine} == mine
    for stem, row in tools.scan_rows(out).items():
        if row['status'] == 'ok':
            assert stem.split('_')[0] in finished, f'{stem}: the table says ok'
    tools.check_whole(out)


@pytest.fixture(scope='session')
def full() -> bool:
    """Return whether every fault is wanted, not a sample."""
    return FULL


@pytest.fixture(scope='session')
def honest() -> Any:
    return check_honest


@pytest.fixture(scope='session')
def chosen() -> Any:
    return sample


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many faults of each kind were injected."""
    rows = [
        (name, value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, 'when', '') == 'call'
        for name, value in report.user_properties
        if name.startswith('faults: ')
    ]
    if rows:
        terminalreporter.section('faults injected')
    for name, value in sorted(rows):
        terminalreporter.write_line(f'{name.removeprefix("faults: ")}: {value}')
