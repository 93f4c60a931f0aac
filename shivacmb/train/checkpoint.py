"""Checkpoints of a training: written whole or not at all, read on any backend."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shivacmb.bids import replacing
from shivacmb.exceptions import DataError
from shivacmb.imaging import server_problem

Array = NDArray[Any]

CHECKPOINT = 'checkpoint.npz'


@dataclass
class State:
    """Where a training stands.

    Attributes
    ----------
    model : keras.Model
        Compiled, its optimizer built.
    step : int
        Steps done.
    losses : list of float
        Since the last row of the learning curve.
    seconds : float
        What the training took so far.
    """

    model: Any
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def variables(self) -> list[Any]:
        """Variables of the optimizer, without those that scale the loss in float16."""
        optimizer = self.model.optimizer
        return list(getattr(optimizer, 'inner_optimizer', optimizer).variables)

    @property
    def scaling(self) -> list[Any]:
        """Variables that scale the loss in float16: none in other arithmetic."""
        inner = {id(variable) for variable in self.variables}
        return [v for v in self.model.optimizer.variables if id(v) not in inner]

    def save(self, path: Path) -> None:
        """Write a checkpoint: the new one whole, or the old one as it was.

        Raises
        ------
        DataError
            A weight or the optimizer is not finite any more; the old one stays.
        """
        import keras

        arrays = {f'w{i:03d}': value for i, value in enumerate(self.model.get_weights())}
        arrays |= {
            f'o{i:03d}': keras.ops.convert_to_numpy(value)
            for i, value in enumerate(self.variables)
        }
        arrays |= {
            f's{i:03d}': keras.ops.convert_to_numpy(value) for i, value in enumerate(self.scaling)
        }
        # a gradient may be NaN though the loss, counted before the step, is not
        if not all(np.isfinite(value).all() for value in arrays.values()):
            where = f'continue from <{path}>' if path.exists() else 'begin again'
            raise DataError(
                f'The weights are not finite any more after step {self.step}; {where} with a '
                'lower learning rate, or with --precision float32.'
            )
        with replacing(path) as scratch, scratch.open('wb') as stream:
            np.savez(
                stream,
                step=self.step,
                losses=np.array(self.losses),
                seconds=self.seconds,
                **arrays,
            )
            stream.flush()
            os.fsync(stream.fileno())

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint."""
        try:
            with path.open('rb') as stream, np.load(stream) as saved:
                content = {name: saved[name] for name in saved.files}
            step = int(content['step'])
        except MemoryError:
            raise
        except Exception as error:
            raise_if_server(path, error)
            # zipfile and numpy raise whatever a damaged byte leads them to
            raise DataError(
                f'The checkpoint <{path}> cannot be read ({error}); it was altered or not copied '
                'completely: copy it again, or remove it to begin anew.'
            ) from error
        weights, state = _stored(content, 'w'), _stored(content, 'o')
        if not _same_shapes(weights, self.model.get_weights()) or not _same_shapes(
            state, self.variables
        ):
            raise DataError(
                f'The checkpoint <{path}> belongs to another network; '
                'remove it or give another output folder.'
            )
        self.model.set_weights(weights)
        for variable, value in zip(self.variables, state, strict=True):
            variable.assign(value)
        # after a change of the precision the scale of the loss starts anew
        scale = _stored(content, 's')
        if _same_shapes(scale, self.scaling):
            for variable, value in zip(self.scaling, scale, strict=True):
                variable.assign(value)
        self.step = step
        self.losses = list(content.get('losses', []))
        self.seconds = float(content.get('seconds', 0.0))


def raise_if_server(path: Path, error: Exception) -> None:
    """Raise a TemporaryError where a file server is at fault: nobody should remove the file."""
    problem = server_problem(path, error) if isinstance(error, OSError) else None
    if problem is not None:
        raise problem from error


def _same_shapes(ours: list[Any], theirs: list[Any]) -> bool:
    return [tuple(one.shape) for one in ours] == [tuple(one.shape) for one in theirs]


def _stored(saved: Mapping[str, Array], kind: str) -> list[Array]:
    """Arrays of a kind in the order of their numbers, of which the later have more digits."""
    numbers = {int(name[1:]): name for name in saved if name[0] == kind and name[1:].isdecimal()}
    return [saved[numbers[number]] for number in sorted(numbers)]


def saved_weights(folder: Path) -> tuple[list[Array], int, float]:
    """Read a checkpoint without its network.

    Parameters
    ----------
    folder : Path
        As given to :func:`train`.

    Returns
    -------
    weights : list of ndarray
        In the order of the network.
    step : int
        Steps behind them.
    seconds : float
        What the training took so far.
    """
    with np.load(folder / CHECKPOINT) as saved:
        weights = _stored(saved, 'w')
        seconds = float(saved['seconds']) if 'seconds' in saved.files else 0.0
        return weights, int(saved['step']), seconds
