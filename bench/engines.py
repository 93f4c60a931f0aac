"""Time and memory of the engines on three folds of the 12.3 M-parameter network.

    python bench/engines.py [--shape 160 216 176] [--scans 4] [--only openvino] > bench/engines.md

Writes a bundle of random weights into a temporary folder (needs TensorFlow), then runs each engine
in a process of its own with two threads. CPU time is given beside wall time, because it depends
less on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIANTS = {
    'openvino, f32': ('openvino', 'f32'),
    'openvino, bf16': ('openvino', 'bf16'),
    'tensorflow, CPU': ('tensorflow', 'f32'),
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def write(folder: str, shape: list[int]) -> None:
    import keras
    import numpy as np

    from shivacmb.models import build_unet3d, preset, write_bundle

    networks = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        network = build_unet3d(shape)
        rng = np.random.default_rng(seed)
        network.set_weights([w + rng.normal(0, 0.02, w.shape) for w in network.get_weights()])
        networks.append(network)
    recipe = preset('shiva-paper')
    recipe['grid']['shape'] = shape
    inputs = [{'name': 'swi', 'contrasts': ['T2starw', 'swi']}]
    write_bundle(folder, networks, {'name': 'bench', 'inputs': inputs, **recipe})


def measure(folder: str, engine: str, precision: str, scans: int) -> None:
    begin = time.perf_counter(), cpu_seconds()
    rows = []

    def mark() -> None:
        nonlocal begin
        now = time.perf_counter(), cpu_seconds()
        rows.append((now[0] - begin[0], now[1] - begin[1], peak_gb()))
        begin = now

    import numpy as np

    from shivacmb.models import load_bundle, load_ensemble

    bundle = load_bundle(folder)
    ensemble = load_ensemble(bundle, engine, 'cpu', 2, precision=precision)
    mark()
    scan = np.random.default_rng(0).random((1, *bundle.grid.shape, 1), dtype=np.float32)
    begin = time.perf_counter(), cpu_seconds()
    for _ in range(scans):
        result = ensemble.predict(scan)
        mark()
    np.save(Path(folder).parent / f'{engine}-{precision}.npy', result)
    print(json.dumps(rows))


def table(folder: str, scans: int, only: str | None) -> None:
    import numpy as np

    cpu_name = next(
        (
            line.partition(':')[2].strip()
            for line in Path('/proc/cpuinfo').read_text().splitlines()
            if line.startswith('model name')
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    print('# Engines\n')
    print(f'`bench/engines.py` on {os.cpu_count()} cores ({cpu_name}), load before {load:.1f}.')
    print('Three folds of 12.3 M parameters, one scan at a time: wall seconds (CPU seconds).')
    print('Load includes imports and checksums. The last column is against the first row.\n')
    heads = ['engine', 'load', 'first scan', 'each further']
    heads += ['peak, 1 scan', f'peak, {scans} scans']
    print(f'| {" | ".join(heads)} | max difference |\n|{"---|" * 7}')
    reference = None
    for name, (engine, precision) in VARIANTS.items():
        if only is not None and only != engine:
            continue
        command = [sys.executable, __file__, '--measure', folder, engine, precision, str(scans)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        loaded, first, *rest = json.loads(done.stdout.splitlines()[-1])
        wall, cpu = (sorted(row[i] for row in rest)[len(rest) // 2] for i in range(2))
        result = np.load(Path(folder).parent / f'{engine}-{precision}.npy')
        reference = result if reference is None else reference
        cells = [f'{row[0]:.1f} ({row[1]:.1f}) s' for row in (loaded, first, (wall, cpu))]
        cells += [f'{row[2]:.2f} GB' for row in (first, rest[-1])]
        print(
            f'| {" | ".join([name, *cells])} | {np.abs(result - reference).max():.1e} |',
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--shape', type=int, nargs=3, default=[160, 216, 176])
    parser.add_argument('--scans', type=int, default=4)
    parser.add_argument('--only', choices=['openvino', 'tensorflow'])
    parser.add_argument('--measure', nargs=4, help=argparse.SUPPRESS)
    parser.add_argument('--write', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        folder, engine, precision, scans = args.measure
        measure(folder, engine, precision, int(scans))
    elif args.write:
        write(args.write, args.shape)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = str(Path(scratch) / 'bench')
            shape = [str(size) for size in args.shape]
            command = [sys.executable, __file__, '--write', folder, '--shape', *shape]
            subprocess.run(command, check=True, stdout=sys.stderr)
            table(folder, args.scans, args.only)


if __name__ == '__main__':
    main()
