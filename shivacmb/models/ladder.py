"""What to do when memory runs out: the same on less, then elsewhere, then say so.

A rung is one way to run all folds of a bundle. When memory runs out on one, its networks are
dropped and the scan is tried on the next: on a GPU all folds together, then fold by fold, then the
CPU. Every rung computes the same numbers within 1e-3. docs/decisions/0110.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from shivacmb.exceptions import ModelError, ShivaCMBError, TemporaryError
from shivacmb.models.gpu_turn import gpu_turn
from shivacmb.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from shivacmb.models.bundle import Bundle
    from shivacmb.models.ensemble import Engine

    Turn = Callable[[str], AbstractContextManager[None]]

T = TypeVar('T')
#: Before a second try on a GPU: what another program holds there is often given back soon.
GPU_PAUSE_S = 5.0


@dataclasses.dataclass(frozen=True)
class Rung:
    """One way to run a bundle.

    Attributes
    ----------
    label : str
        For messages, such as 'the GPU, fold by fold'.
    device : {'gpu', 'cpu'}
        Where it computes.
    make : callable
        Loads the networks.
    pause_s : float
        Seconds to wait before it is tried.
    """

    label: str
    device: str
    make: Callable[[], Engine]
    pause_s: float = 0.0


class Ladder:
    """An engine that steps down when memory runs out, and stays there.

    Parameters
    ----------
    rungs : sequence of Rung
        The first is loaded at once.
    turn : callable
        Context in which a device may be used; by default runs take turns on a GPU.

    Raises
    ------
    TemporaryError
        Memory ran out on every rung, or a GPU was not free in time.
    ShivaCMBError
        The first rung cannot be loaded for another reason.
    """

    def __init__(self, rungs: Sequence[Rung], turn: Turn = gpu_turn) -> None:
        self._rungs = tuple(rungs)
        self._turn = turn
        self._at = 0
        self._engine: Engine | None = None
        self._lost: list[str] = []
        self._work(lambda engine: engine)

    @property
    def name(self) -> str:
        """Return the library in use."""
        return self._loaded.name

    @property
    def device(self) -> str:
        """Return ``cpu`` or ``gpu``."""
        return self._loaded.device

    @property
    def version(self) -> str:
        """Return the library's version."""
        return self._loaded.version

    @property
    def precision(self) -> str:
        """Return the arithmetic."""
        return self._loaded.precision

    @property
    def note(self) -> str:
        """Return why it does not run as it was asked to; '' when it does."""
        if not self._lost:
            return ''
        return f'memory ran out on {", ".join(self._lost)}; ran on {self._rungs[self._at].label}'

    @property
    def _loaded(self) -> Engine:
        if self._engine is None:
            self._work(lambda engine: engine)
        if self._engine is None:  # _work raises where it cannot load
            msg = 'no network is loaded'
            raise ModelError(msg)
        return self._engine

    def predict(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run every fold on [1, X, Y, Z, C]; see :class:`shivacmb.models.ensemble.Engine`.

        Raises
        ------
        TemporaryError
            Memory ran out on every rung. The next scan starts on the first again.
        """
        return self._work(lambda engine: engine.predict(image))

    def release(self) -> None:
        """Give back the memory that only a prediction needs."""
        if self._engine is not None:
            self._engine.release()

    def close(self) -> None:
        """Drop the networks."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        gc.collect()

    def _work(self, work: Callable[[Engine], T]) -> T:
        while True:
            rung = self._rungs[self._at]
            try:
                with self._turn(rung.device):
                    if self._engine is None:
                        self._engine = rung.make()
                    return work(self._engine)
            except Exception as error:
                if not is_out_of_memory(error):
                    if isinstance(error, ShivaCMBError) and self._lost and self._engine is None:
                        raise self._given_up(f'; {rung.label} cannot take over: {error}') from None
                    raise
            # outside the except clause, whose traceback would keep the arrays
            self.close()
            self._lost.append(rung.label)
            if self._at + 1 == len(self._rungs):
                raise self._given_up('')
            self._at += 1
            time.sleep(self._rungs[self._at].pause_s)

    def _given_up(self, why: str) -> TemporaryError:
        """Make the message, and start from the top with the next scan: memory may be back."""
        tried = ', then on '.join(self._lost)
        self._lost, self._at = [], 0
        return TemporaryError(
            f'memory ran out while predicting on {tried}{why}; close other programs, run fewer '
            'scans at once, or give the job more memory, and run the same command again'
        )


class FoldByFold:
    """An engine that holds one network at a time, loading each for every scan.

    Slow, but it needs the memory of one fold. To be used where the folds together did not fit.

    Parameters
    ----------
    bundle : Bundle
        The model.
    make : callable
        Engine for a bundle of one fold.
    """

    def __init__(self, bundle: Bundle, make: Callable[[Bundle], Engine]) -> None:
        self._parts = [dataclasses.replace(bundle, folds=(fold,)) for fold in bundle.folds]
        self._make = make
        first = make(self._parts[0])
        self.name, self.device = first.name, first.device
        self.version, self.precision = first.version, first.precision
        first.close()

    def predict(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run every fold on [1, X, Y, Z, C], one network after the other."""
        folds = []
        for part in self._parts:
            engine = self._make(part)
            try:
                # a copy, because engines may hand out their own buffers
                folds.append(engine.predict(image)[0].copy())
            finally:
                engine.close()
                del engine
                gc.collect()
        return folds

    def release(self) -> None:
        """Do nothing: no network is held."""

    def close(self) -> None:
        """Hold nothing between scans, so that there is nothing to drop."""
