"""Measure a GPU: scans per hour, how long it is idle, and bf16 against fp32.

    python bench/gpu.py [--device gpu] [--scans 6] [--source OUT] [-o bench/gpu.md]
    python bench/gpu.py --device cpu --scans 0        # bf16 against fp32 of OpenVINO, no pipeline

The pipeline runs the installed command over heads of 331x450x168 voxels with three folds of 12.3
million parameters and random weights (as bench/run.py does); nvidia-smi says ten times a second
how busy the card is. Arithmetic is compared on the network's own input, as a run of the shipped
model over the demo (or the run SOURCE) stored it: probabilities of all voxels, and lesions.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from report import write_table
from run import COMMAND, make_bundle, make_dataset

from shivacmb.lesions import find_clusters
from shivacmb.models import Bundle, find_bundle, load_ensemble

ROOT = Path(__file__).resolve().parents[1]
Row = tuple[str, str]
Predict = Callable[[np.ndarray], np.ndarray]


def busy_share(command: list[str]) -> tuple[float, float | None]:
    """Run a command; return its seconds and the share of them in which the GPU computed."""
    query = ['nvidia-smi', '--query-gpu=utilization.gpu', '--format=csv,noheader,nounits']
    watch = None
    if shutil.which('nvidia-smi'):
        watch = subprocess.Popen([*query, '-lms', '100'], stdout=subprocess.PIPE, text=True)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    if watch is None:
        return seconds, None
    watch.terminate()
    said = [line for line in watch.communicate()[0].split() if line.isdigit()]
    return seconds, float(np.mean([int(line) > 0 for line in said])) if said else None


def pipeline(work: Path, device: str, scans: int) -> list[Row]:
    """Scans per hour of the installed command, and idle time of the card."""
    make_bundle(work / 'bundle')
    make_dataset(work / 'scans', scans)
    seconds, shares = {}, {}
    for count in (1, scans):
        labels = [f'{number:02d}' for number in range(1, count + 1)]
        seconds[count], shares[count] = busy_share(
            [str(COMMAND), str(work / 'scans'), str(work / f'out-{count}'), 'participant',
             '--quiet', '--device', device, '--model', str(work / 'bundle'),
             '--participant-label', *labels]
        )  # fmt: skip
    each = (seconds[scans] - seconds[1]) / (scans - 1)
    rows = [
        ('one scan from a cold start', f'{seconds[1]:.1f} s'),
        (f'each further scan, {scans} scans in one task', f'{each:.1f} s'),
        ('scans per hour, cold start left out', f'{3600 / each:.0f}'),
    ]
    share = shares[scans]
    idle = 'not measured: no nvidia-smi' if share is None else f'{100 * (1 - share):.0f} %'
    return [*rows, ('share of the time in which the GPU was idle', idle)]


def tensorflow_predictor(bundle: Bundle, policy: str) -> Predict:
    """Run the folds with TensorFlow on the GPU in another arithmetic."""
    import keras
    import tensorflow

    from shivacmb.models.engine_tensorflow import visible_gpus

    visible_gpus(tensorflow)
    networks = []
    for fold in bundle.folds:
        source = keras.models.load_model(bundle.fold_path(fold), compile=False)
        network = keras.models.clone_model(
            source, clone_function=lambda layer: _with_policy(layer, policy)
        )
        network.set_weights(source.get_weights())
        networks.append(network)
    return lambda image: np.mean(
        [np.asarray(item.predict_on_batch(image), np.float32) for item in networks], axis=0
    )


def _with_policy(layer: Any, policy: str) -> Any:
    config = layer.get_config()
    if 'dtype' in config and type(layer).__name__ != 'InputLayer':
        config['dtype'] = policy
    return type(layer).from_config(config)


def predictor(bundle: Bundle, device: str, precision: str) -> Predict:
    """Return the mean over the folds as a function of the network's input."""
    if device == 'gpu':
        policy = {'f32': 'float32', 'bf16': 'mixed_bfloat16'}[precision]
        return tensorflow_predictor(bundle, policy)
    ensemble = load_ensemble(bundle, 'openvino', 'cpu', precision=precision)
    return lambda image: bundle.target_map(ensemble.predict(image)).mean(axis=0)[..., None]


def precision(device: str, source: Path) -> list[Row]:
    """Compare bf16 with fp32 on every scan of a finished run of the shipped model."""
    bundle = find_bundle('default')
    inputs = sorted(source.rglob('*_res-net_desc-preproc_*.nii.gz'))
    results, seconds = {}, {}
    for kind in ('f32', 'bf16'):
        predict = predictor(bundle, device, kind)
        results[kind], spent = [], []
        for path in inputs:
            image = np.asarray(nib.load(path).dataobj, np.float32)[None, ..., None]
            start = time.perf_counter()
            results[kind].append(predict(image)[0, ..., 0])
            spent.append(time.perf_counter() - start)
        seconds[kind] = float(np.median(spent))
    rows = []
    how = bundle.postprocess
    for path, one, other in zip(inputs, *results.values(), strict=True):
        found = [
            find_clusters(
                item, threshold=how.threshold, min_voxels=how.min_voxels,
                connectivity=how.connectivity,
            )
            for item in (one, other)
        ]  # fmt: skip
        numbers = [int(labels.max()) for labels in found]
        # one and the same lesion overlaps itself and nothing else
        pairs = {(int(a), int(b)) for a, b in zip(found[0].flat, found[1].flat, strict=True) if a}
        same = numbers[0] == numbers[1] == len({b for _, b in pairs if b})
        difference = np.abs(one - other)
        rows.append(
            (
                f'{path.name.split("_res-")[0]}: largest and mean difference of probabilities; '
                'lesions',
                f'{difference.max():.4f}, {difference.mean():.1e}; fp32 {numbers[0]}, bf16 '
                f'{numbers[1]}, {"the same" if same else "NOT the same"}',
            )
        )
    times = ', '.join(f'{kind} {value:.2f} s' for kind, value in seconds.items())
    return [*rows, ('median prediction of one scan, three small folds', times)]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=('gpu', 'cpu'), default='gpu')
    parser.add_argument('--scans', type=int, default=6, help='0 leaves the pipeline out')
    parser.add_argument('--source', type=Path, help='a finished run; else the demo is run')
    parser.add_argument('-o', '--output', type=Path, default=Path(__file__).with_suffix('.md'))
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix='shivacmb-gpu-'))
    try:
        source = args.source
        if source is None:
            source = work / 'demo'
            demo = str(ROOT / 'bids_examples' / 'demo')
            subprocess.run([str(COMMAND), demo, str(source), 'participant', '--quiet'], check=True)
        rows = pipeline(work, args.device, args.scans) if args.scans > 1 else []
        rows += precision(args.device, source)
    finally:
        shutil.rmtree(work)
    gpu = 'no GPU'
    if args.device == 'gpu':
        query = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
        gpu = subprocess.check_output(query, text=True).strip().splitlines()[0]
    title = f'bf16 against fp32{", and scans per hour" if args.scans > 1 else ""}: {args.device}'
    command = f'python bench/gpu.py {" ".join(sys.argv[1:])}'.replace(str(source), 'OUT')
    how = (
        f'{gpu}; {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}. '
        f'Made by `{command}`.'
    )
    write_table(args.output, title, how, rows)


if __name__ == '__main__':
    main()
