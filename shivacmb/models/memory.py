"""Memory: whether it ran out, whichever library says so; and giving back what is free.

Each library has its own words: TensorFlow raises ResourceExhaustedError, or InternalError with the
driver's CUDA_ERROR_OUT_OF_MEMORY; cuDNN and cuBLAS report STATUS_ALLOC_FAILED; PyTorch has
OutOfMemoryError; JAX says RESOURCE_EXHAUSTED; OpenVINO passes on C++'s bad_alloc as RuntimeError.
"""

from __future__ import annotations

import contextlib
import ctypes
import re

_NAMES = frozenset({'ResourceExhaustedError', 'OutOfMemoryError'})
_WORDS = re.compile(
    r'out[ _]of[ _]memory|bad_?alloc|cannot allocate memory|failed to allocate|'
    r'could not allocate|not enough memory|resource[ _]exhausted|OOM when allocating|'
    r'STATUS_ALLOC_FAILED|Dst tensor is not initialized',
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether an error, or what it was raised from, means that memory ran out.

    Parameters
    ----------
    error : BaseException or None
        As a library raised it.
    """
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ in _NAMES:
            return True
        if _WORDS.search(str(error)):
            return True
        error = error.__cause__
    return False


def give_back_memory() -> None:
    """Return freed memory to the system; glibc keeps it for this process, other programs wait."""
    with contextlib.suppress(AttributeError):  # other C libraries have no such call
        ctypes.CDLL(None).malloc_trim(0)
