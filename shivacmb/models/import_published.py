"""Import the ``model_info_*.json`` descriptors of SHIVA_CMB and SHiVAi.

They name files or SavedModel folders with their MD5, the target and the modalities; grid and
contrast are not in them, so a preset says those.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import ModelError
from shivacmb.models.checksums import md5_of, sha256_of
from shivacmb.models.descriptor import check_name, is_inside, read_json
from shivacmb.models.network_shape import own_shape
from shivacmb.models.presets import preset
from shivacmb.models.published import PUBLISHED_MD5
from shivacmb.models.safety import require_safe
from shivacmb.models.write import fold_format

if TYPE_CHECKING:
    from collections.abc import Sequence

_TARGETS = {'CMB': 'CMB', 'brain_mask': 'brain'}
_CONTRASTS = {
    # the networks take T2*-GRE too (README of SHIVA_CMB)
    'swi': ['swi', 'T2starw'],
    't2s': ['T2starw', 'swi'],
    't1': ['T1w'],
    'flair': ['FLAIR'],
    't2': ['T2w'],
}
_LICENSE = 'CC-BY-NC-SA-4.0'
_CITATION = (
    'Tsuchida A, et al. SHIVA-CMB: a deep-learning-based robust cerebral microbleed segmentation '
    'tool trained on multi-source T2*GRE- and susceptibility-weighted MRI. Sci Rep 2024;14:30901. '
    'doi:10.1038/s41598-024-81870-5'
)


def is_descriptor(content: object) -> bool:
    """Tell whether parsed JSON is a descriptor of that kind."""
    return isinstance(content, dict) and isinstance(content.get('files'), list)


def read_descriptor(
    file: Path, *, name: str | None, preset_name: str | None, trust_model: bool
) -> tuple[dict[str, Any], list[Path]]:
    """Check a descriptor and the files that it names.

    Parameters
    ----------
    file : Path
        The descriptor, beside its files.
    name : str, optional
        Name of the new bundle; made from the descriptor's own when not given.
    preset_name : {'shiva-paper', 'shivai'}, optional
        Grid, intensity and postprocessing; ``shiva-paper`` when not given. The grid of a network
        of fixed size is the network's own.
    trust_model : bool
        Allow code in the files.

    Returns
    -------
    metadata : dict
        For :func:`shivacmb.models.write_bundle`.
    folds : list of Path
        Verified files and folders.

    Raises
    ------
    ModelError
        A file is missing, altered or unsafe, or the descriptor is for something else.
    """
    content = read_json(file)
    if not is_descriptor(content):
        msg = f'<{file}> is no model description: it has neither "folds" nor "files"'
        raise ModelError(msg)
    if 'script' in content:
        msg = f'<{file}> wants a Python script to be run; that is never done here'
        raise ModelError(msg)
    target = _TARGETS.get(str(content.get('target')))
    if target is None:
        msg = f'<{file}> is a model for {content.get("target")!r}, not for CMB or brain_mask'
        raise ModelError(msg)
    folds = _verified(file, content['files'])
    for fold in folds:
        require_safe(fold, fold_format(fold), trust_model=trust_model)
    recipe = preset(preset_name or 'shiva-paper')
    inputs = _inputs(file, content.get('modalities'))
    shape = own_shape(folds[0], fold_format(folds[0]))
    if shape is not None:
        recipe['grid']['shape'] = list(shape[:3])
    published = all(md5_of(fold) in PUBLISHED_MD5 for fold in folds)
    version = str(content.get('version', ''))
    metadata = {
        'name': check_name(name or _default_name(file, version)),
        'version': version,
        'description': (
            f'{content.get("target")} model by {content.get("author", "unknown authors")}, '
            f'released {content.get("release date") or "at an unknown date"}; imported from '
            f'{file.name}'
        ),
        'license': str(content.get('license', _LICENSE if published else 'not stated')),
        'citation': _CITATION if published else '',
        'url': str(content.get('url', '')),
        'intended_use': 'Research only; not for clinical purposes.',
        'target': target,
        'architecture': {'family': 'published', 'name': str(content.get('architecture', ''))},
        'inputs': inputs,
        'classes': [{'value': 1, 'name': target}],
        **recipe,
    }
    return metadata, folds


def _inputs(file: Path, modalities: object) -> list[dict[str, Any]]:
    if (
        not isinstance(modalities, list)
        or not modalities
        or not all(isinstance(item, str) and item in _CONTRASTS for item in modalities)
    ):
        msg = f'<{file}>: modalities must be a list of {", ".join(_CONTRASTS)}, not {modalities}'
        raise ModelError(msg)
    return [{'name': modality, 'contrasts': _CONTRASTS[modality]} for modality in modalities]


def _default_name(file: Path, version: str) -> str:
    stem = re.sub(r'^model_info_?', '', file.stem)
    return stem or f'{file.absolute().parent.name}-{version}'.strip('-')


def _verified(file: Path, entries: Sequence[object]) -> list[Path]:
    folds = []
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get('name'), str)
            or not isinstance(entry.get('md5'), str)
            or not is_inside(entry['name'])
        ):
            msg = f'<{file}>: each of "files" needs a "name" inside its folder and an "md5"'
            raise ModelError(msg)
        folds.append(_locate(file.absolute(), Path(entry['name'])))
        if md5_of(folds[-1]) != entry['md5'].lower():
            msg = (
                f'<{folds[-1]}> is not the file that <{file}> describes (MD5 is not '
                f'{entry["md5"]}); download it again'
            )
            raise ModelError(msg)
    if not folds:
        msg = f'<{file}> names no files'
        raise ModelError(msg)
    if len(set(folds)) != len(folds):
        msg = f'<{file}> names a file twice'
        raise ModelError(msg)
    return folds


def _locate(file: Path, name: Path) -> Path:
    """Find a fold: beside the descriptor, or where SHiVAi repeats the folder's name.

    ``v1/x.h5`` may lie in ``v1`` beside the descriptor, or the descriptor in ``v1`` itself, or
    both may have been put into one folder without the ``v1``.
    """
    base = file.parent
    candidates = [base / name, base.parent / name]
    candidates += [base.joinpath(*name.parts[skip:]) for skip in range(1, len(name.parts))]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    msg = f'<{file}> names {name.as_posix()!r}, which is not beside it; put its files there'
    raise ModelError(msg)


def archive_of(file: Path) -> Path | None:
    """Return the zip beside a descriptor that has the SHA-256 given in it, if there is one."""
    content = read_json(file)
    expected = content.get('sha256_zip') if isinstance(content, dict) else None
    if isinstance(expected, str):
        for candidate in sorted(file.absolute().parent.glob('*.zip')):
            if sha256_of(candidate) == expected.lower():
                return candidate
    return None
