"""Ask pybids what the names of a few files say, without letting it walk the dataset.

A ``BIDSLayout`` indexes everything below its root and stats every entry several times on the way.
So pybids gets names alone (docs/decisions/0030).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shivacmb.exceptions import UsageError


def read_entities(files: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return pybids' reading of NIfTI names.

    Parameters
    ----------
    files
        Pairs of datatype folder (``anat``, ``swi``) and file name. No other part of a path is
        shown to pybids, which would take entities from the names of folders above the file.

    Returns
    -------
    dict
        For each pair the entities under pybids' long names.

    Raises
    ------
    UsageError
        When a file of settings of pybids cannot be read.
    """
    wanted = sorted(set(files))
    if not wanted:
        return {}
    config, parse = _pybids()
    entities = list(config.load('bids').entities.values())
    return {
        (datatype, name): parse(f'/{datatype}/{name}', entities=entities)
        for datatype, name in wanted
    }


def _pybids() -> tuple[Any, Any]:
    """Import pybids as it comes: settings of its own in the user's home must not change names."""
    try:
        from bids import config
        from bids.layout import Config, parse_file_entities
    except (ValueError, OSError) as error:
        raise UsageError(
            f'pybids cannot read its settings ({error}): mend or remove pybids_config.json in '
            'your home and in the present folder'
        ) from error
    config.reset_options()
    return Config, parse_file_entities
