"""What to say where a side has no file of a class."""

from __future__ import annotations

import re
from pathlib import Path

from shivacmb.evaluate.folders import files_below

_MAP = re.compile(r'_((?:desc|label)-[^_.]+_(?:dseg|mask))\.nii(?:\.gz)?$')
_MANY = 4


def option(side: str) -> str:
    """First half of the options of a side."""
    return 'truth' if side == 'truth' else 'pred'


def nothing_found(root: Path, side: str, class_name: str, pattern: str | None) -> str:
    """Name the class that is missing, what was looked for, and the maps that there are instead.

    Parameters
    ----------
    root : Path
        Folder that was searched.
    side : str
        ``predictions`` or ``truth``.
    class_name : str
        Of the lesions.
    pattern : str or None
        Glob, if one was given.
    """
    looked = pattern or (
        f'the names of BIDS derivatives (desc-{class_name}_dseg, label-{class_name}_mask, ...)'
    )
    said = f'No {side} in <{root}> for the class {class_name}: nothing matches {looked}. '
    # a folder that a pattern passes over may be one that cannot be listed
    matched = (_MAP.search(path.name) for path in ([] if pattern else files_below(root)))
    others = sorted({match[1] for match in matched if match}, key=lambda name: (name[-4:], name))
    if not others:
        return f'{said}Give --{option(side)}-pattern, for example "**/*_lesions.nii.gz"'
    there = ', '.join(others[:_MANY]) + (', ...' if len(others) > _MANY else '')
    return (
        f'{said}There is {there}. Where one of them is meant, or holds this class beside others '
        f'as a value of its own, name it, for example --{option(side)}-pattern '
        f'"**/*_{others[0]}.nii*", and give the values, as in --classes CMB=1 iron=2'
    )
