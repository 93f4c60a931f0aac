"""A whole Slurm cluster on this machine: munged, slurmctld and slurmd, without systemd.

As a program it opens a shell, or runs a command, in which ``sbatch`` and ``squeue`` work::

    python tests/system/slurm_cluster.py bash
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'squeue', 'scancel', 'scontrol', 'sinfo')
START_S = 60
END_S = 15
#: A job that is requeued waits until its credential has run out.
CREDENTIAL_S = 5


def why_not() -> str | None:
    """Return why no cluster can be started here, or None when one can."""
    path = os.pathsep.join([os.environ.get('PATH', ''), '/usr/sbin', '/sbin'])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f'not installed: {", ".join(missing)} (Debian: slurm-wlm, munge)'
    if os.geteuid() != 0:
        return 'slurmd starts jobs as root only'
    return None


@dataclass
class Cluster:
    """Daemons in a folder of their own, on free ports, beside any other Slurm.

    Several nodes are several ``slurmd`` with a name and a port each. No plugin needs cgroups:
    containers often have none to give.

    Attributes
    ----------
    root
        Folder of the daemons: state, logs, sockets; short, as it holds a socket.
    nodes, cpus
        How many nodes, and how many processors each claims to have.
    """

    root: Path
    nodes: int = 3
    cpus: int = 1
    _daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [f'node{index}' for index in range(1, self.nodes + 1)]

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([os.environ.get('PATH', ''), '/usr/sbin', '/sbin'])
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(('SLURM', 'SBAT'))
        }
        return {**kept, 'PATH': path, 'SLURM_CONF': str(self.root / 'slurm.conf')}

    def start(self) -> None:
        """Start the daemons and wait until every node is idle."""
        for name in ('state', 'spool'):
            (self.root / name).mkdir()
        self.root.chmod(0o755)
        key = self.root / 'munge.key'
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        self._write_config()
        self._start(
            'munged', '--foreground', '--force', f'--key-file={key}', '--num-threads=2',
            f'--socket={self._socket}', f'--pid-file={self.root}/munged.pid',
            f'--seed-file={self.root}/munged.seed', f'--log-file={self.root}/munged.log',
        )  # fmt: skip
        self._wait_for(self._socket.exists, 'munged')
        self._start('slurmctld', '-D', '-i')
        for name in self.names:
            self._start('slurmd', '-D', '-N', name)
        self._wait_for(lambda: self._states() == ['idle'] * self.nodes, 'the nodes')

    def stop(self) -> None:
        """End jobs and daemons; the machine is as it was."""
        if self._daemons and all(daemon.poll() is None for daemon in self._daemons):
            # What a job started outlives slurmd, so it has to go first
            self.call('scancel', '--quiet', '--full', '--signal=KILL', '--user=root', check=False)
            self.call('scancel', '--quiet', '--user=root', check=False)
            end = time.monotonic() + END_S
            while self.call('squeue', '-h', check=False).strip() and time.monotonic() < end:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            _wait_or_kill(daemon)
        self._daemons.clear()

    def call(self, *words: str, check: bool = True, cwd: Path | None = None) -> str:
        """Run a Slurm command and return what it printed."""
        done = subprocess.run(
            words, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise RuntimeError(f'{" ".join(words)}: {done.stderr}\n{self.logs()}')
        return done.stdout

    def logs(self) -> str:
        """Return the end of each daemon's log."""
        parts = []
        for path in sorted(self.root.glob('*.log')):
            lines = path.read_text('utf-8', errors='replace').splitlines()[-25:]
            parts.append('\n'.join([f'== {path.name}', *lines]))
        return '\n'.join(parts)

    @property
    def _socket(self) -> Path:
        return self.root / 'munge.socket'

    def _states(self) -> list[str]:
        return self.call('sinfo', '-h', '-N', '-o', '%T', check=False).split()

    def _start(self, program: str, *words: str) -> None:
        with (self.root / f'{program}.out.log').open('ab') as log:
            self._daemons.append(
                subprocess.Popen(
                    [program, *words], env=self.environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    def _wait_for(self, ready: object, what: str) -> None:
        end = time.monotonic() + START_S
        while not ready():  # type: ignore[operator]
            dead = [daemon.args[0] for daemon in self._daemons if daemon.poll() is not None]  # type: ignore[index]
            if dead or time.monotonic() > end:
                raise RuntimeError(f'{what} did not come up {dead}\n{self.logs()}')
            time.sleep(0.2)

    def _write_config(self) -> None:
        host = socket.gethostname()
        ports = _free_ports(self.nodes + 1)
        lines = [
            'ClusterName=test',
            f'SlurmctldHost={host}(127.0.0.1)',
            f'SlurmctldPort={ports[0]}',
            'SlurmUser=root',
            'AuthType=auth/munge',
            f'AuthInfo=socket={self._socket},cred_expire={CREDENTIAL_S}',
            'CredType=cred/munge',
            f'StateSaveLocation={self.root}/state',
            f'SlurmdSpoolDir={self.root}/spool/%n',
            f'SlurmctldPidFile={self.root}/slurmctld.pid',
            f'SlurmdPidFile={self.root}/slurmd-%n.pid',
            f'SlurmctldLogFile={self.root}/slurmctld.log',
            f'SlurmdLogFile={self.root}/slurmd-%n.log',
            'ProctrackType=proctrack/linuxproc',
            'TaskPlugin=task/none',
            'JobAcctGatherType=jobacct_gather/none',
            'AccountingStorageType=accounting_storage/none',
            'MpiDefault=none',
            'SwitchType=switch/none',
            'MailProg=/bin/true',
            'SelectType=select/cons_tres',
            'SelectTypeParameters=CR_CPU',
            'SchedulerType=sched/backfill',
            'SchedulerParameters=sched_min_interval=200000,batch_sched_delay=0,bf_interval=2,sched_interval=2',
            'SlurmdParameters=config_overrides',
            'ReturnToService=2',
            'GresTypes=gpu',
            'KillWait=5',
            'CompleteWait=0',
            'MinJobAge=3600',
            *(
                f'NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} '
                f'CPUs={self.cpus} RealMemory=64000 Gres=gpu:1'
                for name, port in zip(self.names, ports[1:], strict=True)
            ),
            'PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP',
        ]
        # Slurm hands out what it is told of: any device will do for a card
        (self.root / 'gres.conf').write_text('Name=gpu File=/dev/null\n', 'utf-8')
        (self.root / 'slurm.conf').write_text('\n'.join(lines) + '\n', 'utf-8')


def _wait_or_kill(daemon: subprocess.Popen[bytes]) -> None:
    try:
        daemon.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(('127.0.0.1', 0))
        return [item.getsockname()[1] for item in sockets]


@contextlib.contextmanager
def running_cluster(nodes: int = 3, cpus: int = 1) -> Iterator[Cluster]:
    """Start a cluster, and take everything down at the end, come what may."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix='slurm-')), nodes, cpus)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.root, ignore_errors=True)


def main() -> int:
    reason = why_not()
    if reason is not None:
        sys.stderr.write(f'no cluster here: {reason}\n')
        return 69
    with running_cluster() as cluster:
        return subprocess.run(
            sys.argv[1:] or ['bash'], env=cluster.environment, check=False
        ).returncode


if __name__ == '__main__':
    sys.exit(main())
