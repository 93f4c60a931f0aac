from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from shivacmb.exceptions import DataError
from shivacmb.simulate.lesions_place import ZONES, draw_count, place


@pytest.fixture(scope='module')
def ball() -> np.ndarray:
    grid = np.indices((60, 60, 60)) - 30
    return (grid**2).sum(axis=0) < 25**2


def test_lesions_keep_away_from_the_edge_and_from_each_other(ball: np.ndarray) -> None:
    found = place(np.random.default_rng(0), {'cortex': ball}, ball, 30)
    points = np.array([row[:3] for row in found])
    depth = ndimage.distance_transform_edt(ball)
    assert len(found) == 30
    # three steps of a 6-neighbour erosion guarantee 3 voxels along the axes
    assert depth[tuple(points.T)].min() > np.sqrt(3)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert gaps[~np.eye(30, dtype=bool)].min() >= 6


def test_zones_get_their_share(ball: np.ndarray) -> None:
    left = ball.copy()
    left[30:] = False
    zones = {'white_matter': left, 'cortex': ball & ~left}
    rng = np.random.default_rng(1)
    names = [place(rng, zones, ball, 1)[0][3] for _ in range(600)]
    wanted = ZONES['white_matter'] / (ZONES['white_matter'] + ZONES['cortex'])
    assert names.count('white_matter') / 600 == pytest.approx(wanted, abs=0.06)


def test_avoided_voxels_are_not_used(ball: np.ndarray) -> None:
    avoid = np.zeros_like(ball)
    avoid[:, :, :40] = True
    found = place(np.random.default_rng(2), {'cortex': ball}, ball, 5, avoid=avoid)
    assert min(row[2] for row in found) >= 40


def test_a_full_brain_gives_fewer(ball: np.ndarray) -> None:
    small = ball & (np.indices(ball.shape)[0] == 30) & (np.indices(ball.shape)[1] == 30)
    assert 0 < len(place(np.random.default_rng(3), {'cortex': small}, ball, 50)) < 10


def test_no_room_is_an_error() -> None:
    thin = np.zeros((20, 20, 20), bool)
    thin[10] = True
    with pytest.raises(DataError, match='No voxel of any zone lies deep enough'):
        place(np.random.default_rng(4), {'cortex': thin}, thin, 1)


def test_counts_follow_the_fit() -> None:
    rng = np.random.default_rng(5)
    counts = np.array([draw_count(rng) for _ in range(6000)])
    assert (counts == 0).mean() == pytest.approx(0.3, abs=0.03)
    positive = counts[counts > 0]
    assert np.median(positive) == 1
    assert np.percentile(positive, 75) == pytest.approx(3, abs=1)
    assert counts.max() == 120
