"""Write a bundle in the forms that other programs read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import ModelError, OutputError
from shivacmb.models.bundle import MODEL_FILE
from shivacmb.models.checksums import md5_of
from shivacmb.models.networks import export_savedmodel, load_network
from shivacmb.models.portable import write_portable
from shivacmb.models.safety import require_safe
from shivacmb.models.write import copy_savedmodel, staged
from shivacmb.paths import expand_home

if TYPE_CHECKING:
    from pathlib import Path

    from shivacmb.models.bundle import Bundle

EXPORTS = ('shivai', 'savedmodel')
DESCRIPTOR = 'model_info.json'
KERAS_DESCRIPTOR = 'model_info_keras.json'
_MODALITIES = {'swi': 'swi', 'T2starw': 'swi', 'T1w': 't1', 'FLAIR': 'flair', 'T2w': 't2'}


def export_bundle(
    bundle: Bundle,
    to: str,
    out_dir: str | Path,
    *,
    overwrite: bool = False,
    trust_model: bool = False,
) -> Path:
    """Export a bundle; needs TensorFlow unless all its folds are SavedModels.

    Parameters
    ----------
    bundle : Bundle
        Verified here.
    to : {'shivai', 'savedmodel'}
        ``savedmodel``: one SavedModel folder per fold, with the signature ``serving_default``.
        ``shivai``: the same with the descriptor ``model_info.json`` that SHiVAi's pipeline
        (``shiva_predict_multi``, 0.5.9) takes; and, from folds in Keras format, ``.keras`` files
        with ``model_info_keras.json``, which ``shiva_predict`` takes too. The latter cannot run
        any SavedModel (``docs/decisions/0023-export-to-shivai.md``).
    out_dir : path
        A folder named like the bundle is made in it.
    overwrite : bool
        Replace that folder.
    trust_model : bool
        Allow code in the folds' files.

    Returns
    -------
    Path
        The folder made.

    Raises
    ------
    ModelError
        A fold is missing, altered or unsafe, or TensorFlow is needed and not installed.
    OutputError
        The folder exists, holds a model or cannot be written.
    UsageError
        The path begins with the home folder of nobody.
    """
    if to not in EXPORTS:
        msg = f'there is no export {to!r}; choose one of {", ".join(EXPORTS)}'
        raise ModelError(msg)
    target = expand_home(out_dir) / bundle.name
    # an installed model may hold SavedModels too, and an export lacks most of what model.json says
    if (target / MODEL_FILE).exists():
        msg = f'<{target}> is a model and is not replaced by an export; give another folder'
        raise OutputError(msg)
    marks = (DESCRIPTOR, 'fold-0.savedmodel')
    with staged(target, overwrite=overwrite, marks=marks) as staging:
        folders, files = [], []
        for index, fold in enumerate(bundle.folds):
            bundle.verify_fold(fold)
            source = bundle.fold_path(fold)
            require_safe(source, fold.format, trust_model=trust_model)
            folder = staging / f'fold-{index}.savedmodel'
            if fold.format == 'savedmodel':
                copy_savedmodel(source, folder)
            else:
                network = load_network(source, fold.format, float32=True, trust_model=trust_model)
                export_savedmodel(network, folder)
            folders.append(folder)
            if to == 'shivai' and fold.format == 'keras':
                files.append(staging / f'fold-{index}.keras')
                write_portable(source, files[-1])
        if to == 'shivai':
            _describe(bundle, folders, staging / DESCRIPTOR)
            if len(files) == len(bundle.folds):
                _describe(bundle, files, staging / KERAS_DESCRIPTOR)
    return target


def _describe(bundle: Bundle, items: list[Path], file: Path) -> None:
    modalities = []
    for entry in bundle.inputs:
        known = [_MODALITIES[name] for name in entry.contrasts if name in _MODALITIES]
        if not known:
            msg = f'SHiVAi has no modality for the input {entry.name!r} of <{bundle.path}>'
            raise ModelError(msg)
        modalities.append(known[0])
    content: dict[str, Any] = {
        'version': bundle.version,
        'release date': '',
        'author': 'shivacmb',
        'url': bundle.url,
        'license': bundle.license,
        'target': 'brain_mask' if bundle.target == 'brain' else bundle.target,
        'modalities': modalities,
        # SHiVAi looks for them below its folder of models, or below this one
        'files': [{'name': f'{bundle.name}/{item.name}', 'md5': md5_of(item)} for item in items],
    }
    file.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
