"""What a processor computes fast."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path('/proc/cpuinfo')
#: Instructions for products in bfloat16: x86 with AVX-512 or AMX, and Arm.
BFLOAT16 = frozenset({'avx512_bf16', 'amx_bf16', 'bf16'})


def cpuinfo(*keys: str) -> str | None:
    """Return the first value that Linux tells of the processor under one of these names.

    Parameters
    ----------
    *keys : str
        Such as 'model name'.

    Returns
    -------
    str or None
        None on other systems, and where it says nothing of the kind.
    """
    try:
        lines = CPUINFO.read_text('utf-8').splitlines()
    except OSError:
        return None
    pairs = (line.split(':', 1) for line in lines if ':' in line)
    return next((value.strip() for key, value in pairs if key.strip() in keys), None)


def processor_name() -> str:
    """Return the name of the processor, or of its kind where nothing says more."""
    return cpuinfo('model name') or platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16.

    Where it has none, TensorFlow emulates them, and a step of the shipped detector took 20 s
    instead of 0.9 s in float32 (docs/decisions/0129).

    Returns
    -------
    bool
        False where the system does not say.
    """
    return not BFLOAT16.isdisjoint((cpuinfo('flags', 'Features') or '').split())


def ask_for_onednn() -> None:
    """Have TensorFlow use oneDNN; to be called before it is imported.

    On processors without AVX-512 VNNI it does not by itself, though a step of training takes less
    than half as long with it there. What ``TF_ENABLE_ONEDNN_OPTS`` says already stays.
    """
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
