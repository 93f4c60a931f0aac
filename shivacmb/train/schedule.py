"""The cyclical learning rate with exponential decay of Tsuchida 2024."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cycle:
    """Triangles between two learning rates, their height falling exponentially.

    The paper gives both rates; it gives neither the length of a cycle nor the decay. The form is
    that of Smith (2017, "Cyclical learning rates for training neural networks", ``exp_range``).

    Attributes
    ----------
    low, high : float
        Learning rates.
    half : int
        Steps from the low to the high rate.
    decay : float
        Factor of the height per step, above 0 and at most 1.
    """

    low: float = 1e-6
    high: float = 1e-3
    half: int = 400
    decay: float = 0.9999

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        cycle = math.floor(1 + step / (2 * self.half))
        x = abs(step / self.half - 2 * cycle + 1)
        return self.low + (self.high - self.low) * max(0.0, 1 - x) * self.decay**step
