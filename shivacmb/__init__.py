"""Find, count, place and report cerebral microbleeds on T2*-GRE and SWI MRI."""

from __future__ import annotations

try:
    from shivacmb._version import __version__
except ImportError:  # a checkout that was never built
    __version__ = '0.1.0.dev0'

__all__ = ['__version__']
