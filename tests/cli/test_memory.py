"""What steps may share where a job or a container is limited."""

from __future__ import annotations

from pathlib import Path

import pytest

from shivacmb.cli.engine import choose_plugin
from shivacmb.cli.memory import memory_for_steps_mb
from shivacmb.cli.settings import Settings

GIB = 2**30


def machine(root: Path, cgroup: str = '', **files: str) -> Path:
    """Lay out /proc and /sys of a machine of 64 GiB."""
    (root / 'proc/self').mkdir(parents=True)
    (root / 'proc/meminfo').write_text('MemTotal:       67108864 kB\nMemFree: 1 kB\n')
    (root / 'proc/self/cgroup').write_text(cgroup)
    for name, text in files.items():
        path = root / 'sys/fs/cgroup' / name.replace('__', '/').replace('-', '.')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def expected(limit: float) -> float:
    return 0.9 * limit / 1e6 - 1500


@pytest.mark.parametrize(
    ('cgroup', 'files', 'environment', 'limit'),
    [
        ('', {}, {}, None),
        ('0::/\n', {'memory-max': 'max\n'}, {}, None),
        ('0::/job/step\n', {'job__step__memory-max': f'{8 * GIB}\n'}, {}, 8 * GIB),
        # the group around it is the narrower one
        (
            '0::/job/step\n',
            {'job__step__memory-max': 'max\n', 'job__memory-max': f'{6 * GIB}\n'},
            {},
            6 * GIB,
        ),
        (
            '5:cpu,cpuacct:/a\n4:memory:/slurm/job\n',
            {'memory__slurm__job__memory-limit_in_bytes': f'{4 * GIB}'},
            {},
            4 * GIB,
        ),
        # version 1 without a limit says a number beyond any memory
        ('4:memory:/a\n', {'memory__a__memory-limit_in_bytes': '9223372036854771712'}, {}, None),
        ('', {}, {'SLURM_MEM_PER_NODE': '8192'}, 8 * GIB),
        ('', {}, {'SLURM_MEM_PER_NODE': '0'}, None),
        ('', {}, {'SLURM_MEM_PER_CPU': '2048', 'SLURM_CPUS_ON_NODE': '3'}, 6 * GIB),
        ('', {}, {'SLURM_MEM_PER_GPU': '4096', 'SLURM_GPUS_ON_NODE': '2'}, 8 * GIB),
        (
            '0::/job\n',
            {'job__memory-max': f'{32 * GIB}'},
            {'SLURM_MEM_PER_NODE': '16384'},
            16 * GIB,
        ),
        ('0::/job\nnonsense\n', {'job__memory-max': 'x'}, {'SLURM_MEM_PER_NODE': '8G'}, None),
    ],
)
def test_the_narrowest_limit_counts(
    tmp_path: Path,
    cgroup: str,
    files: dict[str, str],
    environment: dict[str, str],
    limit: float | None,
) -> None:
    found = memory_for_steps_mb(machine(tmp_path, cgroup, **files), environment)
    assert found == (None if limit is None else pytest.approx(expected(limit)))


def test_tiny_limits_leave_room_for_a_step(tmp_path: Path) -> None:
    assert memory_for_steps_mb(machine(tmp_path), {'SLURM_MEM_PER_NODE': '1000'}) == 500
    assert memory_for_steps_mb(tmp_path / 'nothing', {}) is None


@pytest.mark.parametrize(('asked', 'expected_gb'), [(None, 6.0), (2000.0, 2.0)])
def test_the_pool_keeps_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: float | None, expected_gb: float
) -> None:
    monkeypatch.setattr('shivacmb.cli.engine.memory_for_steps_mb', lambda: 6000.0)
    settings = Settings(tmp_path, tmp_path, 'participant', nprocs=4, mem_mb=asked)
    assert choose_plugin(settings, 5).args['memory_gb'] == expected_gb
    monkeypatch.setattr('shivacmb.cli.engine.memory_for_steps_mb', lambda: None)
    assert ('memory_gb' in choose_plugin(settings, 5).args) == (asked is not None)
