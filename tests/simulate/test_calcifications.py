"""Calcifications have places of their own, and occur as often as on CT of adults."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from shivacmb.simulate.calcifications import PREVALENCE, draw_calcifications
from shivacmb.simulate.lesions import Lesion, Protocol
from shivacmb.simulate.mimics_place import Scene

MIDDLE = 39.5
THALAMUS = ((30, 50), (30, 62), (36, 58))


def box(*ends: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((80, 96, 80), bool)
    mask[tuple(slice(*pair) for pair in ends)] = True
    return mask


@pytest.fixture(scope='module')
def scene() -> Scene:
    grid = np.indices((80, 96, 80))
    centre = np.array([MIDDLE, 47.5, 39.5]).reshape(3, 1, 1, 1)
    masks = {
        'brain': ((grid - centre) ** 2).sum(0) < 36**2,
        'thalamus': box(*THALAMUS),
        'pallidum': box((22, 28), (40, 60), (38, 46)) | box((52, 58), (40, 60), (38, 46)),
        'putamen': box((18, 21), (40, 60), (38, 46)),
        'white': box((20, 60), (20, 80), (20, 60)),
        # both lateral ventricles, wide, and a third one between the thalami
        'ventricle': box((20, 28), (16, 70), (46, 54)) | box((52, 60), (16, 70), (46, 54))
        | box((38, 42), (34, 60), (36, 46)),
    }  # fmt: skip
    masks['fluid'] = masks['brain'] & ~masks['white']
    return Scene(masks, np.eye(4), (1.0, 1.0, 1.0), (80, 96, 80))


@pytest.fixture(scope='module')
def people(scene: Scene) -> list[list[Lesion]]:
    return [
        draw_calcifications(np.random.default_rng([7, number]), scene, Protocol(), 1.0)
        for number in range(400)
    ]


def centres(people: list[list[Lesion]], kind: str) -> np.ndarray:
    return np.array(
        [item.centre for found in people for item in found if item.zone.endswith(kind)]
    )


def test_as_many_people_have_them_as_on_ct(people: list[list[Lesion]]) -> None:
    having = Counter(kind for found in people for kind in {item.zone for item in found})
    assert set(having) == {f'calcification_{kind}' for kind in PREVALENCE}
    for kind, share in PREVALENCE.items():
        # the glomus of neither side has one in 4 % of those with calcified plexus
        wanted = share * (0.96 if kind == 'choroid' else 1.0)
        spread = 4 * np.sqrt(share * (1 - share) / len(people))
        assert having[f'calcification_{kind}'] / len(people) == pytest.approx(wanted, abs=spread)


def test_all_are_diamagnetic_and_as_large_as_microbleeds(people: list[list[Lesion]]) -> None:
    every = [item for found in people for item in found]
    assert max(item.chi for item in every) < 0
    radii = [item.apparent_radius for item in every]
    assert min(radii) >= 0.6
    assert max(radii) <= 5.0
    assert 1.4 < np.median(radii) < 2.3


def test_pineal_ones_lie_on_the_midline_behind(people: list[list[Lesion]]) -> None:
    found = centres(people, 'pineal')
    (_, _), (back, front), (low, high) = THALAMUS
    assert np.abs(found[:, 0].mean() - MIDDLE) < 0.5
    assert np.abs(found[:, 0] - MIDDLE).max() < 7
    assert back < found[:, 1].mean() < back + 0.35 * (front - back)
    assert low < found[:, 2].mean() < low + 0.4 * (high - low)


def test_a_larger_thalamus_does_not_draw_them_to_its_side(scene: Scene) -> None:
    uneven = box((28, 38), (30, 62), (36, 60)) | box((42, 52), (30, 62), (36, 58))
    drawn = replace(scene, masks={**scene.masks, 'thalamus': uneven})
    found = [
        draw_calcifications(np.random.default_rng([8, n]), drawn, Protocol(), 1.0)
        for n in range(200)
    ]
    assert np.abs(centres(found, 'pineal')[:, 0].mean() - MIDDLE) < 0.5


def test_choroid_ones_lie_in_the_lateral_ventricles_of_both_sides(
    people: list[list[Lesion]], scene: Scene
) -> None:
    found = centres(people, 'choroid')
    assert scene.head_value(scene.masks['ventricle'], found).all()
    assert (np.abs(found[:, 0] - MIDDLE) > 7.5).all()
    assert 0.4 < (found[:, 0] > MIDDLE).mean() < 0.6
    assert found[:, 1].max() < THALAMUS[1][0] + 9


def test_pallidal_ones_come_on_both_sides(people: list[list[Lesion]]) -> None:
    for found in people:
        sides = {item.centre[0] > MIDDLE for item in found if item.zone.endswith('pallidum')}
        assert len(sides) in (0, 2)


def test_dural_ones_lie_at_the_rim(people: list[list[Lesion]]) -> None:
    found = centres(people, 'dura')
    away = np.linalg.norm(found - [MIDDLE, 47.5, 39.5], axis=1)
    assert away.min() > 30


def test_none_without_mimics_and_the_same_from_the_same_seed(scene: Scene) -> None:
    def draw(amount: float) -> list[Lesion]:
        return draw_calcifications(np.random.default_rng(3), scene, Protocol(), amount)

    assert draw(0.0) == []
    assert draw(1.0) == draw(1.0) != []


def test_a_head_without_deep_nuclei_has_none_there(scene: Scene) -> None:
    empty = {**scene.masks, 'thalamus': box(), 'pallidum': box()}
    empty['thalamus'][:] = empty['pallidum'][:] = False
    bare = Scene(empty, np.eye(4), (1.0, 1.0, 1.0), (80, 96, 80))
    kinds = {
        item.zone
        for seed in range(60)
        for item in draw_calcifications(np.random.default_rng(seed), bare, Protocol(), 1.0)
    }
    assert kinds <= {'calcification_dura', 'calcification_brain'}
