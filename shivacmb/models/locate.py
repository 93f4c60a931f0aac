"""Where bundles are kept and how a name becomes one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from shivacmb.exceptions import ModelError, UsageError
from shivacmb.models.bundle import MODEL_FILE
from shivacmb.models.descriptor import load_bundle
from shivacmb.paths import expand_home

if TYPE_CHECKING:
    from shivacmb.models.bundle import Bundle

ENVIRONMENT = 'SHIVACMB_MODELS'
SHIPPED = Path(__file__).parent / 'bundles'

DEFAULT = 'default'
DEFAULT_MODEL = 'synth-cmb'


def _platform_folder(xdg: str, linux: str, mac: str) -> Path:
    base = os.environ.get(xdg, '')
    try:
        if sys.platform == 'darwin':
            return Path.home() / 'Library' / mac / 'shivacmb'
        # a relative XDG path is to be ignored (XDG base directory specification 0.8)
        root = Path(base) if Path(base).is_absolute() else Path.home() / linux
    except RuntimeError as error:
        msg = f'your home folder is not known here; set HOME or {xdg} to a folder'
        raise ModelError(msg) from error
    return root / 'shivacmb'


def user_models_dir() -> Path:
    """Return the folder in which ``models add`` installs when none is named."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return expand_home(named)
    return _platform_folder('XDG_DATA_HOME', '.local/share', 'Application Support') / 'models'


def user_cache_dir() -> Path:
    """Return the folder for converted networks; it can be deleted at any time."""
    return _platform_folder('XDG_CACHE_HOME', '.cache', 'Caches') / 'openvino'


def search_path(models_dir: str | Path | None = None) -> list[Path]:
    """Return the folders searched for bundles: ``models_dir``, the user's, the shipped."""
    places = [user_models_dir(), SHIPPED]
    if models_dir is None:
        return places
    named = expand_home(models_dir)
    # another model of that name elsewhere is not the one that was meant
    if not named.is_dir():
        raise UsageError(
            f'<{named}> (--models-dir) is no folder; mend the path, or leave it out to look in '
            f'<{places[0]}> and among the shipped models'
        )
    return [named, *places]


def bundle_folders(models_dir: str | Path | None = None) -> dict[str, Path]:
    """Return the folders that hold a ``model.json``, by folder name; the first place wins."""
    found: dict[str, Path] = {}
    for place in search_path(models_dir):
        if place.is_dir():
            for folder in sorted(place.iterdir()):
                # hidden folders are installations that were interrupted
                if not folder.name.startswith('.') and _may_be_a_bundle(folder):
                    found.setdefault(folder.name, folder)
    return found


def _may_be_a_bundle(folder: Path) -> bool:
    try:
        return (folder / MODEL_FILE).is_file()
    except PermissionError:
        # somebody's own: who asks for it is told so, and nobody gets another one of its name
        return True


def load_listed(folder: Path) -> tuple[Bundle | None, str]:
    """Return a bundle, or None and what is wrong with it, so that a list shows the others."""
    try:
        return load_bundle(folder), ''
    except ModelError as error:
        return None, str(error)


def list_bundles(models_dir: str | Path | None = None) -> list[Bundle]:
    """Return every installed bundle, in the order of :func:`search_path`, then by name.

    Parameters
    ----------
    models_dir : path, optional
        A folder of bundles to search first.

    Returns
    -------
    list of Bundle

    Raises
    ------
    ModelError
        A ``model.json`` is broken.
    UsageError
        ``models_dir`` is no folder.
    """
    return [load_bundle(folder) for folder in bundle_folders(models_dir).values()]


def find_bundle(name_or_path: str | Path, models_dir: str | Path | None = None) -> Bundle:
    """Return the bundle of that name, or in that folder.

    Parameters
    ----------
    name_or_path : str or Path
        The name of an installed bundle, ``default`` for the shipped one, or a path to a folder
        with ``model.json``. A text without a path separator is looked up as a name first.
    models_dir : path, optional
        A folder of bundles to search before the user's and the shipped ones.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        There is none, or its ``model.json`` is broken.
    UsageError
        ``models_dir`` is no folder, or the path begins with the home folder of nobody.
    """
    if name_or_path == DEFAULT:
        name_or_path = DEFAULT_MODEL
    text = str(name_or_path)
    folders = bundle_folders(models_dir)
    if isinstance(name_or_path, str) and text in folders:
        return load_bundle(folders[text])
    path = expand_home(name_or_path)
    if path.exists():
        return load_bundle(path)
    places = ', '.join(f'<{place}>' for place in search_path(models_dir))
    known = ', '.join(sorted(folders)) or 'none'
    msg = (
        f'there is no model {text!r}: it is no folder, and {places} hold: {known}; '
        'add one with "shivacmb-tools models add"'
    )
    raise ModelError(msg)
