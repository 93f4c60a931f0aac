"""Install and remove bundles."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from shivacmb.exceptions import ModelError, OutputError
from shivacmb.models.archives import unpack
from shivacmb.models.bundle import MODEL_FILE, Bundle, Fold
from shivacmb.models.checksums import md5_of, sha256_of
from shivacmb.models.convert import convert_apart, network_shape
from shivacmb.models.descriptor import check_name, load_bundle, parse_bundle, read_json
from shivacmb.models.import_published import archive_of, is_descriptor, read_descriptor
from shivacmb.models.locate import DEFAULT, SHIPPED, user_models_dir
from shivacmb.models.networks import has_tensorflow
from shivacmb.models.presets import preset
from shivacmb.models.safety import require_safe
from shivacmb.models.write import (
    copy_fold,
    fold_format,
    openvino_entry,
    staged,
    write_description,
)
from shivacmb.paths import expand_home

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = logging.getLogger('shivacmb.models')


def add_model(
    source: str | Path,
    *,
    name: str | None = None,
    preset_name: str | None = None,
    models_dir: str | Path | None = None,
    overwrite: bool = False,
    trust_model: bool = False,
) -> Bundle:
    """Install a model.

    Parameters
    ----------
    source : path
        A bundle's folder, a folder with a published descriptor (``model_info*.json``), such a
        descriptor, or a zip file that holds one of these.
    name : str, optional
        Name to install it under.
    preset_name : {'shiva-paper', 'shivai'}, optional
        Recipe; replaces that of a bundle, or completes a descriptor.
    models_dir : path, optional
        Where to; the user's folder (:func:`user_models_dir`) when not given.
    overwrite : bool
        Replace a model of that name.
    trust_model : bool
        Allow code in the files.

    Returns
    -------
    Bundle
        As installed: complete, or not at all.

    Raises
    ------
    ModelError
        A file is missing, altered or unsafe, or ``source`` is nothing of the above.
    OutputError
        The name is taken, or the folder cannot be written.
    UsageError
        A path begins with the home folder of nobody.
    """
    path = expand_home(source)
    if not path.exists():
        msg = f'<{path}> does not exist'
        raise ModelError(msg)
    with tempfile.TemporaryDirectory(prefix='shivacmb-add-') as scratch:
        description = _description(path, Path(scratch))
        bundle = _described(description, name, preset_name, trust_model=trust_model)
        folder = expand_home(models_dir) if models_dir is not None else user_models_dir()
        # `--model default` is the shipped one, whatever is installed
        if bundle.name == DEFAULT or (SHIPPED / bundle.name).exists():
            msg = f'the name {bundle.name!r} belongs to a shipped model; choose one with --name'
            raise OutputError(msg)
        target = folder / bundle.name
        with staged(target, overwrite=overwrite) as staging:
            folds = tuple(
                _install_fold(bundle, index, staging, trust_model=trust_model)
                for index in range(len(bundle.folds))
            )
            installed = dataclasses.replace(bundle, path=target, folds=folds)
            write_description(installed, staging)
            # a published descriptor has no card; what lies about it is not the model's
            if description.name == MODEL_FILE:
                for card in bundle.path.glob('*.md'):
                    shutil.copyfile(card, staging / card.name)
            if bundle.atlas is not None:
                shutil.copyfile(bundle.atlas[0], staging / bundle.atlas[0].name)
                dataclasses.replace(installed, path=staging).verify()
    return load_bundle(target)


def _description(path: Path, scratch: Path) -> Path:
    """Return the ``model.json`` or published descriptor that ``path`` stands for."""
    if path.is_file() and path.suffix.lower() == '.zip':
        # a descriptor without a name of its own is called after its folder
        scratch = _made(scratch / path.stem)
        unpack(path, scratch)
        path = scratch
    if path.is_dir():
        found = sorted(_descriptions(path))
        if len(found) != 1:
            names = ', '.join(item.name for item in found) or 'none'
            msg = (
                f'<{path}> must hold one {MODEL_FILE} or one model_info*.json, but holds {names}; '
                'name the one to install'
            )
            raise ModelError(msg)
        return found[0]
    if path.suffix.lower() != '.json':
        msg = f'<{path}> is no model: give a folder, a zip file, or a model_info*.json'
        raise ModelError(msg)
    if path.name != MODEL_FILE and (archive := archive_of(path)) is not None:
        scratch = _made(scratch / path.absolute().parent.name)
        unpack(archive, scratch)
        shutil.copyfile(path, scratch / path.name)
        return scratch / path.name
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _descriptions(folder: Path) -> Iterator[Path]:
    own = [item for item in folder.rglob(MODEL_FILE) if item.is_file()]
    if own:
        yield from own
        return
    for item in folder.rglob('*.json'):
        # macOS puts a file of attributes, ._NAME, beside each file of its archives
        if item.name.startswith('.'):
            continue
        if item.is_file() and item.stat().st_size < 1 << 20 and is_descriptor(read_json(item)):
            yield item


def _described(
    description: Path, name: str | None, preset_name: str | None, *, trust_model: bool
) -> Bundle:
    if description.name != MODEL_FILE:
        metadata, paths = read_descriptor(
            description, name=name, preset_name=preset_name, trust_model=trust_model
        )
        root = description.absolute().parent
        if not all(path.is_relative_to(root) for path in paths):
            root = root.parent
        entries = [
            {
                'file': path.absolute().relative_to(root).as_posix(),
                'format': fold_format(path),
                'sha256': sha256_of(path),
                'md5': md5_of(path),
            }
            for path in paths
        ]
        return parse_bundle({**metadata, 'folds': entries}, root)
    bundle = load_bundle(description)
    bundle.verify()
    changes = {} if preset_name is None else preset(preset_name)
    if name is not None:
        changes['name'] = check_name(name)
    if changes.get('grid', {}).get('shape', list(bundle.grid.shape)) != list(bundle.grid.shape):
        msg = (
            f'the preset {preset_name!r} has another grid than the networks of <{bundle.path}> '
            f'({"x".join(map(str, bundle.grid.shape))}); it cannot be applied to them'
        )
        raise ModelError(msg)
    return parse_bundle({**bundle.to_json(), **changes}, bundle.path)


def _install_fold(bundle: Bundle, index: int, staging: Path, *, trust_model: bool) -> Fold:
    """Copy a fold and, where that can be done, keep its OpenVINO form beside it."""
    fold = bundle.folds[index]
    source = bundle.fold_path(fold)
    require_safe(source, fold.format, trust_model=trust_model)
    stem = staging / f'fold-{index}'
    copied, _ = copy_fold(source, stem)
    fold = dataclasses.replace(fold, file=copied.name)
    if fold.openvino is None and fold.format != 'savedmodel' and not has_tensorflow():
        LOGGER.warning(
            'the fold <%s> is installed without its OpenVINO form, because TensorFlow is not '
            "installed; run `pip install 'shivacmb[tensorflow]'` before it is used",
            source,
        )
        return fold
    if fold.openvino is None:
        shape = network_shape(bundle)
        convert_apart(source, fold.format, shape, stem, trust_model=trust_model)
    else:
        shutil.copyfile(bundle.path / fold.openvino.file, stem.with_name(f'{stem.name}.xml'))
        shutil.copyfile(
            bundle.path / fold.openvino.weights_file, stem.with_name(f'{stem.name}.bin')
        )
    return dataclasses.replace(fold, openvino=openvino_entry(stem))


def remove_model(name: str, models_dir: str | Path | None = None) -> Path:
    """Remove an installed model.

    Parameters
    ----------
    name : str
        Its name.
    models_dir : path, optional
        Where it is; the user's folder when not given.

    Returns
    -------
    Path
        The folder that was removed.

    Raises
    ------
    ModelError
        There is no such model there; shipped models stay.
    OutputError
        It cannot be removed.
    UsageError
        The path begins with the home folder of nobody.
    """
    place = expand_home(models_dir) if models_dir is not None else user_models_dir()
    folder = place / check_name(name)
    if not (folder / MODEL_FILE).is_file():
        shipped = ' (a shipped model cannot be removed)' if (SHIPPED / name).exists() else ''
        msg = f'there is no model {name!r} in <{place}>{shipped}'
        raise ModelError(msg)
    try:
        # out of the list at once, then gone
        doomed = Path(tempfile.mkdtemp(prefix=f'.{name}-', dir=folder.parent))
        folder.rename(doomed / name)
        shutil.rmtree(doomed)
    except OSError as error:
        msg = f'cannot remove <{folder}>: {error.strerror}'
        raise OutputError(msg) from error
    return folder
