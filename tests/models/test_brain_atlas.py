"""The atlas is laid where it belongs, and its zones follow."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from shivacmb.exceptions import ModelError
from shivacmb.imaging.zones import Zone
from shivacmb.models import brain_atlas as ba
from shivacmb.models.brain_grid import smooth
from shivacmb.models.install import add_model
from shivacmb.models.locate import find_bundle

ORIGIN = np.array([-92.0, -124.0, -92.0])
SHAPE, MM = (47, 63, 47), 4.0
GRID = (80, 96, 80)
NET_MM = 2.5


def zones_at(place: np.ndarray) -> np.ndarray:
    """Share of each zone at template mm [..., 3]: smooth balls in an egg that knows its front."""
    x, y, z = np.moveaxis(place, -1, 0)

    def ball(cx: float, cy: float, cz: float, radius: float) -> np.ndarray:
        far = np.sqrt((np.abs(x) - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        return 1 / (1 + np.exp(np.clip((far - radius) / 2, -30, 30)))

    brain = 1 / (
        1 + np.exp((np.sqrt((x / 62) ** 2 + ((y + 10) / 80) ** 2 + (z / 58) ** 2) - 1) * 25)
    )
    shares = np.zeros((*place.shape[:-1], len(Zone)))
    shares[..., Zone.DEEP_GREY] = ball(22, 8, 0, 14)
    shares[..., Zone.THALAMUS] = ball(11, -22, 6, 9)
    shares[..., Zone.CEREBELLUM] = ball(18, -58, -34, 20)
    shares[..., Zone.BRAINSTEM] = ball(0, -26, -34, 13)
    shares[..., Zone.WHITE_MATTER] = ball(20, -10, 24, 26)
    rest = np.maximum(1 - shares.sum(-1), 0)
    shares[..., Zone.CORTEX] = rest
    shares *= (brain / np.maximum(shares.sum(-1), 1e-9))[..., None]
    shares[..., Zone.BACKGROUND] = 1 - brain
    return shares


def fields_at(place: np.ndarray, *, blind: bool = False) -> np.ndarray:
    """What a network returns that is right, or one that takes deep structures for white matter."""
    shares = zones_at(place)
    if blind:
        for zone in (Zone.DEEP_GREY, Zone.THALAMUS):
            shares[..., Zone.WHITE_MATTER] += shares[..., zone]
            shares[..., zone] = 0
    left = 1 / (1 + np.exp(np.clip(place[..., :1], -30, 30)))
    return np.concatenate([shares, left], axis=-1).astype(np.float32)


@pytest.fixture(scope='module')
def atlas() -> ba.Atlas:
    grid = ORIGIN + MM * np.stack(np.indices(SHAPE), axis=-1)
    halves = [ORIGIN + MM * (np.stack(np.indices(SHAPE), -1) + (n - 0.5) / 2) for n in range(2)]
    wide = np.empty([2 * size for size in SHAPE] + [3])
    for corner in np.ndindex(2, 2, 2):
        part = tuple(slice(c, None, 2) for c in corner)
        wide[part] = np.stack([halves[c][..., a] for a, c in enumerate(corner)], axis=-1)
    marks = ba.landmarks(fields_at(wide, blind=True))
    return ba.Atlas(marks, zones_at(grid).astype(np.float32), ORIGIN, MM)


def turned(degrees: float, size: float, shift: tuple[float, float, float]) -> np.ndarray:
    """Template mm from grid mm, as rows of :func:`fit_affine`."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, s], [0, -s, c]]
    )
    return np.concatenate([[shift], (np.diag([size, 1.0, 0.95]) @ turn).T])


@pytest.mark.parametrize(
    ('degrees', 'size', 'shift', 'cut'),
    [(0.0, 1.0, (0, 0, 0), 0), (15.0, 0.9, (4, -18, 9), 0), (-12.0, 1.1, (-6, 0, 5), 30)],
)
def test_fit_finds_the_affine_even_where_a_part_is_not_acquired(
    atlas: ba.Atlas, degrees: float, size: float, shift: tuple[float, float, float], cut: int
) -> None:
    truth = turned(degrees, size, shift)
    grid = ba.points(GRID, NET_MM)
    fields = fields_at(truth[0] + grid @ truth[1:], blind=True)
    image = np.ones(GRID, np.float32)
    image[..., :cut] = 0
    fields[..., :cut, :] = 0
    fields[..., :cut, Zone.BACKGROUND] = 1
    seen = ba.acquired(image)
    assert seen.mean() == pytest.approx(1 - cut / GRID[2])
    found = ba.fit_affine(ba.landmarks(fields), seen, 2 * NET_MM, atlas)
    inside = fields[..., Zone.BACKGROUND] < 0.5
    error = (found[0] + grid[inside] @ found[1:]) - (truth[0] + grid[inside] @ truth[1:])
    assert np.linalg.norm(error, axis=1).mean() < 1.0


def test_place_tells_what_the_network_does_not(atlas: ba.Atlas) -> None:
    truth = turned(10.0, 0.95, (2, -14, 3))
    place = truth[0] + ba.points(GRID, NET_MM) @ truth[1:]
    blind, right = fields_at(place, blind=True), zones_at(place)
    image = np.ones(GRID, np.float32)
    found = ba.place_zones(blind, image, NET_MM, atlas)
    np.testing.assert_array_equal(found[..., 0], blind[..., 0])
    np.testing.assert_allclose(found[..., :-1].sum(-1), 1, atol=1e-3)
    best = found[..., 1:-1].argmax(-1) + 1
    brain = right[..., 0] < 0.5
    wanted = right[..., 1:].argmax(-1) + 1
    for zone in (Zone.DEEP_GREY, Zone.THALAMUS, Zone.CEREBELLUM, Zone.BRAINSTEM):
        one, two = brain & (best == zone), brain & (wanted == zone)
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.9, zone


def test_the_network_decides_on_sides_at_the_midline_the_atlas_far_from_it(
    atlas: ba.Atlas,
) -> None:
    truth = turned(0.0, 1.0, (0, -14, 3))
    place = truth[0] + ba.points(GRID, NET_MM) @ truth[1:]
    fields = fields_at(place)
    x = place[..., 0]
    fields[..., -1] = np.where(np.abs(x) > 20, 0.2, 1 / (1 + np.exp(x - 3)))  # bent by 3 mm
    found = ba.place_zones(fields, np.ones(GRID, np.float32), NET_MM, atlas)[..., -1] > 0.5
    brain = fields[..., Zone.BACKGROUND] < 0.5
    far, near = brain & (np.abs(x) > 20), brain & (np.abs(x) < 1)
    np.testing.assert_array_equal(found[far], x[far] < 0)
    assert found[near].all()


def test_the_core_is_laid_again_where_its_zones_are(atlas: ba.Atlas) -> None:
    truth = turned(6.0, 0.95, (2, -14, 3))
    where = ba.points((30, 30, 30), 3.0).reshape(-1, 3)
    chance = zones_at(truth[0] + where @ truth[1:])[:, 1:].astype(np.float32)
    off = truth + np.array([[4, -3, 5], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    found = ba.fit_core(chance, where, off, atlas)
    error = (found[0] + where @ found[1:]) - (truth[0] + where @ truth[1:])
    assert np.linalg.norm(error, axis=1).mean() < 0.7
    assert ba.fit_core(chance[:900], where[:900], off, atlas) is off


def test_a_fit_that_runs_away_is_given_up(
    atlas: ba.Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ba, 'newton_step', lambda *_: np.full((4, 3), 30.0))
    fields = fields_at(ba.points(GRID, NET_MM))
    cells = np.ones([size // 2 for size in GRID], bool)
    found = ba.fit_affine(ba.landmarks(fields), cells, 2 * NET_MM, atlas)
    np.testing.assert_allclose(found[1:], found[1, 0] * np.eye(3))
    assert 0.85 <= found[1, 0] <= 1.2
    where = ba.points((12, 12, 12), 3.0).reshape(-1, 3)
    assert ba.fit_core(np.ones((len(where), 7), np.float32), where, found, atlas) is found


def test_left_and_right_look_alike_to_the_classifier(atlas: ba.Atlas) -> None:
    identity = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    fields = fields_at(ba.points(GRID, NET_MM), blind=True)
    image = np.random.default_rng(0).random(GRID, np.float32)
    image = image + image[::-1]
    wanted = np.zeros(GRID, bool)
    wanted[20, 30:40, 40] = wanted[-21, 30:40, 40] = True
    inputs = ba.features(ba.look(fields, image, NET_MM), atlas, identity, wanted)
    assert inputs.shape == (20, ba.FEATURES)
    np.testing.assert_allclose(inputs[:10], inputs[10:], atol=1e-3)


def test_stored_atlas_comes_back_and_a_changed_one_is_refused(
    atlas: ba.Atlas, tmp_path: Path
) -> None:
    layers = tuple(np.full((n, n + 1), n, np.float32) for n in range(1, 12))
    path = tmp_path / 'atlas.npz'
    checksum = ba.save_atlas(dataclasses.replace(atlas, layers=layers), path)
    back = ba.load_atlas(path, checksum)
    np.testing.assert_allclose(back.landmarks, atlas.landmarks, atol=0.5 / 127 + 1e-6)
    np.testing.assert_allclose(back.prior, atlas.prior, atol=0.5 / 255 + 1e-6)
    for one, two in zip(back.layers, layers, strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(ModelError, match=r'atlas\.npz> is not the file that its model\.json'):
        ba.load_atlas(path, '0' * 64)
    with pytest.raises(ModelError, match=r'cannot read <.*none\.npz>: No such file'):
        ba.load_atlas(tmp_path / 'none.npz', checksum)


def test_the_atlas_goes_with_its_bundle(tmp_path: Path) -> None:
    shipped = find_bundle('brain-zones')
    added = add_model(shipped.path, name='mine', models_dir=tmp_path)
    assert added.atlas == (tmp_path / 'mine' / 'atlas.npz', shipped.atlas[1])
    added.verify()
    # as some programs print sums
    loud = {'atlas': {'file': 'atlas.npz', 'sha256': shipped.atlas[1].upper()}}
    ba.load_atlas(*dataclasses.replace(added, architecture=loud).atlas)
    added.atlas[0].write_bytes(b'x')
    with pytest.raises(ModelError, match=r"atlas\.npz> of model 'mine' is not the file"):
        added.verify()
    odd = dataclasses.replace(added, architecture={'atlas': 'atlas.npz'})
    with pytest.raises(ModelError, match=r'architecture\.atlas in <.*> needs file and sha256'):
        _ = odd.atlas


@pytest.mark.parametrize('shape', [(20, 16, 24), (12, 10, 8, 3)])
@pytest.mark.parametrize('sigma', [0.8, 3.0])
def test_smoothing_is_that_of_scipy(shape: tuple[int, ...], sigma: float) -> None:
    array = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = ndimage.gaussian_filter(array, (sigma,) * 3 + (0,) * (len(shape) - 3))
    np.testing.assert_allclose(smooth(array, sigma), expected, atol=1e-6)
