"""Write a bundle from trained networks."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import ModelError, OutputError
from shivacmb.models.bundle import MODEL_FILE, IntermediateForm
from shivacmb.models.checksums import sha256_of
from shivacmb.models.convert import save_openvino, write_openvino
from shivacmb.models.descriptor import parse_bundle
from shivacmb.models.networks import export_savedmodel, in_float32
from shivacmb.models.unet3d import build_unet3d

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shivacmb.models.bundle import Bundle

_SUFFIXES = {'.keras': 'keras', '.h5': 'h5', '.hdf5': 'h5'}
_PLACEHOLDER = '0' * 64


def fold_format(path: Path) -> str:
    """Return the format of a fold's file or folder.

    Raises
    ------
    ModelError
        It is neither a SavedModel folder nor a .keras, .h5 or .hdf5 file.
    """
    if (path / 'saved_model.pb').is_file():
        return 'savedmodel'
    if path.is_file() and path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    msg = f'<{path}> is no fold: give a .keras or .h5 file, or a SavedModel folder'
    raise ModelError(msg)


def write_bundle(
    folder: str | Path,
    folds: Sequence[Any],
    metadata: Mapping[str, Any],
    *,
    openvino: bool = True,
    overwrite: bool = False,
    trust_model: bool = False,
    extra_files: Sequence[str | Path] = (),
) -> Bundle:
    """Write a bundle: the folds, their OpenVINO forms, checksums and ``model.json``.

    The folder appears complete or not at all.

    Parameters
    ----------
    folder : path
        The bundle's folder; its parent is made where needed.
    folds : sequence of keras.Model, str or Path
        The networks, or the files or SavedModel folders that hold them. A Keras model of the
        family ``unet3d`` that was trained on patches is rebuilt on the bundle's grid.
    metadata : mapping
        The content of ``model.json`` without ``folds``; ``name``, ``inputs`` and ``grid`` are
        required. :func:`shivacmb.models.preset` gives ``grid``, ``intensity``, ``postprocess``.
    openvino : bool
        Keep beside each fold the form that OpenVINO reads without TensorFlow, weights in 32 bits.
    overwrite : bool
        Replace a folder that exists.
    trust_model : bool
        Allow code in files.
    extra_files : sequence of path
        Further files to copy into the folder, such as a card.

    Returns
    -------
    Bundle
        What was written, read back.

    Raises
    ------
    ModelError
        The metadata are not valid, or a fold cannot be read or does not fit the grid.
    OutputError
        The folder exists and is not to be replaced or holds no model, or cannot be written.
    """
    target = Path(folder)
    if not folds:
        msg = f'a bundle needs at least one fold; none was given for <{target}>'
        raise ModelError(msg)
    draft = [
        {'file': f'fold-{index}', 'format': 'keras', 'sha256': _PLACEHOLDER}
        for index in range(len(folds))
    ]
    plan = parse_bundle({**metadata, 'folds': draft}, target)
    with staged(target, overwrite=overwrite) as staging:
        entries = [
            _write_fold(staging, index, fold, plan, openvino=openvino, trust_model=trust_model)
            for index, fold in enumerate(folds)
        ]
        bundle = parse_bundle({**metadata, 'folds': entries}, target)
        for extra in map(Path, extra_files):
            shutil.copyfile(extra, staging / extra.name)
        write_description(bundle, staging)
    return bundle


class staged:  # noqa: N801  used as a function, like contextlib.closing
    """Context manager: a folder to fill, which becomes ``target`` at the end without an error.

    A folder is replaced only when it holds one of ``marks``, so that nothing but a model is lost.
    After an error nothing is left of it, not even the folders above that were made for it.
    """

    def __init__(
        self, target: Path, *, overwrite: bool, marks: Sequence[str] = (MODEL_FILE,)
    ) -> None:
        self.target = target
        self.overwrite = overwrite
        self.marks = marks

    def __enter__(self) -> Path:
        """Make the folder beside ``target``, so that the final rename is atomic."""
        self._require_free()
        above = (self.target.parent, *self.target.parent.parents)
        self.made = [folder for folder in above if not folder.exists()]
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            made = tempfile.mkdtemp(prefix=f'.{self.target.name}-', dir=self.target.parent)
        except OSError as error:
            msg = f'cannot write <{self.target}>: {error.strerror}'
            raise OutputError(msg) from error
        self.holder = Path(made)
        self.staging = self.holder / 'new'
        self.staging.mkdir()
        return self.staging

    def __exit__(self, _: object, problem: BaseException | None, __: object) -> None:
        """Move the folder into place, or drop it after an error."""
        try:
            if isinstance(problem, OSError):
                raise problem
            if problem is None:
                self._move()
        except OSError as error:
            msg = f'cannot write <{self.target}>: {error.strerror or error}'
            raise OutputError(msg) from error
        finally:
            shutil.rmtree(self.holder, ignore_errors=True)
            if not self.target.exists():
                # those that something else lies in by now stay
                with contextlib.suppress(OSError):
                    for folder in self.made:
                        folder.rmdir()

    def _require_free(self) -> None:
        if self.target.exists() and not self.overwrite:
            msg = f'<{self.target}> exists; remove it first, or choose another name'
            raise OutputError(msg)
        require_replaceable(self.target, self.marks)

    def _move(self) -> None:
        old = self.holder / 'old'
        # the target may have appeared since, made by another process
        self._require_free()
        if self.target.exists():
            self.target.rename(old)
        try:
            self.staging.rename(self.target)
        except BaseException:
            # Ctrl-C too: what is left in the holder goes with it
            if old.exists():
                old.rename(self.target)
            raise


def require_replaceable(target: Path, marks: Sequence[str] = (MODEL_FILE,)) -> None:
    """Refuse to replace what is no model.

    Parameters
    ----------
    target : Path
        Need not exist.
    marks : sequence of str
        Names, one of which the folder must hold.

    Raises
    ------
    OutputError
        It exists and is a file, or a folder without any of them.
    """
    if (target.exists() or target.is_symlink()) and not any(
        (target / mark).exists() for mark in marks
    ):
        msg = (
            f'<{target}> is not replaced, because it holds no {marks[0]} and so is no model; '
            'remove it yourself, or choose another name'
        )
        raise OutputError(msg)


def write_description(bundle: Bundle, folder: Path) -> None:
    """Write ``model.json`` into a folder."""
    text = json.dumps(bundle.to_json(), indent=2, ensure_ascii=False)
    (folder / MODEL_FILE).write_text(text + '\n', encoding='utf-8')


def _write_fold(
    staging: Path, index: int, fold: Any, plan: Bundle, *, openvino: bool, trust_model: bool
) -> dict[str, Any]:
    shape = (*plan.grid.shape, len(plan.inputs))
    stem = staging / f'fold-{index}'
    if isinstance(fold, (str, Path)):
        path, kind = copy_fold(Path(fold), stem)
        if openvino:
            write_openvino(path, kind, shape, stem, trust_model=trust_model)
    else:
        path, kind = stem.with_name(f'{stem.name}.keras'), 'keras'
        network = _on_grid(in_float32(fold), shape, plan)
        network.save(str(path))
        if openvino:
            with tempfile.TemporaryDirectory(prefix='shivacmb-') as scratch:
                exported = Path(scratch) / 'savedmodel'
                export_savedmodel(network, exported)
                save_openvino(exported, shape, stem, origin=path)
    entry: dict[str, Any] = {'file': path.name, 'format': kind, 'sha256': sha256_of(path)}
    if openvino:
        entry['openvino'] = asdict(openvino_entry(stem))
    return entry


def openvino_entry(stem: Path) -> IntermediateForm:
    """Describe ``stem.xml`` and ``stem.bin`` for ``model.json``."""
    xml, weights = (stem.with_name(stem.name + suffix) for suffix in ('.xml', '.bin'))
    return IntermediateForm(xml.name, sha256_of(xml), sha256_of(weights))


def copy_fold(source: Path, stem: Path) -> tuple[Path, str]:
    """Copy a fold to ``stem`` with its own suffix; return the copy and its format.

    Raises
    ------
    ModelError
        It is no fold, or a folder with links in it.
    """
    kind = fold_format(source)
    if kind != 'savedmodel':
        target = stem.with_name(stem.name + ('.keras' if kind == 'keras' else '.h5'))
        shutil.copyfile(source, target)
        return target, kind
    if any(item.is_symlink() for item in source.rglob('*')):
        msg = f'the SavedModel <{source}> holds links; copy it with `cp -rL` first'
        raise ModelError(msg)
    target = stem.with_name(stem.name + '.savedmodel')
    copy_savedmodel(source, target)
    return target, kind


def copy_savedmodel(source: Path, target: Path) -> None:
    """Copy a SavedModel folder, its rights left out.

    What is copied from a read-only share could not be replaced or removed by whoever copied it.
    """
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for folder in (target, *target.rglob('*')):
        if folder.is_dir():
            folder.chmod(folder.stat().st_mode | stat.S_IRWXU)


def _on_grid(network: Any, shape: Sequence[int], plan: Bundle) -> Any:
    """Give a network that was trained on patches the grid of its bundle.

    A Keras network of fixed size runs on no other; the weights of a convolutional one do.
    """
    own = tuple(network.input_shape[1:])
    if own == tuple(shape):
        return network
    settings = {key: value for key, value in plan.architecture.items() if key != 'family'}
    if plan.architecture.get('family') != 'unet3d' or own[-1] != shape[-1]:
        msg = (
            f'a fold of <{plan.path}> takes {own}, but the bundle says {tuple(shape)}; only '
            'networks of the family "unet3d" with the same channels are rebuilt on another grid'
        )
        raise ModelError(msg)
    settings.setdefault('classes', network.output_shape[-1])
    settings.setdefault('activation', network.layers[-1].activation.__name__)
    rebuilt = build_unet3d(shape[:3], channels=shape[-1], **settings)
    try:
        rebuilt.set_weights(network.get_weights())
    except ValueError as error:
        msg = f'a fold of <{plan.path}> is not the network of its "architecture": {error}'
        raise ModelError(msg) from error
    return rebuilt
