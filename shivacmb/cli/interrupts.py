"""Ctrl-C and SIGTERM, remembered: nipype takes what they raise within a node for its failure."""

from __future__ import annotations

import signal
from typing import Any, NoReturn


class Terminated(BaseException):
    """SIGTERM, as a cluster sends it: leave through the same doors as an exception."""


_received: list[type[BaseException]] = []


def listen() -> None:
    """Turn both signals into exceptions from now on."""
    _received.clear()
    signal.signal(signal.SIGTERM, _on_sigterm)
    # A shell that starts a job in the background has it ignore Ctrl-C
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _on_sigint)


def raise_received() -> None:
    """Raise again what a signal raised, if one came and somebody swallowed it."""
    if _received:
        raise _received[0]


def _on_sigterm(_signal: int, _frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _received.append(Terminated)
    raise Terminated


def _on_sigint(_signal: int, _frame: Any) -> NoReturn:
    _received.append(KeyboardInterrupt)
    raise KeyboardInterrupt
