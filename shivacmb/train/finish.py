"""The last part of a training: operating point, card, bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shivacmb import __version__
from shivacmb.bids import write_text
from shivacmb.exceptions import ModelError, ShivaCMBError
from shivacmb.models import load_bundle, write_bundle
from shivacmb.models.networks import has_tensorflow
from shivacmb.train.backend import computes_bfloat16
from shivacmb.train.card_text import card_text
from shivacmb.train.compact import save_compact
from shivacmb.train.curves import Rows, join_curves, plot_curves, read_curve
from shivacmb.train.dataset import JUDGED
from shivacmb.train.folds import folds_sha256, read_folds
from shivacmb.train.loop import PausedError
from shivacmb.train.operating import choose_point, points_table, pooled, score_fold
from shivacmb.train.run import FOLDS, POOL, Task, Trained, used_precision
from shivacmb.train.runs import read_rates, read_runs
from shivacmb.train.unseen import FOLDS_SUM, start_caution

if TYPE_CHECKING:
    from shivacmb.models import Bundle
    from shivacmb.train.select import Score


def judge(
    task: Task, trained: Trained, *, stop: Callable[[], bool], tell: Callable[[str], None]
) -> tuple[Score, dict[str, Any]]:
    """Choose the operating point on scans that each network did not see.

    Parameters
    ----------
    task : Task
        The training.
    trained : Trained
        Its folds.
    stop, tell : callable
        As for :func:`shivacmb.train.run.train_folds`.

    Returns
    -------
    score : Score
        The chosen point, pooled over all scans.
    metrics : dict
        Numbers for the card.

    Raises
    ------
    PausedError
        ``stop`` said so.
    """
    import keras

    names = [item.name for item in task.plan.classes]
    number = names.index(JUDGED) + 1
    keras.config.set_dtype_policy('float32')
    model = task.plan.build(task.plan.grid.shape)
    entries, by_fold = [], []
    for fold, weights in enumerate(trained.weights):
        model.set_weights(weights)
        tell(f'fold {fold}: predicting {len(trained.names[fold])} scans it has not seen')
        found = score_fold(
            lambda image: np.asarray(model.predict_on_batch(image[None]))[0],
            weights, task.work / POOL, trained.names[fold], number,
            task.work / f'fold-{fold}' / 'unseen', stop,
        )  # fmt: skip
        if found is None:
            raise PausedError(
                f'stopped while predicting unseen scans in <{task.work}>; run the same command '
                'again to go on'
            )
        entries += found
        by_fold.append(found)
    scores = pooled(entries)
    chosen = choose_point(scores)
    write_text(task.work / 'operating_points.tsv', points_table(scores))
    same = [
        next(s for s in pooled(found)
             if (s.threshold, s.min_voxels) == (chosen.threshold, chosen.min_voxels))
        for found in by_fold
    ]  # fmt: skip
    outside = sum(own['outside'][names[number - 1]] for own in trained.facts.values())
    overlap = np.array([entry['dice'] for entry in entries]).sum(axis=0)
    return chosen, {
        'class': names[number - 1],
        'unseen': _numbers(chosen),
        'unseen_by_fold': [_numbers(score) for score in same],
        'soft_dice': round(float(overlap[0] / overlap[1]), 4) if overlap[1] else None,
        'note': describe_numbers(chosen.hits, outside, _caution(task, trained)),
    }


def describe_numbers(found: int, outside: int, caution: str) -> str:
    """Say how the numbers of a card are to be read.

    Parameters
    ----------
    found : int
        Lesions that were found at the chosen point.
    outside : int
        Lesions outside the box.
    caution : str
        What the start of the training may have seen; empty for nothing.

    Returns
    -------
    str
        Parts of a sentence.
    """
    chosen = (
        'the operating point was chosen on these same scans, so expect less on others, and '
        'something else from the mean of the folds'
        if found
        else 'no operating point finds a lesion: the one given was not chosen, it is that with '
        'the fewest false positives'
    )
    parts = ['each scan predicted by the fold that did not see it', chosen]
    if outside:
        parts.append(f'lesions outside the box, {outside} in all, count as missed')
    if caution:
        parts.append(caution)
    return '; '.join(parts)


def _caution(task: Task, trained: Trained) -> str:
    return start_caution(task, {own['person'] for own in trained.facts.values()})


def _numbers(score: Score) -> dict[str, Any]:
    found = score.hits + score.false
    return {
        'scans': score.scans, 'lesions': score.visible, 'found': score.hits,
        'sensitivity': round(score.sensitivity, 3) if score.visible else None,
        'precision': round(score.hits / found, 3) if found else None,
        'false_positives_per_scan': round(score.false_per_scan, 2),
        'f1': round(score.f1, 3) if score.visible or score.false else None,
    }  # fmt: skip


def _lesions(facts: Mapping[str, Any], name: str) -> int:
    """All of a class, also where the box does not reach."""
    return int(facts['lesions'][name] + facts['outside'][name])


def training_facts(task: Task, trained: Trained) -> dict[str, Any]:
    """Say what was trained on what, without the names of people."""
    plan, facts = task.plan, trained.facts
    datasets: dict[str, Any] = {}
    for dataset in sorted({own['dataset'] for own in facts.values()}):
        own = [f for f in facts.values() if f['dataset'] == dataset]
        datasets[dataset] = {
            'people': len({f['person'] for f in own}), 'scans': len(own),
            'contrasts': dict(sorted(Counter(f['contrast'] for f in own).items())),
            'lesions': {c.name: sum(_lesions(f, c.name) for f in own) for c in plan.classes},
            'scans_without_lesions': sum(
                not any(_lesions(f, c.name) for c in plan.classes) for f in own
            ),
        }  # fmt: skip
    scans = len(facts)
    recipe = plan.to_json()
    for name in ('inputs', 'classes', 'grid', 'intensity', 'architecture', 'low', 'high',
                 'cycle', 'decay'):  # fmt: skip
        recipe.pop(name)
    if plan.steps is not None:
        # --steps was followed instead
        recipe.pop('epochs')
    # a fold that learns from more scans has longer cycles, one that failed another rate since
    rates = [
        read_rates(task.work / f'fold-{fold}')
        or [{'from_step': 0, **plan.described_rate(scans - len(names))}]
        for fold, names in enumerate(trained.names)
    ]
    recipe.update(rates=rates, steps=trained.steps)
    runs = read_runs(task.work)
    # where no run was noted, this machine stands for those that were
    here = used_precision(plan, bfloat16=computes_bfloat16())
    used = [run.get('precision', here) for run in runs] or [here]
    recipe['precision'] = ', '.join(dict.fromkeys(used))
    machines = {json.dumps(run['machine']): run['machine'] for run in runs}
    return {
        'data': datasets,
        'fold_sizes': [len(names) for names in trained.names],
        'recipe': recipe,
        'optimizer': 'Adam (0.9, 0.999, 1e-7)',
        'start': f'{task.start.name} {task.start.version}' if task.start else 'random weights',
        'caution': _caution(task, trained),
        FOLDS_SUM: folds_sha256(read_folds(task.work / FOLDS, plan.folds)),
        'machines': list(machines.values()),
        'minutes': round(trained.seconds / 60, 1),
        'software': f'shivacmb {__version__}',
        'finished': time.strftime('%Y-%m-%d'),
    }


def finish(
    task: Task,
    trained: Trained,
    output: Path,
    described: Mapping[str, Any],
    *,
    overwrite: bool,
    stop: Callable[[], bool],
    tell: Callable[[str], None],
) -> Bundle:
    """Choose the operating point and write the bundle with its card and curves.

    Parameters
    ----------
    task, trained
        The training.
    output : Path
        Folder of the bundle.
    described : mapping
        ``name``, ``version``, ``license``, ``description`` and the like for ``model.json``.
    overwrite : bool
        Replace a folder that exists.
    stop, tell : callable
        As for :func:`shivacmb.train.run.train_folds`.

    Returns
    -------
    Bundle
        As the app will read it.
    """
    plan = task.plan
    chosen, metrics = judge(task, trained, stop=stop, tell=tell)
    if not chosen.hits:
        tell(
            'warning: no lesion was found in a scan that its network had not seen: train longer, '
            'or with --loss balanced, and see learning_curves.png'
        )
    metadata = {
        **described,
        'training': training_facts(task, trained),
        'metrics': metrics,
        'architecture': {'family': 'unet3d', **plan.architecture},
        'inputs': [asdict(item) for item in plan.inputs],
        'grid': asdict(plan.grid),
        'intensity': asdict(plan.intensity),
        'classes': [
            {'value': number, 'name': item.name}
            for number, item in enumerate(plan.classes, start=1)
        ],
        'postprocess': {
            'threshold': chosen.threshold, 'min_voxels': chosen.min_voxels, 'connectivity': 26,
        },
    }  # fmt: skip
    metadata = json.loads(json.dumps(metadata))  # tuples become lists
    curves: list[Rows] = [
        read_curve(task.work / f'fold-{fold}' / 'curve.tsv') for fold in range(plan.folds)
    ]
    write_text(task.work / 'learning_curves.tsv', join_curves(curves))
    plot_curves(curves, task.work / 'learning_curves.png', title=str(described['name']))
    files = _save_folds(task, trained)
    tell('writing the bundle')
    write_text(task.work / 'README.md', card_text(metadata))
    extra_files = [
        task.work / name for name in ('README.md', 'learning_curves.tsv', 'learning_curves.png')
    ]
    _assemble(output, files, metadata, extra_files, overwrite=overwrite)
    return load_bundle(output)


def _save_folds(task: Task, trained: Trained) -> list[Path]:
    import keras

    files = []
    for fold, weights in enumerate(trained.weights):
        # the names of layers count on from model to model
        keras.utils.clear_session()
        model = task.plan.build(task.plan.grid.shape)
        model.set_weights(weights)
        files.append(task.work / f'fold-{fold}' / 'model.keras')
        save_compact(model, files[-1])
    return files


def _assemble(
    output: Path, files: list[Path], metadata: Mapping[str, Any], extra_files: list[Path], *,
    overwrite: bool,
) -> None:  # fmt: skip
    """Write the bundle; under another backend in a process of its own, for the conversion."""
    import keras

    if keras.backend.backend() == 'tensorflow':
        write_bundle(output, files, metadata, overwrite=overwrite, extra_files=extra_files)
        return
    order = {
        'output': str(output), 'folds': [str(path) for path in files], 'metadata': metadata,
        'openvino': has_tensorflow(), 'overwrite': overwrite,
        'extra_files': [str(path) for path in extra_files],
    }  # fmt: skip
    package = str(Path(__file__).parents[2])
    environment = {
        **os.environ, 'KERAS_BACKEND': 'tensorflow', 'CUDA_VISIBLE_DEVICES': '-1',
        'TF_CPP_MIN_LOG_LEVEL': '3',
        'PYTHONPATH': os.pathsep.join(filter(None, (package, os.environ.get('PYTHONPATH', '')))),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix='shivacmb-') as scratch:
        path = Path(scratch) / 'order.json'
        path.write_text(json.dumps(order), encoding='utf-8')
        done = subprocess.run(
            [sys.executable, '-m', 'shivacmb.train.assemble', str(path)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        problem = Path(scratch) / 'problem.json'
        if problem.exists():
            content = json.loads(problem.read_text('utf-8'))
            raise _kind(content['kind'])(content['message'])
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
        raise ModelError(f'the bundle <{output}> could not be written: {lines[-1]}')


def _kind(name: str) -> type[ShivaCMBError]:
    from shivacmb import exceptions

    kind = getattr(exceptions, name, ModelError)
    return kind if issubclass(kind, ShivaCMBError) else ModelError
