"""Measure the simulator: one whole head at 1 mm with all contrasts, from a cold start.

Run with ``python bench/simulate.py``. Writes ``bench/simulate.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shivacmb.train.processor import processor_name

COMMAND = (str(Path(sys.executable).with_name('shivacmb-tools')),)
# as if the C library had no such setting, see shivacmb.simulate.allocation
GIVES_BACK = (
    sys.executable, '-c',
    'import sys, shivacmb.simulate.allocation as a; a.keep_freed_memory = bool; '
    'from shivacmb.cli.tools import main; sys.exit(main())',
)  # fmt: skip
WHOLE_HEAD = '1 x 1 x 1 mm, whole head with face and neck'
PROTOCOLS = {
    WHOLE_HEAD: ('--voxel-size', '1', '1', '1', '--whole-head'),
    '0.5 x 0.5 x 1 mm': ('--voxel-size', '0.5', '0.5', '1'),
    '0.9 x 0.9 x 5 mm': ('--voxel-size', '0.9', '0.9', '5'),
}
COMMON = ('--lesions', '20', '--mimics', '1', '--field', '3', '--echo-time', '20', '--orientation',
          'axial', '--clean', '--snr', '30')  # fmt: skip


def run(
    folder: Path, options: tuple[str, ...], command: tuple[str, ...]
) -> tuple[float, float, float]:
    """Return wall seconds, processor seconds and peak memory in MB of one subject."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [*command, 'simulate', str(folder), '--subjects', '1', *COMMON, *options],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f'simulate ended with status {status}')
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--output', type=Path, default=Path(__file__).with_suffix('.md'))
    arguments = parser.parse_args()
    lines = [
        '# Speed and memory of the simulator',
        '',
        'All contrasts (magnitude, phase, SWI, susceptibility, T2w), truth and files; 20 lesions, '
        f'usual mimics; {os.cpu_count()} processors ({processor_name()}), Python '
        f'{platform.python_version()}; medians of {arguments.repeats} runs, in turns. Made by '
        '`python bench/simulate.py`.',
        '',
        '| subject | from a cold start | processor time | peak memory |',
        '|---|---|---|---|',
    ]
    rows = [(name, options, COMMAND) for name, options in PROTOCOLS.items()]
    rows.append(
        ('the first, freed memory given back to the kernel', PROTOCOLS[WHOLE_HEAD], GIVES_BACK)
    )
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name, *_ in rows}
    for _ in range(arguments.repeats):
        for name, options, command in rows:
            with tempfile.TemporaryDirectory() as folder:
                measured[name].append(run(Path(folder) / 'out', options, command))
    for name, runs in measured.items():
        wall, spent, memory = (statistics.median(values) for values in zip(*runs, strict=True))
        lines.append(f'| {name} | {wall:.1f} s | {spent:.1f} s | {memory:.0f} MB |')
        print(lines[-1], flush=True)
    arguments.output.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
