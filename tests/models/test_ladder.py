"""Memory that runs out: smaller work, then the CPU, then a clear end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from shivacmb.exceptions import ModelError, TemporaryError
from shivacmb.models import Bundle, engine_openvino, engine_tensorflow, load_ensemble
from shivacmb.models import ensemble as ensemble_module
from shivacmb.models.ladder import FoldByFold, Ladder, Rung
from shivacmb.models.memory import is_out_of_memory

Image = NDArray[np.float32]
SCALES = (0.25, 0.5, 0.75)


class ResourceExhaustedError(Exception):
    """Stand-in with TensorFlow's name for it."""


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (MemoryError(), True),
        (ResourceExhaustedError('OOM when allocating tensor'), True),
        (RuntimeError('Exception from src/inference: std::bad_alloc'), True),
        (RuntimeError('[CPU] Cannot allocate memory'), True),
        (RuntimeError('failed call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY'), True),
        (RuntimeError('CUDNN_STATUS_ALLOC_FAILED'), True),
        (raised_from(ModelError('cannot run'), RuntimeError('bad allocation: bad_alloc')), True),
        (RuntimeError('shape mismatch'), False),
        (TemporaryError('the GPU was not free'), False),
    ],
)
def test_memory_is_known_by_the_words_of_each_library(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@dataclass
class World:
    """What engines were made, where, and how often memory is still to run out."""

    failures: dict[str, int] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    open: int = 0
    most_folds: int = 0

    @contextlib.contextmanager
    def turn(self, device: str) -> Iterator[None]:
        self.turns.append(device)
        yield

    def engine(self, device: str, kind: str) -> type:
        world = self

        class Fake:
            name, version, precision = 'fake', '1', 'f32'

            def __init__(self, bundle: Bundle, **_: object) -> None:
                self.device = device
                self.count = len(bundle.folds)
                world.made.append(f'{device} {self.count}')
                world.open += self.count
                world.most_folds = max(world.most_folds, world.open)
                self.scales = [
                    SCALES[int(fold.file.split('-')[1].split('.')[0])] for fold in bundle.folds
                ]

            def predict(self, image: Image) -> list[Image]:
                if world.failures.get(kind, 0) > 0:
                    world.failures[kind] -= 1
                    raise ResourceExhaustedError('OOM when allocating tensor with shape[1,160]')
                return [image * scale for scale in self.scales]

            def close(self) -> None:
                world.open -= self.count

        return Fake


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine with a GPU, whose engines are fakes."""
    made = World()
    monkeypatch.setattr(engine_tensorflow, 'TensorFlowEngine', made.engine('gpu', 'gpu'))
    monkeypatch.setattr(engine_openvino, 'OpenVINOEngine', made.engine('cpu', 'cpu'))
    monkeypatch.setattr(ensemble_module, 'GPU_PAUSE_S', 0.0)
    monkeypatch.setattr(ensemble_module, 'Ladder', lambda rungs: Ladder(rungs, turn=made.turn))
    return made


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(0).random((1, 6, 5, 4, 1), dtype=np.float32)


def check(folds: NDArray[np.float32], image: Image) -> None:
    np.testing.assert_array_equal(folds, [image * np.float32(scale) for scale in SCALES])


def test_without_trouble_the_gpu_does_it_all(
    world: World, make_bundle: Callable[..., Bundle], image: Image
) -> None:
    ensemble = load_ensemble(make_bundle(*SCALES), 'tensorflow', 'gpu')
    for _ in range(3):
        check(ensemble.predict(image), image)
    assert world.made == ['gpu 3']
    assert set(world.turns) == {'gpu'}
    assert ensemble.describe()['device'] == 'gpu'
    assert ensemble.describe()['note'] == ''


def test_once_out_of_memory_is_tried_fold_by_fold(
    world: World, make_bundle: Callable[..., Bundle], image: Image
) -> None:
    ensemble = load_ensemble(make_bundle(*SCALES), 'tensorflow', 'gpu')
    world.failures['gpu'] = 1
    check(ensemble.predict(image), image)
    assert world.made == ['gpu 3', *['gpu 1'] * 4]
    assert world.open == 0, 'networks that ran out of memory are still held'
    said = ensemble.describe()
    assert said['device'] == 'gpu'
    assert said['note'] == 'memory ran out on the GPU; ran on the GPU, fold by fold'
    # and it stays there: the next scan does not run into the same wall
    check(ensemble.predict(image), image)
    assert world.made[5:] == ['gpu 1'] * 3


def test_twice_out_of_memory_goes_to_the_cpu_and_stays(
    world: World, make_bundle: Callable[..., Bundle], image: Image
) -> None:
    ensemble = load_ensemble(make_bundle(*SCALES), 'tensorflow', 'gpu')
    world.failures['gpu'] = 2
    for _ in range(3):
        check(ensemble.predict(image), image)
    assert world.made[-1] == 'cpu 3'
    assert world.made.count('cpu 3') == 1
    assert world.open == 3
    said = ensemble.describe()
    assert said['device'] == 'cpu'
    assert said['note'] == ('memory ran out on the GPU, the GPU, fold by fold; ran on the CPU')


def test_always_out_of_memory_ends_with_75_and_the_next_scan_starts_at_the_top(
    world: World, make_bundle: Callable[..., Bundle], image: Image
) -> None:
    ensemble = load_ensemble(make_bundle(*SCALES), 'tensorflow', 'gpu')
    world.failures = {'gpu': 2, 'cpu': 1}
    with pytest.raises(
        TemporaryError,
        match='memory ran out while predicting on the GPU, then on the GPU, fold by fold, then '
        'on the CPU; close other programs',
    ) as caught:
        ensemble.predict(image)
    assert caught.value.exit_code == 75
    assert world.open == 0
    check(ensemble.predict(image), image)
    assert ensemble.describe() == {
        'engine': 'fake', 'engine_version': '1', 'device': 'gpu', 'precision': 'f32',
        'folds': 3, 'note': '',
    }  # fmt: skip


def test_a_cpu_that_cannot_take_over_is_said(
    world: World,
    make_bundle: Callable[..., Bundle],
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelError('it needs tensorflow')

    ensemble = load_ensemble(make_bundle(*SCALES), 'tensorflow', 'gpu')
    monkeypatch.setattr(engine_openvino, 'OpenVINOEngine', refuse)
    monkeypatch.setattr(engine_tensorflow, 'TensorFlowEngine', refuse)
    world.failures['gpu'] = 1
    with pytest.raises(TemporaryError, match=r'the GPU; .*cannot take over: it needs tensorflow'):
        ensemble.predict(image)


def test_another_error_is_not_tried_again(
    world: World,
    make_bundle: Callable[..., Bundle],
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ensemble = load_ensemble(make_bundle(*SCALES), 'tensorflow', 'gpu')

    def broken(*_: object) -> None:
        raise ValueError('shapes differ')

    monkeypatch.setattr(engine_tensorflow.TensorFlowEngine, 'predict', broken)
    with pytest.raises(ModelError, match='shapes differ'):
        ensemble.predict(image)
    assert world.made == ['gpu 3']


def test_on_the_cpu_the_second_try_is_fold_by_fold(
    world: World, make_bundle: Callable[..., Bundle], image: Image
) -> None:
    ensemble = load_ensemble(make_bundle(*SCALES), 'openvino', 'cpu')
    world.failures['cpu'] = 1
    check(ensemble.predict(image), image)
    assert world.made == ['cpu 3', *['cpu 1'] * 4]
    assert set(world.turns) == {'cpu'}
    world.failures['cpu'] = 1
    with pytest.raises(TemporaryError, match='on the CPU, then on the CPU, fold by fold;'):
        ensemble.predict(image)


def test_fold_by_fold_holds_one_network_and_gives_the_same(
    world: World, make_bundle: Callable[..., Bundle], image: Image
) -> None:
    engine = FoldByFold(make_bundle(*SCALES), world.engine('gpu', 'gpu'))
    check(np.stack(engine.predict(image)), image)
    assert world.most_folds == 1
    assert world.open == 0


def test_fold_by_fold_with_real_networks(make_bundle: Callable[..., Bundle], image: Image) -> None:
    bundle = make_bundle(*SCALES)
    together = engine_openvino.OpenVINOEngine(bundle).predict(image)
    apart = FoldByFold(bundle, engine_openvino.OpenVINOEngine).predict(image)
    np.testing.assert_array_equal(apart, together)


def test_memory_that_runs_out_while_loading(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(0.5)
    made = World().engine('cpu', 'cpu')

    def too_large() -> None:
        raise RuntimeError('std::bad_alloc')

    ladder = Ladder(
        [Rung('a', 'cpu', too_large), Rung('b', 'cpu', lambda: made(bundle))]  # type: ignore[arg-type,return-value]
    )
    assert ladder.note == 'memory ran out on a; ran on b'
    with pytest.raises(TemporaryError, match='predicting on a;'):
        Ladder([Rung('a', 'cpu', too_large)])  # type: ignore[arg-type]
