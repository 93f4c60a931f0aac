"""Import OpenVINO without its telemetry.

``import openvino`` sends a usage event to Google Analytics unless the user has opted out
(``openvino_telemetry``; checked in 2026.4). A program that handles patients' scans opens no
connection, so the optional telemetry package is hidden during the import, upon which OpenVINO
falls back to its own empty stand-in. ``docs/decisions/0022-openvino-without-telemetry.md``.
"""

from __future__ import annotations

import sys
from typing import Any

from shivacmb.exceptions import ModelError

_TELEMETRY = 'openvino_telemetry'


def import_openvino() -> Any:
    """Return the ``openvino`` module, its telemetry left out.

    Raises
    ------
    ModelError
        OpenVINO is not installed or does not load.
    """
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        msg = (
            f'the engine "openvino" cannot be loaded ({error}); '
            'install it with `pip install openvino`'
        )
        raise ModelError(msg) from error
    finally:
        if hidden:
            # another thread that loads a network may have been here first
            sys.modules.pop(_TELEMETRY, None)
    return openvino
