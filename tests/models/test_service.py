"""The process that holds the networks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from shivacmb.exceptions import ModelError, TemporaryError
from shivacmb.models import Bundle
from shivacmb.models.service import (
    BRAIN,
    LESIONS,
    MAX_STARTS,
    EnsembleRequest,
    PredictionService,
    _Held,
    predict_file,
    request_prediction,
)


class _Bundle:
    def target_map(self, maps: np.ndarray) -> np.ndarray:
        return maps[..., 0]


class _Ensemble:
    """Folds that return the image times 1, 2 and 3."""

    bundle = _Bundle()
    released = False

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return np.stack([batch * factor for factor in (1, 2, 3)]).astype(np.float32)

    def describe(self) -> dict[str, str]:
        return {'device': 'abacus'}

    def release(self) -> None:
        self.released = True


def nothing(folder: Path) -> dict[str, EnsembleRequest]:
    return {LESIONS: EnsembleRequest(str(folder / 'nothing'))}


def test_predict_file_writes_one_map_per_fold(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1)
    np.save(tmp_path / 'in.npy', image)
    said = predict_file(_Ensemble(), tmp_path / 'in.npy', tmp_path / 'out.npy')  # type: ignore[arg-type]
    assert said == {'device': 'abacus'}
    folds = np.load(tmp_path / 'out.npy')
    assert folds.shape == (3, 2, 3, 4)
    np.testing.assert_array_equal(folds[2], image[..., 0] * 3)


@pytest.mark.parametrize('modest', [True, False])
def test_the_network_of_the_brain_gives_its_memory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, modest: bool
) -> None:
    """It would lie idle while the lesions are predicted, which takes the most memory."""
    ensemble = _Ensemble()
    monkeypatch.setattr(EnsembleRequest, 'load', lambda _: ensemble)
    np.save(tmp_path / 'in.npy', np.ones((2, 3, 4, 1), np.float32))
    held = _Held(EnsembleRequest('any'), modest=modest)
    assert held.answer(tmp_path / 'in.npy', tmp_path / 'out.npy') == {'device': 'abacus'}
    assert ensemble.released is modest


@pytest.mark.parametrize(
    ('error', 'kind', 'message'),
    [
        # as NumPy says that a disk is full
        (OSError('5 requested and 3 written'), 'OutputError', '5 requested and 3 written <'),
        (OSError(errno.ENOSPC, 'No space left on device'), 'OutputError', 'No space left'),
        (
            OSError(errno.EIO, 'Input/output error'),
            'TemporaryError',
            'disk or file server reports',
        ),
    ],
)
def test_a_disk_that_fails_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, kind: str, message: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    np.save(tmp_path / 'in.npy', np.ones((2, 3, 4, 1), np.float32))
    monkeypatch.setattr(EnsembleRequest, 'load', lambda _: _Ensemble())
    monkeypatch.setattr(np, 'save', full)
    said = _Held(EnsembleRequest('any'), modest=False).answer(
        tmp_path / 'in.npy', tmp_path / 'out.npy'
    )
    assert said['kind'] == kind
    assert message in str(said['message'])
    assert str(tmp_path) in str(said['message'])


def test_failure_to_load_is_the_answer_to_every_request(tmp_path: Path) -> None:
    np.save(tmp_path / 'in.npy', np.zeros((2, 2, 2, 1), dtype=np.float32))
    with PredictionService(nothing(tmp_path)) as service:
        for _ in range(2):
            with pytest.raises(ModelError, match='nothing'):
                request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy')
    assert not Path(service.address).parent.exists()


def test_one_process_holds_the_networks_of_brain_and_lesions(
    tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    image = np.random.default_rng(3).random((6, 5, 4, 1), dtype=np.float32)
    np.save(tmp_path / 'in.npy', image)
    brain = make_bundle(0.5, name='head', target='brain', classes=[{'value': 1, 'name': 'brain'}])
    lesions = make_bundle(0.25, 0.75, name='spots')
    assert brain.grid.shape == lesions.grid.shape == image.shape[:3]
    requests = {
        BRAIN: EnsembleRequest(str(brain.path), 'openvino'),
        LESIONS: EnsembleRequest(str(lesions.path), 'openvino'),
    }
    with PredictionService(requests) as service:
        for name in (LESIONS, BRAIN, LESIONS):
            said = request_prediction(
                service.address, tmp_path / 'in.npy', tmp_path / f'{name}.npy', name
            )
            assert (said['engine'], said['device'], said['note']) == ('openvino', 'cpu', '')
            assert said['folds'] == (1 if name == BRAIN else 2)
    expected = {BRAIN: [0.5], LESIONS: [0.25, 0.75]}
    for name, factors in expected.items():
        folds = np.load(tmp_path / f'{name}.npy')
        # all maps of the brain, the one map of the microbleeds
        wanted = image if name == BRAIN else image[..., 0]
        np.testing.assert_array_equal(folds, [wanted * factor for factor in factors])


def test_a_network_that_cannot_be_loaded_does_not_take_the_other(
    tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    np.save(tmp_path / 'in.npy', np.ones((6, 5, 4, 1), dtype=np.float32))
    requests = {
        BRAIN: EnsembleRequest(str(tmp_path / 'nothing')),
        LESIONS: EnsembleRequest(str(make_bundle(0.5).path), 'openvino'),
    }
    with PredictionService(requests) as service:
        with pytest.raises(ModelError, match='nothing'):
            request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy', BRAIN)
        request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy')
    assert np.load(tmp_path / 'out.npy').max() == 0.5


def test_a_process_that_dies_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    np.save(tmp_path / 'in.npy', np.zeros((2, 2, 2, 1), dtype=np.float32))
    service = PredictionService(nothing(tmp_path))
    try:
        for _ in range(MAX_STARTS):
            with pytest.raises(ModelError):
                request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy')
            process = service._process
            process.kill()
            process.wait()
            wait_until(lambda dead=process: service._process is not dead or ended(service))
        with pytest.raises(TemporaryError, match='memory ran out'):
            request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy')
    finally:
        service.close()


def test_a_process_that_dies_now_and_then_is_always_started_again(
    tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    np.save(tmp_path / 'in.npy', np.ones((6, 5, 4, 1), dtype=np.float32))
    with PredictionService(
        {LESIONS: EnsembleRequest(str(make_bundle(0.5).path), 'openvino')}
    ) as service:
        for _ in range(MAX_STARTS + 1):
            request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy')
            process = service._process
            process.kill()
            process.wait()
            wait_until(lambda dead=process: service._process is not dead or ended(service))
        request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy')


def test_networks_that_cannot_be_loaded_again_and_again_are_asked_for_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def load(_: EnsembleRequest) -> _Ensemble:
        loads.append(1)
        if len(loads) < 4:
            raise TemporaryError('the GPU is taken')
        return _Ensemble()

    monkeypatch.setattr(EnsembleRequest, 'load', load)
    np.save(tmp_path / 'in.npy', np.ones((2, 3, 4, 1), np.float32))
    held = _Held(EnsembleRequest('any'), modest=False)
    for _ in range(2):
        said = held.answer(tmp_path / 'in.npy', tmp_path / 'out.npy')
        assert said['kind'] == 'TemporaryError'
        assert said['message'] == 'the GPU is taken'
    assert held.answer(tmp_path / 'in.npy', tmp_path / 'out.npy') == {'device': 'abacus'}


def ended(service: PredictionService) -> bool:
    return Path(service.address).with_name('ended').exists()


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_long_temporary_folders_are_avoided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ('x' * 100)
    long.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(long))
    with PredictionService(nothing(tmp_path)) as service:
        assert len(service.address) < 100
        with pytest.raises(ModelError, match='nothing'):
            request_prediction(service.address, tmp_path / 'in.npy', tmp_path / 'out.npy')
    assert not list(long.iterdir())


def test_it_ends_when_its_run_is_killed(tmp_path: Path) -> None:
    code = (
        'import sys, time\n'
        'from shivacmb.models.service import EnsembleRequest, PredictionService\n'
        'service = PredictionService({"lesions": EnsembleRequest(sys.argv[1])})\n'
        'print(service._process.pid, service.address, flush=True)\n'
        'time.sleep(600)\n'
    )
    run = subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    pid, address = run.stdout.readline().split()
    deadline = time.monotonic() + 120
    while not Path(address).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    while psutil.pid_exists(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pid))
    assert not Path(address).parent.exists()
