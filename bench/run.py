"""Measure the installed command: time from a cold start, each further scan, memory, input search.

Run with ``make bench``. Writes ``bench/results.md``. Networks are three folds of the paper's size
(12.3 million parameters) with random weights: speed does not depend on what they learned.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from report import write_table

SCAN_SHAPE = (331, 450, 168)
SCAN_ZOOMS = (0.6, 0.55, 0.9)
PARTICIPANTS = 10_000
SAMPLE_SECONDS = 0.05
MOST_SCANS = 6
COMMAND = Path(sys.executable).with_name('shivacmb')


@dataclass(frozen=True)
class Measured:
    """Wall seconds, processor seconds and memory, the highest sum over the process tree in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def cpu_seconds() -> float:
    """Processor time of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_mb(process: psutil.Process) -> float:
    """Memory of a process and its children: proportional set size, so shared pages count once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 1e6


def measure(arguments: list[str], environment: dict[str, str] | None = None) -> Measured:
    """Run a command to its end and watch its memory."""
    start, before = time.perf_counter(), cpu_seconds()
    child = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    process = psutil.Process(child.pid)
    peak = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                peak[0] = max(peak[0], tree_mb(process))
            except psutil.NoSuchProcess:
                return
            done.wait(SAMPLE_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = child.communicate()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if child.returncode != 0:
        raise RuntimeError(f'{arguments} exited with {child.returncode}: {errors.decode()}')
    return Measured(seconds, cpu_seconds() - before, peak[0])


def make_bundle(folder: Path) -> None:
    """Three folds of the paper's network with random weights."""
    script = (
        'import sys, keras\n'
        'from shivacmb.models import build_unet3d, write_bundle\n'
        'folds = []\n'
        'for seed in range(3):\n'
        '    keras.utils.set_random_seed(seed)\n'
        '    folds.append(build_unet3d((160, 216, 176)))\n'
        'write_bundle(sys.argv[1], folds, dict(name="bench", version="1", description="random",\n'
        '    license="none", intended_use="none",\n'
        '    inputs=[{"name": "swi", "contrasts": ["T2starw", "swi"]}],\n'
        '    grid={"shape": [160, 216, 176], "voxel_mm": [1, 1, 1], "orientation": "RAS"},\n'
        '    postprocess={"threshold": 0.99, "min_voxels": 3, "connectivity": 26}))\n'
    )
    subprocess.run([sys.executable, '-c', script, str(folder)], check=True, capture_output=True)


def make_dataset(folder: Path, participants: int) -> None:
    """Ellipsoid heads with a skull of the shape of a clinical scan."""
    rng = np.random.default_rng(20261121)
    lines = [np.linspace(-1.1, 1.1, size) for size in SCAN_SHAPE]
    grid = np.meshgrid(*lines, indexing='ij', sparse=True)
    radius = np.sqrt(sum(axis**2 for axis in grid))
    head = np.where(radius < 0.8, 600, np.where(radius < 0.87, 120, np.where(radius < 1, 500, 10)))
    affine = np.diag([*SCAN_ZOOMS, 1.0])
    affine[:3, 3] = -np.array(SCAN_SHAPE) * SCAN_ZOOMS / 2
    write_description(folder)
    for number in range(1, participants + 1):
        anat = folder / f'sub-{number:02d}' / 'anat'
        anat.mkdir(parents=True)
        noisy = head + rng.normal(0, 15, SCAN_SHAPE)
        image = nib.Nifti1Image(np.abs(noisy).astype(np.int16), affine)
        image.to_filename(anat / f'sub-{number:02d}_T2starw.nii.gz')


def write_description(folder: Path) -> None:
    """Make a dataset's root."""
    folder.mkdir(parents=True)
    content = {'Name': 'bench', 'BIDSVersion': '1.10.0'}
    (folder / 'dataset_description.json').write_text(json.dumps(content))


def make_large_tree(folder: Path) -> None:
    """Ten thousand participants with one empty scan and one sidecar each."""
    write_description(folder)
    for number in range(PARTICIPANTS):
        anat = folder / f'sub-{number:05d}' / 'anat'
        anat.mkdir(parents=True)
        (anat / f'sub-{number:05d}_T2starw.nii.gz').touch()
        (anat / f'sub-{number:05d}_T2starw.json').write_text('{"EchoTime": 0.02}')


def repeat(arguments: list[str], runs: int) -> float:
    """Median seconds of several runs after one that does not count."""
    measure(arguments)
    return statistics.median(measure(arguments).seconds for _ in range(runs))


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--runs', type=int, default=3)
    results = Path(__file__).with_name('results.md')
    parser.add_argument('-o', '--output', type=Path, default=results)
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix='shivacmb-bench-'))
    try:
        rows = run_all(work, args.runs)
    finally:
        shutil.rmtree(work)
    how = (
        f'Scan {"x".join(map(str, SCAN_SHAPE))} voxels, three folds of 12.3 M parameters, '
        f'OpenVINO float32, {len(os.sched_getaffinity(0))} processors, Python '
        f'{platform.python_version()}; medians of {args.runs} runs. Made by `make bench`.'
    )
    write_table(args.output, 'Speed and memory of the installed command', how, rows)


def run_all(work: Path, runs: int) -> list[tuple[str, str]]:
    """Return what was measured and the figure."""
    make_bundle(work / 'bundle')
    make_dataset(work / 'scans', MOST_SCANS)
    make_large_tree(work / 'large')
    rows = [
        ('`shivacmb --help`', f'{repeat([str(COMMAND), "--help"], runs):.2f} s'),
        ('`shivacmb --version`', f'{repeat([str(COMMAND), "--version"], runs):.2f} s'),
    ]
    search = (
        'import sys, time; from pathlib import Path; start = time.perf_counter();'
        'from shivacmb.bids import find_scans;'
        'found = find_scans(Path(sys.argv[1]), participants=["07777"]);'
        'assert len(found.scans) == 1; print(time.perf_counter() - start)'
    )
    seconds = [
        float(subprocess.check_output([sys.executable, '-c', search, str(work / 'large')]))
        for _ in range(runs)
    ]
    rows.append(
        (
            f'finding the scan of one of {PARTICIPANTS} participants, imports included',
            f'{statistics.median(seconds):.2f} s',
        )
    )
    measured: dict[int, list[Measured]] = {1: [], 3: [], MOST_SCANS: []}
    for run in range(runs):
        for count, kept in measured.items():
            if count == MOST_SCANS and run > 0:
                continue  # for its memory alone
            labels = [f'{number:02d}' for number in range(1, count + 1)]
            out = work / f'out-{count}-{run}'
            kept.append(
                measure(
                    [str(COMMAND), str(work / 'scans'), str(out), 'participant', '--quiet',
                     '--model', str(work / 'bundle'), '--participant-label', *labels]
                )
            )  # fmt: skip
            shutil.rmtree(out)
    for name, key in (('', 'seconds'), (', processor time', 'cpu_seconds')):
        cold = statistics.median(getattr(item, key) for item in measured[1])
        further = (statistics.median(getattr(item, key) for item in measured[3]) - cold) / 2
        rows += [
            (f'one scan from a cold start{name}', f'{cold:.1f} s'),
            (f'each further scan{name}', f'{further:.1f} s'),
        ]
    for count, kept in measured.items():
        peak = max(item.peak_mb for item in kept)
        rows.append((f'peak memory of all processes, scans: {count}', f'{peak:.0f} MB'))
    return rows


if __name__ == '__main__':
    main()
