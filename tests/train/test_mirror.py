from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shivacmb.exceptions import UsageError
from shivacmb.models import load_bundle
from shivacmb.train.loop import ARCHITECTURE
from shivacmb.train.mirror import MIRRORED, SIDES, as_trained, mirror_network, sides
from shivacmb.train.start import fold_weights, mean_weights

SHIPPED = Path(__file__).parents[2] / 'shivacmb' / 'models' / 'bundles' / 'synth-cmb'
CARD = Path('card.json')


def test_kernels_are_mirrored_along_the_axes_and_nothing_else() -> None:
    kernel = np.arange(27 * 2, dtype=np.float32).reshape(3, 3, 3, 1, 2)
    bias = np.array([1.0, 2.0], np.float32)
    ours, same = mirror_network([kernel, bias], (0, 2))
    assert same is bias
    for x, y, z in np.ndindex(3, 3, 3):
        np.testing.assert_array_equal(ours[x, y, z], kernel[2 - x, y, 2 - z])
    assert mirror_network([kernel, bias], ())[0] is kernel


def test_folds_take_turns() -> None:
    assert sides(5) == [(), (0,), (0, 1, 2), (), (0,)]


def test_mirroring_is_undone_by_what_the_card_says() -> None:
    rng = np.random.default_rng(3)
    folds = [[rng.random((3, 3, 3, 2, 2)), rng.random(2)] for _ in range(3)]
    axes = sides(3)
    made = [mirror_network(fold, turn) for fold, turn in zip(folds, axes, strict=True)]
    assert not np.array_equal(made[1][0], folds[1][0])
    for back, fold in zip(as_trained(made, {MIRRORED: axes}, CARD), folds, strict=True):
        np.testing.assert_array_equal(back[0], fold[0])
    # a bundle that says nothing of it has folds that are as they were trained
    assert as_trained(made, {}, CARD)[1][0] is made[1][0]


@pytest.mark.parametrize(
    'entry',
    [True, None, [], [[]], [[], [0], 1], [[], [0], [3]], [[], [0], [1, 1]], [[], [0], ['x']]],
)
def test_a_card_with_other_axes_is_refused(entry: object) -> None:
    with pytest.raises(UsageError, match=r'in <card.json> is .* each of 3 fold'):
        as_trained([[], [], []], {MIRRORED: entry}, CARD)


@pytest.mark.tensorflow
@pytest.mark.parametrize('axes', [*SIDES, (1,), (0, 2)])
def test_a_mirrored_network_sees_the_mirror_image(axes: tuple[int, ...]) -> None:
    from shivacmb.models.unet3d import build_unet3d

    rng = np.random.default_rng(1)
    network = build_unet3d((24, 32, 16), **ARCHITECTURE)
    weights = [rng.uniform(0.1, 0.5, weight.shape) for weight in network.get_weights()]
    # kernels of either sign, so that no activation is dead or saturated
    weights = [w - 0.3 * (w.ndim == 5) for w in weights]
    image = rng.random((1, 24, 32, 16, 1)).astype(np.float32)
    space = tuple(axis + 1 for axis in axes)
    network.set_weights(weights)
    wanted = np.flip(network.predict(np.flip(image, space), verbose=0), space)
    plain = network.predict(image, verbose=0)
    network.set_weights(mirror_network(weights, axes))
    made = network.predict(image, verbose=0)
    assert np.ptp(made) > 1e-3
    np.testing.assert_allclose(made, wanted, atol=1e-4)
    assert (np.abs(made - plain).max() > 1e-3) == bool(axes)


@pytest.mark.tensorflow
def test_the_card_of_the_shipped_bundle_names_the_sides_of_its_folds() -> None:
    bundle = load_bundle(SHIPPED)
    assert bundle.training[MIRRORED] == [list(axes) for axes in sides(3)]
    folds = fold_weights(bundle, ARCHITECTURE)
    # folds that went on from one network resemble each other only when none is mirrored
    large = [index for index, weight in enumerate(folds[0]) if weight.size > 50_000]
    assert large

    def alike(one: list[np.ndarray], other: list[np.ndarray]) -> float:
        return float(min(np.corrcoef(one[i].ravel(), other[i].ravel())[0, 1] for i in large))

    for fold, axes in list(enumerate(sides(3)))[1:]:
        assert alike(folds[0], folds[fold]) > 0.9
        assert alike(folds[0], mirror_network(folds[fold], axes)) < 0.9
    mean, _ = mean_weights(SHIPPED)
    assert alike(folds[0], mean) > 0.9
