"""Batches: the same step gives the same batch, labels move with images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shivacmb.models import Grid, Input, Intensity
from shivacmb.train.augment import Augmentation
from shivacmb.train.dataset import LabelClass, Query, find_labelled
from shivacmb.train.labels import IGNORED
from shivacmb.train.sources import VolumeSource
from shivacmb.train.volumes import Preparation, prepare_all

SHAPE = (48, 52, 44)
STILL = Augmentation(flip=False, shift_voxels=0, rotation_degrees=0, curves='none')


@pytest.fixture(scope='module')
def source(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> VolumeSource:
    pool = tmp_path_factory.mktemp('pool')
    query = Query((Input('swi', ('T2starw', 'swi')),), (LabelClass('CMB'),),
                  derivatives={'m': labelled / 'labels'})  # fmt: skip
    scans = find_labelled(labelled / 'raw', labelled / 'labels', query).scans
    prepare_all(pool, scans, Preparation(Grid(SHAPE), Intensity(), query.classes))
    return VolumeSource(pool, [scan.name for scan in scans], classes=1, seed=3, batch=2)


def test_whole_volumes_and_their_classes(source: VolumeSource) -> None:
    images, targets = replace(source, augmentation=STILL).draw(0)
    assert images.shape == (2, *SHAPE, 1)
    assert targets.shape == (2, *SHAPE, 2)
    assert images.dtype == targets.dtype == np.float32
    assert set(np.unique(targets)) <= {0, 1}
    assert targets[..., 1].all()


@pytest.mark.parametrize('patch', [None, 16])
def test_the_step_alone_decides(source: VolumeSource, patch: int | None) -> None:
    own = replace(source, patch=patch)
    first, again, other = own.draw(5), own.draw(5), own.draw(6)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(replace(own, seed=4).draw(5)[0], first[0])


def test_labels_move_with_the_image(source: VolumeSource) -> None:
    moved = replace(source, augmentation=Augmentation(curves='none'), batch=5)
    dark = bright = 0
    for step in range(4):
        images, targets = moved.draw(step)
        inside = targets[..., 0] > 0
        dark += int((images[..., 0][inside] < 0.6).sum())
        bright += int((images[..., 0][inside] >= 0.6).sum())
    # linear in the image, nearest in the labels: the rim of a dot may differ
    assert dark > 3 * bright
    assert dark > 50


def test_every_scan_comes_once_a_round(source: VolumeSource) -> None:
    names = [source._name(number) for number in range(15)]
    for start in (0, 5, 10):
        assert sorted(names[start : start + 5]) == sorted(source.names)
    assert names[:5] != names[5:10] or names[5:10] != names[10:]


def test_half_of_the_patches_show_a_lesion_where_there_is_one(source: VolumeSource) -> None:
    one = replace(source, names=[source.names[0]], patch=16, batch=40)
    _, targets = one.draw(0)
    shown = int((targets[..., 0].sum(axis=(1, 2, 3)) > 0).sum())
    assert 15 <= shown <= 36
    none = replace(source, names=[source.names[2]], patch=16)
    assert none.draw(0)[1][..., 0].sum() == 0


def test_a_patch_is_cut_from_the_volume(source: VolumeSource) -> None:
    own = replace(source, names=[source.names[0]], patch=12, batch=3, augmentation=None)
    whole = replace(own, patch=None, batch=1).draw(0)[0][0, ..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(whole, 12), (12, 12, 12))
    for patch in own.draw(0)[0][..., 0]:
        # a value that hardly any other voxel has
        i, j, k = np.unravel_index(np.argmax(np.where(patch < 1, patch, 0)), patch.shape)
        found = np.argwhere(windows[..., i, j, k] == patch[i, j, k])
        assert 0 < len(found) < 50
        assert any(np.array_equal(windows[tuple(corner)], patch) for corner in found)


def test_ignored_voxels_weigh_nothing(source: VolumeSource, tmp_path: Path) -> None:
    name = source.names[0]
    stem = name.replace('/', '__')
    for kind in ('.image.npy', '.json'):
        (tmp_path / f'{stem}{kind}').write_bytes((source.folder / f'{stem}{kind}').read_bytes())
    labels = np.load(source.folder / f'{stem}.labels.npy')
    labels[1, :5] = IGNORED
    np.save(tmp_path / f'{stem}.labels.npy', labels)
    own = replace(source, folder=tmp_path, names=[name], batch=1, augmentation=None)
    target = own.draw(0)[1][0]
    assert not target[:5].any()
    assert target[5:, ..., 1].all()
