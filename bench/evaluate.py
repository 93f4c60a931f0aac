"""Measure ``shivacmb-tools evaluate``: a hundred scans under every rule, and the sweep.

Run with ``python bench/evaluate.py``. Writes ``bench/evaluate.md``. Scans have the size of the
SHIVA grid and twenty lesions each; predictions hit some, miss some, and add some.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (160, 216, 176)
SCANS, LESIONS, SWEPT = 100, 20, 10
COMMAND = Path(sys.executable).with_name('shivacmb-tools')


def ball(volume: np.ndarray, centre: np.ndarray, radius: float, value: float) -> None:
    """Fill a ball of voxels."""
    low = np.floor(centre - radius).astype(int)
    axes = np.ogrid[tuple(slice(a, a + int(2 * radius) + 3) for a in low)]
    inside = sum((axis - at) ** 2 for axis, at in zip(axes, centre, strict=True)) <= radius**2
    box = tuple(slice(a, a + size) for a, size in zip(low, inside.shape, strict=True))
    volume[box][inside] = value


def make_scans(folder: Path) -> None:
    """Write truth and predictions as BIDS derivatives; a few with probability maps."""
    rng = np.random.default_rng(20261121)
    for number in range(SCANS):
        truth, pred = np.zeros(SHAPE, np.int16), np.zeros(SHAPE, np.int16)
        prob = rng.random(SHAPE, np.float32) * 0.2
        for lesion in range(1, LESIONS + 1):
            centre = rng.uniform(8, np.array(SHAPE) - 8)
            radius = float(np.clip(rng.lognormal(0.297, 0.36), 0.7, 5))
            ball(truth, centre, radius, lesion)
            kind = rng.random()
            if kind < 0.2:
                continue
            shift = rng.normal(0, 0.7, 3) if kind < 0.8 else rng.uniform(-8, 8, 3)
            there = np.clip(centre + shift, 8, np.array(SHAPE) - 8)
            ball(pred, there, radius, lesion)
            ball(prob, there, radius, float(rng.uniform(0.3, 1)))
        name = f'sub-{number:03d}'
        for side, values in (('truth', truth), ('pred', pred)):
            path = folder / side / name / 'anat' / f'{name}_desc-CMB_dseg.nii.gz'
            path.parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(values, np.eye(4)), path)
        if number < SWEPT:
            path = folder / 'pred' / name / 'anat' / f'{name}_label-CMB_probseg.nii.gz'
            nib.save(nib.Nifti1Image(prob.astype(np.float32), np.eye(4)), path)


def measure(*args: str) -> tuple[float, float, float]:
    """Wall seconds, processor seconds of all processes, largest process in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([str(COMMAND), 'evaluate', *args], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, used, after.ru_maxrss / 1e3


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).with_suffix('.md')
    parser.add_argument('-o', '--output', type=Path, default=default)
    parser.add_argument('--data', type=Path, help='make the scans here, or use those that are')
    args = parser.parse_args()
    work = args.data or Path(tempfile.mkdtemp(prefix='shivacmb-bench-'))
    swept = [f'{number:03d}' for number in range(SWEPT)]
    try:
        if not (work / 'truth').is_dir():
            make_scans(work)
        sides = (str(work / 'pred'), str(work / 'truth'), '-o', str(work / 'out'))
        plain = (*sides, '--pdf', 'none', '--nprocs', '2')
        rows = [
            (f'{SCANS} scans, all rules, tables, page and plots', measure(*plain)),
            (f'{SCANS} scans, one process', measure(*plain[:-1], '1')),
            (
                f'{SWEPT} of them with the sweep (24 thresholds x 10 sizes, FROC)',
                measure(*plain, '--sweep', '--participant-label', *swept),
            ),
        ]
    finally:
        shutil.rmtree(work / 'out', ignore_errors=True)
        if args.data is None:
            shutil.rmtree(work)
    lines = [
        '# Speed of the evaluation', '',
        f'Label maps of {"x".join(map(str, SHAPE))} voxels with {LESIONS} lesions each, 2000 '
        f'draws for intervals, {len(os.sched_getaffinity(0))} processors, Python '
        f'{platform.python_version()}. Made by `python bench/evaluate.py`.', '',
        '| what | wall time | processor time | largest process so far |', '|---|---|---|---|',
        *[f'| {what} | {wall:.1f} s | {used:.1f} s | {memory:.0f} MB |'
          for what, (wall, used, memory) in rows], '',
    ]  # fmt: skip
    args.output.write_text('\n'.join(lines), encoding='utf-8')
    sys.stdout.write(args.output.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
