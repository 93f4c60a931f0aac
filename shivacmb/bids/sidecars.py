"""Sidecar metadata by the inheritance principle of BIDS, read only where a scan needs it.

BIDS specification, common principles: a JSON file applies to every image at its level or below
whose suffix is the same and whose entities include all of its own; the nearer file wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shivacmb.exceptions import DataError
from shivacmb.placeholders import placeholder


def split_name(name: str) -> tuple[dict[str, str], str, list[str]]:
    """Split a BIDS name without extension.

    Returns
    -------
    pairs
        Short entity keys and values as written.
    suffix
        The last word, empty when the name ends with an entity.
    odd
        Words in the middle that are no entity.
    """
    pairs: dict[str, str] = {}
    odd: list[str] = []
    words = name.split('_')
    suffix = '' if '-' in words[-1] else words.pop()
    for word in words:
        key, dash, value = word.partition('-')
        if dash and key and value and key not in pairs:
            pairs[key] = value
        else:
            odd.append(word)
    return pairs, suffix, odd


class SidecarReader:
    """Merge the sidecars of images, opening each file once."""

    def __init__(self) -> None:
        self._read: dict[Path, dict[str, Any] | str] = {}

    def _load(self, path: Path) -> dict[str, Any]:
        if path not in self._read:
            self._read[path] = _read_json(path)
        value = self._read[path]
        if isinstance(value, str):
            raise DataError(value)
        return value

    def merged(
        self,
        levels: Sequence[tuple[Path, Sequence[str]]],
        pairs: Mapping[str, str],
        suffix: str,
    ) -> dict[str, Any]:
        """Return the metadata of one image.

        Parameters
        ----------
        levels
            Folders from the root down to the image's own, each with the names of its files.
        pairs, suffix
            Entities and suffix of the image.

        Raises
        ------
        DataError
            When a file that applies cannot be read, naming it.
        """
        metadata: dict[str, Any] = {}
        for folder, names in levels:
            applying = []
            for name in names:
                if not name.endswith('.json'):
                    continue
                own, own_suffix, odd = split_name(name[:-5])
                if not odd and own_suffix == suffix and own.items() <= pairs.items():
                    applying.append((len(own), name))
            for _, name in sorted(applying):
                metadata.update(self._load(folder / name))
        return metadata


def _read_json(path: Path) -> dict[str, Any] | str:
    """Content of a sidecar, or the sentence that says why it cannot be had."""
    raw = b''
    try:
        raw = path.read_bytes()
        content = json.loads(raw.decode('utf-8-sig'))
    except FileNotFoundError:
        return (
            f'sidecar <{path}> is a link to a file that is not here: fetch it '
            '(for example with "datalad get") or remove the link'
        )
    except (OSError, ValueError, RecursionError) as error:
        # ValueError: no UTF-8, no JSON, or a number of thousands of digits
        said = f'sidecar <{path}> cannot be read ({error}): mend or remove it'
        return str(placeholder(path, raw) or said)
    if not isinstance(content, dict):
        return f'sidecar <{path}> does not hold a JSON object: mend or remove it'
    return content
