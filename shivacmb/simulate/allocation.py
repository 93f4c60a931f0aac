"""Memory that is used again instead of being asked for again."""

from __future__ import annotations

import ctypes

# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees, for the rest of its life.

    A simulated head is made by hundreds of arrays of 10 to 200 MB that live for a moment. glibc
    asks the kernel for each of them and gives it back at once, and the kernel clears every page
    each time: a quarter of the processor time of a subject (docs/decisions/0129).

    Returns
    -------
    bool
        Whether it was done; other C libraries have no such setting, or do so by themselves.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # one arena: the others are too small for such arrays; -1: give nothing back
    values = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in values)
