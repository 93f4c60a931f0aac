"""Find, count, place and report cerebral microbleeds on T2*-GRE and SWI MRI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shivacmb.detection import Detected, detect

try:
    from shivacmb._version import __version__
except ImportError:  # a checkout that was never built
    __version__ = '0.1.0.dev0'

__all__ = ['Detected', '__version__', 'detect']


def __getattr__(name: str) -> Any:
    """Import ``detect`` when it is first asked for: the command line must start at once."""
    if name in ('detect', 'Detected'):
        from shivacmb import detection

        return getattr(detection, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
