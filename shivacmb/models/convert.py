"""From any fold to the form that OpenVINO reads without TensorFlow.

SavedModel folders are read by OpenVINO itself. Keras and HDF5 files pass once through TensorFlow,
in a process of their own so that its half gigabyte does not stay; bundles of this package keep the
result, and for others it is kept in the user's cache under the checksum of the fold.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.exceptions import ModelError, OutputError, TemporaryError
from shivacmb.models.checksums import sha256_of
from shivacmb.models.locate import user_cache_dir
from shivacmb.models.networks import export_savedmodel, has_tensorflow, load_network
from shivacmb.models.openvino_runtime import import_openvino
from shivacmb.models.rewrite import merge_upsampling
from shivacmb.models.safety import require_safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shivacmb.models.bundle import Bundle, Fold

LOGGER = logging.getLogger('shivacmb.models')
# Raise it when the conversion changes, so that old cache entries are left alone.
CONVERSION = 1


def write_openvino(
    path: Path,
    kind: str,
    shape: Sequence[int],
    stem: Path,
    *,
    trust_model: bool = False,
) -> None:
    """Convert one fold in this process and write ``stem.xml`` and ``stem.bin``.

    Parameters
    ----------
    path : Path
        The fold, its checksum verified.
    kind : {'keras', 'h5', 'savedmodel'}
        Its format.
    shape : sequence of four int
        The network's input: X, Y, Z, channels. The form is fixed to it, with a batch of one.
    stem : Path
        Where to write, without suffix.
    trust_model : bool
        Allow code in the file.

    Raises
    ------
    ModelError
        The fold cannot be read or does not take this shape.
    OutputError
        The form cannot be written.
    """
    require_safe(path, kind, trust_model=trust_model)
    with tempfile.TemporaryDirectory(prefix='shivacmb-') as scratch:
        source = path
        if kind != 'savedmodel':
            network = load_network(path, kind, float32=True, trust_model=trust_model)
            source = Path(scratch) / 'savedmodel'
            export_savedmodel(network, source)
        save_openvino(source, shape, stem, origin=path)


def save_openvino(savedmodel: Path, shape: Sequence[int], stem: Path, *, origin: Path) -> None:
    """Read a SavedModel with OpenVINO, fix its shape and write it with 32-bit weights.

    Parameters
    ----------
    savedmodel : Path
        Folder.
    shape, stem
        See :func:`write_openvino`.
    origin : Path
        The fold that the folder was made from, for messages.

    Raises
    ------
    ModelError
        OpenVINO cannot read it, or the network does not take this shape.
    OutputError
        It cannot be written.
    """
    openvino = import_openvino()
    try:
        model = openvino.Core().read_model(str(savedmodel))
    except RuntimeError as error:
        msg = f'OpenVINO cannot read the network <{origin}>: {error}'
        raise ModelError(msg) from error
    fix_shape(model, shape, origin)
    merge_upsampling(openvino, model)
    xml = stem.with_name(stem.name + '.xml')
    try:
        openvino.save_model(model, str(xml), compress_to_fp16=False)
    except RuntimeError as error:
        # it says no more than that the stream failed
        msg = (
            f'cannot write the OpenVINO form of <{origin}> to <{xml}>; free space there ({error})'
        )
        raise OutputError(msg) from error


def fix_shape(model: Any, shape: Sequence[int], origin: Path) -> None:
    """Fix a network of one input to a batch of one of ``shape`` (X, Y, Z, channels).

    Raises
    ------
    ModelError
        It has several inputs or outputs, or does not take this shape.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        msg = (
            f'the network <{origin}> has {len(model.inputs)} inputs and {len(model.outputs)} '
            'outputs; only networks with one of each (channels last) can be used'
        )
        raise ModelError(msg)
    own = model.inputs[0].get_partial_shape()
    wanted = [1, *shape]
    fits = own.rank.is_dynamic or (
        len(own) == len(wanted)
        and all(dim.is_dynamic or dim.get_length() == size for dim, size in zip(own, wanted))  # noqa: B905
    )
    if fits:
        try:
            model.reshape(wanted)
        except RuntimeError as error:
            msg = f'the network <{origin}> cannot run on {_text(shape)} voxels: {error}'
            raise ModelError(msg) from error
        return
    msg = (
        f'the network <{origin}> takes {own} (batch, X, Y, Z, channels), but its bundle says '
        f'{_text(shape)}; correct grid.shape and inputs in its model.json'
    )
    raise ModelError(msg)


def _text(shape: Sequence[int]) -> str:
    return f'{"x".join(str(size) for size in shape[:3])} ({shape[3]} channels)'


def network_shape(bundle: Bundle) -> tuple[int, int, int, int]:
    """Return X, Y, Z and channels of a bundle's networks."""
    return (*bundle.grid.shape, len(bundle.inputs))


def openvino_form(bundle: Bundle, fold: Fold, *, trust_model: bool = False) -> Path:
    """Return the verified ``.xml`` of a fold: from the bundle, the cache, or converted now.

    Parameters
    ----------
    bundle, fold
        The fold and the bundle it is in.
    trust_model : bool
        Allow code in the fold's file.

    Raises
    ------
    ModelError
        A checksum differs, or the fold has to be converted and cannot be.
    """
    if fold.openvino is not None:
        bundle.verify_openvino(fold)
        return bundle.path / fold.openvino.file
    bundle.verify_fold(fold)
    source, shape = bundle.fold_path(fold), network_shape(bundle)
    require_safe(source, fold.format, trust_model=trust_model)
    name = f'{fold.sha256[:32]}-{"x".join(str(size) for size in shape)}-v{CONVERSION}'
    folder = _cache_folder()
    stem = folder / name
    if not _is_cached(stem):
        with tempfile.TemporaryDirectory(prefix='.part-', dir=folder) as scratch:
            part = Path(scratch) / 'network'
            convert_apart(source, fold.format, shape, part, trust_model=trust_model)
            _keep(part, stem)
    return stem.with_name(stem.name + '.xml')


_session_cache: list[tempfile.TemporaryDirectory[str]] = []


def _cache_folder() -> Path:
    """Return a writable folder: the user's cache, else one that goes with this process."""
    folder = user_cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if not _session_cache:
            LOGGER.warning(
                'cannot keep converted networks in <%s> (%s); they are converted again in each '
                'run',
                folder,
                error.strerror,
            )
            _session_cache.append(tempfile.TemporaryDirectory(prefix='shivacmb-cache-'))
        return Path(_session_cache[0].name)


def _members(stem: Path) -> tuple[Path, Path, Path]:
    return (
        stem.with_name(stem.name + '.xml'),
        stem.with_name(stem.name + '.bin'),
        stem.with_name(stem.name + '.json'),
    )


def _is_cached(stem: Path) -> bool:
    xml, weights, sums = _members(stem)
    try:
        expected = json.loads(sums.read_text(encoding='utf-8'))
        return bool(expected == [sha256_of(xml), sha256_of(weights)])
    except (OSError, ValueError):
        return False


def _keep(part: Path, stem: Path) -> None:
    """Move a finished conversion into the cache; its checksums go last and make it valid."""
    xml, weights, sums = _members(part)
    sums.write_text(json.dumps([sha256_of(xml), sha256_of(weights)]), encoding='utf-8')
    for source, target in zip(_members(part), _members(stem), strict=True):
        source.replace(target)


def convert_apart(
    source: Path, kind: str, shape: Sequence[int], stem: Path, *, trust_model: bool
) -> None:
    """Convert one fold; what needs TensorFlow runs in a process of its own.

    Parameters and errors are those of :func:`write_openvino`.

    Raises
    ------
    TemporaryError
        That process was killed, for want of memory for example.
    """
    if kind == 'savedmodel' or 'tensorflow' in sys.modules:
        write_openvino(source, kind, shape, stem, trust_model=trust_model)
        return
    if not has_tensorflow():
        msg = (
            f'<{source}> has to be converted once for OpenVINO, which needs TensorFlow; install '
            "it with `pip install 'shivacmb[tensorflow]'`, or use a bundle that keeps an "
            'OpenVINO form'
        )
        raise ModelError(msg)
    LOGGER.info('converting <%s> for OpenVINO, once', source)
    arguments = [str(source), kind, json.dumps(list(shape)), str(stem), str(int(trust_model))]
    package = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        'TF_CPP_MIN_LOG_LEVEL': '3',
        'CUDA_VISIBLE_DEVICES': '-1',
        # only this backend of Keras can export what OpenVINO reads
        'KERAS_BACKEND': 'tensorflow',
        'PYTHONPATH': os.pathsep.join(filter(None, (package, os.environ.get('PYTHONPATH', '')))),
    }
    finished = subprocess.run(
        [sys.executable, '-m', 'shivacmb.models.convert', *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode < 0:
        # what it wrote last says nothing of it
        msg = (
            f'the process that converts <{source}> for OpenVINO was ended by signal '
            f'{-finished.returncode}, most often because memory ran out; free memory and run the '
            'same command again'
        )
        raise TemporaryError(msg)
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f'exit code {finished.returncode}']
        msg = f'cannot convert <{source}> for OpenVINO: {lines[-1]}'
        raise ModelError(msg)


def _main(arguments: Sequence[str]) -> None:
    source, kind, shape, stem, trust_model = arguments
    try:
        write_openvino(
            Path(source),
            kind,
            json.loads(shape),
            Path(stem),
            trust_model=bool(int(trust_model)),
        )
    except (ModelError, OutputError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    _main(sys.argv[1:])
