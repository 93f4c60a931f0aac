"""The same bytes on any number of processors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec('P')
T = TypeVar('T')


def one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its matrix products run in one thread.

    OpenBLAS cuts a large product into as many parts as there are threads, and the last bit of a
    sum depends on where it is cut.

    Parameters
    ----------
    function : callable
        Any.

    Returns
    -------
    callable
        The same with that limit.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        with threadpool_limits(limits=1, user_api='blas'):
            return function(*args, **kwargs)

    return limited
