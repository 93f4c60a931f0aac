"""Axes of stored images, and folders of datasets that were begun."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from shivacmb.exceptions import UsageError
from shivacmb.simulate import bids_dataset, dataset_root
from shivacmb.simulate.bids_dataset import Order, make_dataset
from shivacmb.simulate.dataset_root import RECORD, prepare_root
from shivacmb.simulate.files import reorient, reorient_vector

AXES = [
    ''.join(letters)
    for order in itertools.permutations(('RL', 'AP', 'SI'))
    for letters in itertools.product(*order)
]


@pytest.mark.parametrize('axes', AXES)
def test_a_vector_turns_with_its_image(axes: str) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0.98, 0.1, 0.0], [-0.1, 0.98, 0.1], [0.0, -0.1, 0.98]])
    vector = [0.2, -0.3, 0.9]
    image, turned = reorient(np.zeros((3, 4, 5)), affine, axes)
    there = reorient_vector(vector, affine, axes)
    # the same direction in scanner mm
    np.testing.assert_allclose(turned[:3, :3] @ there, affine[:3, :3] @ vector, atol=1e-12)
    sizes = reorient_vector((3, 4, 5), affine, axes)
    assert tuple(abs(size) for size in sizes) == image.shape


def test_a_folder_whose_description_was_cut_short_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(seed: int = 1) -> None:
        prepare_root(
            tmp_path / 'out', {'seed': seed}, name='n', readme='r', description={}, ignore=''
        )

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dataset_root, 'write_text', killed)
        with pytest.raises(KeyboardInterrupt):
            prepare()
    assert (tmp_path / 'out' / 'dataset_description.json').exists()
    with pytest.raises(UsageError, match=r'holds a simulation with other settings \(seed'):
        prepare(2)
    prepare()
    assert (tmp_path / 'out' / 'README.md').exists()
    assert (tmp_path / 'out' / RECORD).exists()


def test_a_dataset_of_an_earlier_simulator_is_not_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / 'out', Order(), 0)
    make_dataset(tmp_path / 'out', Order(), 0)
    monkeypatch.setattr(bids_dataset, 'SIMULATOR', bids_dataset.SIMULATOR + 1)
    with pytest.raises(UsageError, match=r'other settings \(simulator: see .*another folder'):
        make_dataset(tmp_path / 'out', Order(), 0)


@pytest.mark.parametrize('text', ['[]', '{"settings": null}', '{"settings": {'])
def test_a_record_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / 'code').mkdir()
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(UsageError, match=r'simulate.json> is damaged'):
        make_dataset(tmp_path, Order(), 0)
