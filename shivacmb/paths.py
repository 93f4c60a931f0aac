"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path

from shivacmb.exceptions import UsageError


def expand_home(path: str | Path) -> Path:
    """Return a path with the ``~`` or ``~name`` at its beginning replaced.

    The shell leaves it as it is in ``--option=~/folder`` and in quotes.

    Parameters
    ----------
    path : str or Path
        As typed.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        Nobody of that name has a home folder here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f'<{path}> begins with a home folder that is not known here; give the whole path'
        ) from error
