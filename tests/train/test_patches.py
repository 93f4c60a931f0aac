from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shivacmb.exceptions import TemporaryError
from shivacmb.simulate.dataset import BRAIN, LESION, MIMIC, UNSURE
from shivacmb.train.patches import MIX, PatchSource, bezier_table, cut, interesting_points
from shivacmb.train.pool import load_scan

SHAPE = (40, 44, 36)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    for index in range(3):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, SHAPE).astype(np.uint8)
        flags = np.zeros(SHAPE, np.uint8)
        flags[6:34, 6:38, 6:30] = BRAIN
        flags[20, 20, 20] |= LESION
        flags[10, 10, 10] |= UNSURE
        flags[28, 28, 24] |= MIMIC
        np.save(tmp_path / f'scan-{index:05d}.npy', np.stack([image, flags, flags & LESION]))
        row = {'number': 1, 'visible': True, 'voxel': [20, 20, 20], 'radius': 2.0}
        (tmp_path / f'scan-{index:05d}.json').write_text(
            json.dumps({'contrast': 'T2starw', 'lesions': [row]})
        )
    return tmp_path


def test_intensity_curves_rise_from_0() -> None:
    for seed in range(50):
        table = bezier_table(np.random.default_rng(seed))
        assert table.shape == (256,)
        assert table[0] == 0
        assert 0.89 <= table[-1] <= 1
        assert (np.diff(table) >= 0).all()


def test_a_cut_beyond_the_rim_is_padded_with_zeros() -> None:
    volume = np.ones((10, 10, 10), np.uint8)
    part = cut(volume, np.array([-2, 3, 7]), 6)
    assert part[:2].sum() == 0
    assert part[:, :, 3:].sum() == 0
    assert part.sum() == 4 * 6 * 3


def test_points_lie_where_their_kind_says(pool: Path) -> None:
    scan = load_scan(pool, 0)
    points = interesting_points(scan, 0)
    assert points['lesion'].tolist() == [[20, 20, 20]]
    assert set(map(tuple, points['mimic'].tolist())) == {(28, 28, 24)}
    rim = points['edge']
    assert (np.isin(rim[:, 0], (6, 33)) | np.isin(rim[:, 1], (6, 37))).all()
    assert ((scan.flags[tuple(points['brain'].T)] & BRAIN) > 0).all()


def test_seed_and_step_alone_decide_a_batch(pool: Path) -> None:
    first = PatchSource(pool, [0, 1, 2], seed=1, size=16, batch=4)
    again = PatchSource(pool, [0, 1, 2], seed=1, size=16, batch=4)
    first.draw(0)
    for ours, theirs in zip(first.draw(7), again.draw(7), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(first.draw(7)[0], first.draw(8)[0])


def test_a_batch_has_images_labels_and_weights(pool: Path) -> None:
    images, targets = PatchSource(pool, [0], seed=3, size=24, batch=24).draw(0)
    assert images.shape == (24, 24, 24, 24, 1)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert targets.shape == (24, 24, 24, 24, 2)
    lesions = targets[..., 0].sum(axis=(1, 2, 3))
    assert (lesions > 0).mean() > MIX['lesion'] / 2
    assert targets[..., 1].min() == 0  # the unsure voxel weighs nothing


def test_hard_negatives_are_visited(pool: Path) -> None:
    hard = {1: np.array([[20, 20, 20]])}
    source = PatchSource(pool, [0, 1], seed=4, size=16, batch=1, hard=hard)
    for index in (0, 1):
        scan, points = source._scan(index)
        source._open[index] = (scan, {kind: np.array([[8, 8, 8]]) for kind in points})
    with_lesion = [bool(source.draw(step)[1][..., 0].any()) for step in range(80)]
    assert sum(with_lesion) / 80 == pytest.approx(MIX['hard'], abs=0.13)


def test_scans_become_available_one_by_one(pool: Path) -> None:
    source = PatchSource(pool, [0, 9999], seed=5, size=16, batch=2, first=1, per_step=0.001)
    source.draw(500)  # would wait for scan 9999 if it were drawn


def test_a_scan_that_never_comes_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError, match=r'Scan 3 of the pool <.*> was not simulated'):
        load_scan(tmp_path, 3, patience_s=0.0)
