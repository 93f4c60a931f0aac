"""``shivacmb-tools train`` as its user runs it: from labels to a model that the app runs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.models import load_bundle, load_ensemble
from shivacmb.train.backend import computes_bfloat16
from shivacmb.train.checkpoint import saved_weights

pytest.importorskip('tensorflow')
pytestmark = [pytest.mark.tensorflow, pytest.mark.slow, pytest.mark.system]

BIN = Path(sys.executable).parent
PACKAGE = str(Path(__file__).parents[2])
ENVIRONMENT = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join([PACKAGE, os.environ.get('PYTHONPATH', '')]),
    'OMP_NUM_THREADS': '1',
    'TF_NUM_INTRAOP_THREADS': '1',
}
Command = Callable[..., list[str]]
Main = Callable[..., 'subprocess.CompletedProcess[str]']


def installed(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return subprocess.run(
        [BIN / 'shivacmb-tools', *arguments], capture_output=True, text=True, check=False,
        env=ENVIRONMENT,
    )  # fmt: skip


def weights_of(work: Path) -> list[np.ndarray]:
    return [weight for fold in (0, 1) for weight in saved_weights(work / f'fold-{fold}')[0]]


def test_a_model_is_trained_and_the_app_runs_it(
    labelled: Path, tmp_path: Path, command: Command
) -> None:
    done = installed([*command(labelled, tmp_path / 'dots'), '--license', 'CC0-1.0'])
    assert done.returncode == 0, done.stderr
    assert 'wrote <' in done.stdout
    assert 'fold 1: 4 steps on' in done.stderr
    bundle = load_bundle(tmp_path / 'dots')
    bundle.verify()
    assert bundle.name == 'dots'
    assert bundle.grid.shape == (48, 52, 44)
    assert bundle.license == 'CC0-1.0'
    training = bundle.training
    assert training['data']['raw']['people'] == 4
    assert training['data']['raw']['scans'] == 5
    assert training['recipe']['steps'] == [4, 4]
    assert training['machines'][0]['cpu_cores'] >= 1
    assert bundle.metrics['unseen']['scans'] == 5
    assert 0.2 <= bundle.postprocess.threshold <= 1
    assert 'sub-0' not in (bundle.path / 'model.json').read_text()
    card = (bundle.path / 'README.md').read_text()
    assert '| raw | 4 | 5 | 5 T2starw | 1 | 9 CMB |' in card
    assert 'Research use only' in card
    rows = (bundle.path / 'learning_curves.tsv').read_text().splitlines()
    assert rows[0] == 'fold\tstep\tlearning_rate\tloss\tvalidation_loss'
    assert [row.split('\t')[:2] for row in rows[1:]] == [
        [str(fold), str(step)] for fold in (0, 1) for step in (1, 2, 3, 4)
    ]
    assert (bundle.path / 'learning_curves.png').read_bytes()[:4] == b'\x89PNG'
    batch = np.random.default_rng(0).random((1, 48, 52, 44, 1)).astype(np.float32)
    one = load_ensemble(bundle, engine='openvino').predict(batch)
    two = load_ensemble(bundle, engine='tensorflow').predict(batch)
    np.testing.assert_allclose(one, two, atol=1e-4)
    folds = [row.split('\t') for row in (tmp_path / 'dots.work/folds.tsv').read_text().split('\n')]
    assert len({row[3] for row in folds if row[0] == 'raw/sub-04'}) == 1
    out = tmp_path / 'out'
    app = subprocess.run(
        [BIN / 'shivacmb', labelled / 'raw', out, 'participant', '--model', bundle.path,
         '--participant-label', '01', '-d', f'm={labelled / "labels"}', '--toolkit', 'native'],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert app.returncode == 0, app.stderr
    seen = nib.load(out / 'sub-01/anat/sub-01_res-net_desc-preproc_T2starw.nii.gz')
    learnt = np.load(tmp_path / 'dots.work/pool/raw__sub-01_T2starw.image.npy')
    # training and prediction see the same numbers
    np.testing.assert_array_equal(np.asarray(seen.dataobj), learnt[..., 0])


def test_a_killed_training_ends_with_the_same_weights(
    labelled: Path, tmp_path: Path, command: Command
) -> None:
    long = ['--steps', '110', '--batch', '1', '--quiet']
    whole = installed([*command(labelled, tmp_path / 'whole'), *long])
    assert whole.returncode == 0, whole.stderr
    arguments = [*command(labelled, tmp_path / 'cut'), *long]
    process = subprocess.Popen([BIN / 'shivacmb-tools', *arguments], env=ENVIRONMENT,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    checkpoint = tmp_path / 'cut.work/fold-0/checkpoint.npz'
    end = time.monotonic() + 200
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    # on a slow machine it may have made all its steps by now, but no bundle
    assert saved_weights(checkpoint.parent)[1] >= 50
    assert not (tmp_path / 'cut').exists()
    again = installed(arguments)
    assert again.returncode == 0, again.stderr
    for ours, theirs in zip(
        weights_of(tmp_path / 'cut.work'), weights_of(tmp_path / 'whole.work'), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert (tmp_path / 'cut/learning_curves.tsv').read_text() == (
        tmp_path / 'whole/learning_curves.tsv'
    ).read_text()


def test_training_goes_on_in_chunks_of_time_and_from_a_model(
    labelled: Path,
    tmp_path: Path,
    command: Command,
    tools_main: Main,
) -> None:
    arguments = command(labelled, tmp_path / 'chunks', '--max-minutes', '0.0001')
    first = tools_main(*arguments)
    assert first.returncode == 75
    assert 'run the same command again to go on' in first.stderr
    done = tools_main(*command(labelled, tmp_path / 'chunks', '--max-rate', '5e-4'))
    assert done.returncode == 0, done.stderr
    again = tools_main(*command(labelled, tmp_path / 'chunks'))
    assert again.returncode == 73
    assert 'give another folder, or --overwrite' in again.stderr
    other = tools_main(*command(labelled, tmp_path / 'chunks', '--seed', '9', '--overwrite'))
    assert other.returncode == 64
    assert 'was begun with other settings: seed (0 before, 9 now)' in other.stderr
    # retrain from it, its people in their folds; network, grid and channels are its own
    retrain = [
        'train', labelled / 'raw', labelled / 'labels', '-d', f'masks={labelled / "labels"}',
        '-o', tmp_path / 'round-2', '--init-from', tmp_path / 'chunks', '--folds', '2',
        '--fold-table', tmp_path / 'chunks.work/folds.tsv', '--steps', '1', '--patch-size', '16',
        '--max-rate', '1e-9', '--min-rate', '1e-9',
    ]  # fmt: skip
    second = tools_main(*retrain)
    assert second.returncode == 0, second.stderr
    bundle = load_bundle(tmp_path / 'round-2')
    assert bundle.training['start'] == 'chunks 0.1.0'
    # the table is that of its own training
    assert bundle.training['caution'] == ''
    assert bundle.architecture['filters'] == 2
    kernels = [saved_weights(tmp_path / work / 'fold-0')[0][0]
               for work in ('chunks.work', 'round-2.work')]  # fmt: skip
    np.testing.assert_allclose(kernels[0], kernels[1], atol=1e-7)
    changed = tools_main(*retrain, '--class', 'iron', '--overwrite')
    assert changed.returncode == 64
    assert 'the class list does not match: --class iron, but chunks has CMB' in changed.stderr


def test_a_training_of_two_channels_and_classes_on_whole_boxes(
    tmp_path: Path,
    write_scan: Callable[..., None],
    command: Command,
    tools_main: Main,
) -> None:
    for label in ('01', '02'):
        iron = np.zeros((50, 54, 48), np.uint8)
        iron[20:24, 20:24, 20:24] = 1
        write_scan(tmp_path, label, 2, iron=iron)
        folder = tmp_path / f'raw/sub-{label}/anat'
        (folder / f'sub-{label}_T2w.nii.gz').write_bytes(
            (folder / f'sub-{label}_T2starw.nii.gz').read_bytes()
        )
    arguments = command(tmp_path, tmp_path / 'two', '--steps', '2', '--batch', '1',
                        '--input', 't2s=T2starw', '--input', 't2=T2w', '--class', 'CMB',
                        '--class', 'iron', '--precision', 'mixed_bfloat16')  # fmt: skip
    place = arguments.index('--patch-size')
    done = tools_main(*arguments[:place], *arguments[place + 2 :])
    assert done.returncode == 0, done.stderr
    told = 'this processor is not known to be fast with mixed_bfloat16: float32 is used'
    assert (told in done.stdout + done.stderr) == (not computes_bfloat16())
    bundle = load_bundle(tmp_path / 'two')
    assert [item.name for item in bundle.inputs] == ['t2s', 't2']
    assert [(item.value, item.name) for item in bundle.classes] == [(1, 'CMB'), (2, 'iron')]
    batch = np.zeros((1, 48, 52, 44, 2), np.float32)
    assert load_ensemble(bundle, engine='openvino').predict(batch).shape == (2, 1, 48, 52, 44, 2)
    assert json.loads((bundle.path / 'model.json').read_text())['training']['data']['raw'][
        'lesions'
    ] == {'CMB': 4, 'iron': 2}


def test_labels_that_do_not_fit_end_in_one_line(
    labelled: Path,
    tmp_path: Path,
    save: Callable[..., Path],
    command: Command,
    tools_main: Main,
) -> None:
    def refused(code: int, text: str, *more: Any, labels: Path = labelled / 'labels') -> None:
        arguments = command(labelled, tmp_path / 'none', *more)
        arguments[2] = str(labels)
        done = tools_main(*arguments)
        assert done.returncode == code, done.stderr
        assert text in done.stderr
        assert 'Traceback' not in done.stderr
        assert not (tmp_path / 'none').exists()

    refused(16, 'there is no folder of labels', labels=tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    refused(16, 'none of the 5 scans of', labels=tmp_path / 'empty')
    for stem in ('sub-01', 'sub-02', 'sub-03', 'sub-04_ses-a', 'sub-04_ses-b'):
        save(tmp_path / f'small/{stem}.nii.gz', np.ones((9, 9, 9), np.uint8))
        save(tmp_path / f'zeros/{stem}.nii.gz', np.zeros((50, 54, 48), np.uint8))
    refused(65, 'has another grid than its scan', '--labels', tmp_path / 'small/{stem}.nii.gz')
    refused(65, 'none of the 5 label maps holds CMB', '--labels', tmp_path / 'zeros/{stem}.nii.gz')
    one = tmp_path / 'small/sub-01.nii.gz'
    refused(66, f'the label map <{one}> is taken for raw/sub-01_T2starw and for', '--labels', one)
    refused(64, 'mixed_float16 needs a GPU, and', '--precision', 'mixed_float16')
    refused(64, '4 person(s) cannot fill 7 folds', '--folds', '7')


def test_an_unknown_backend_is_refused(
    labelled: Path,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tools_main: Main,
) -> None:
    monkeypatch.setenv('KERAS_BACKEND', 'theano')
    done = tools_main(*command(labelled, tmp_path / 'none'))
    assert done.returncode == 64
    assert "KERAS_BACKEND is 'theano'; training runs on tensorflow, jax, torch" in done.stderr


@pytest.mark.parametrize('backend', ['torch', 'jax'])
def test_other_backends_train_models_that_the_app_runs(
    labelled: Path, tmp_path: Path, command: Command, backend: str
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed; it is an extra')
    done = subprocess.run(
        [BIN / 'shivacmb-tools', *command(labelled, tmp_path / backend)],
        env={**ENVIRONMENT, 'KERAS_BACKEND': backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(tmp_path / backend)
    assert bundle.training['machines'][0]['backend'].startswith(backend)
    batch = np.random.default_rng(0).random((1, 48, 52, 44, 1)).astype(np.float32)
    one = load_ensemble(bundle, engine='openvino').predict(batch)
    two = load_ensemble(bundle, engine='tensorflow').predict(batch)
    np.testing.assert_allclose(one, two, atol=1e-4)
