"""Measure a step of training of the shipped detector on processors, by arithmetic and library.

Run with ``python bench/train.py``. Writes ``bench/train.md``. Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from report import write_table

SIZE, BATCH = 32, 16


def steps(precision: str, count: int) -> None:
    """Print the seconds of each step."""
    from shivacmb.train.loop import Recipe, shipped_network

    recipe = Recipe(count, size=SIZE, seed=1, precision=precision)
    network = shipped_network(recipe)
    model = network.build(precision)
    model.compile(optimizer=network.optimizer(), loss=network.loss)
    images = np.random.default_rng(0).random((BATCH, SIZE, SIZE, SIZE, 1), dtype=np.float32)
    lesions = images[..., 0] > 0.99
    targets = np.stack([lesions, np.ones_like(lesions)], axis=-1).astype(np.float32)
    for _ in range(count):
        start = time.perf_counter()
        model.train_on_batch(images, targets)
        print(time.perf_counter() - start, flush=True)


def measure(precision: str, onednn: str, count: int) -> str:
    """Return the median of the steps after the first two, which build the graph."""
    done = subprocess.run(
        [sys.executable, __file__, '--child', precision, '--steps', str(count)],
        env={**os.environ, 'TF_ENABLE_ONEDNN_OPTS': onednn, 'TF_CPP_MIN_LOG_LEVEL': '3',
             'KERAS_BACKEND': 'tensorflow', 'CUDA_VISIBLE_DEVICES': ''},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return f'{statistics.median(float(line) for line in done.stdout.split()[2:]):.2f} s'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--child', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        steps(arguments.child, arguments.steps)
        return 0
    if arguments.steps < 3:
        parser.error('--steps: the first two are not counted, give 3 or more')
    from shivacmb.train.processor import has_bfloat16, processor_name

    how = (
        f'{BATCH} patches of {SIZE} voxels; {os.cpu_count()} processors ({processor_name()}, '
        f'{"with" if has_bfloat16() else "without"} instructions for bfloat16), TensorFlow; '
        f'medians of {arguments.steps - 2} steps. Made by `python bench/train.py --steps '
        f'{arguments.steps}`.'
    )
    rows = [
        (f'{precision}, oneDNN {word}', measure(precision, onednn, arguments.steps))
        for precision in ('float32', 'mixed_bfloat16')
        for onednn, word in (('0', 'off'), ('1', 'on'))
    ]
    write_table(
        Path(__file__).with_suffix('.md'), 'A step of training of the shipped detector', how, rows
    )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
