"""Train the built-in brain mask from nothing: ``python -m shivacmb.train.brain_mask -o DIR``.

The same heads and the same loop as for the zones, with a smaller network and one output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shivacmb.train import brain_zones
from shivacmb.train.brain_zones_network import build_mask_network
from shivacmb.train.brain_zones_samples import LEFT, Array

if TYPE_CHECKING:
    from collections.abc import Sequence

CARD: dict[str, Any] = {
    **brain_zones.CARD,
    'name': 'brain-mask',
    'version': '1.0.0',
    'description': (
        'Brain mask for T2*-GRE, SWI and other contrasts. Trained on simulated heads only, never'
        " shown a patient's scan; no reader has checked it on patients."
    ),
    'intended_use': (
        'To place and scale the box in which microbleeds are sought. Research only; not for'
        ' volumetry.'
    ),
    'architecture': {'family': 'brain-mask', 'widths': [8, 16, 16, 24, 24]},
    'classes': [{'value': 1, 'name': 'brain'}],
}


def mask_loss(truth: Any, prediction: Any) -> Any:
    """Soft Dice plus cross-entropy."""
    from keras import ops

    truth, prediction = ops.cast(truth, 'float32'), ops.cast(prediction, 'float32')
    shared = ops.sum(truth * prediction)
    dice = (2.0 * shared + 1.0) / (ops.sum(truth**2) + ops.sum(prediction**2) + 1.0)
    p = ops.clip(prediction, 1e-6, 1.0 - 1e-6)
    entropy = -ops.mean(truth * ops.log(p) + (1.0 - truth) * ops.log(1.0 - p))
    return 1.0 - dice + entropy


def _target(zones: Array) -> Array:
    return (zones % LEFT > 0)[..., None].astype(np.float32)


def _shipped(model: Any) -> Any:
    network = build_mask_network(brain_zones.SHAPE)
    network.set_weights(model.get_weights())
    return network


MASK_RECIPE = brain_zones.Recipe(
    card=CARD,
    loss=mask_loss,
    build=lambda: build_mask_network(brain_zones.SHAPE),
    target=_target,
    ship=_shipped,
    loss_name='soft Dice plus cross-entropy',
    steps=4000,
    # a sigmoid near 1 has no room left in half precision: the loss became NaN
    precision='float32',
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from a command line."""
    return brain_zones.main(arguments, MASK_RECIPE)


if __name__ == '__main__':
    raise SystemExit(main())
