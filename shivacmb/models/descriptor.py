"""Read and check ``model.json``."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from shivacmb.exceptions import ModelError
from shivacmb.models.bundle import (
    FORMATS,
    MODEL_FILE,
    TARGETS,
    Bundle,
    ClassLabel,
    Fold,
    Grid,
    Input,
    Intensity,
    IntermediateForm,
    Postprocess,
)

_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')
_HEX = {'sha256': 64, 'weights_sha256': 64, 'md5': 32}
_MAX_JSON = 4 << 20


class _Reader:
    """Typed look-ups in parsed JSON; every complaint names the file and the key."""

    def __init__(self, content: object, where: str, path: Path) -> None:
        self.where = where
        self.path = path
        if not isinstance(content, dict):
            raise self.error('', 'must be an object {...}')
        self.content: dict[str, Any] = content

    def error(self, key: str, problem: str) -> ModelError:
        place = '.'.join(part for part in (self.where, key) if part) or 'the content'
        return ModelError(f'{place} {problem} in <{self.path}>')

    def sub(self, key: str) -> _Reader:
        if key not in self.content:
            raise self.error(key, 'is missing')
        return _Reader(self.content[key], '.'.join(filter(None, (self.where, key))), self.path)

    def items(self, key: str) -> list[_Reader]:
        value = self.content.get(key)
        if not isinstance(value, list) or not value:
            raise self.error(key, 'must be a list with at least one entry')
        prefix = '.'.join(filter(None, (self.where, key)))
        return [_Reader(item, f'{prefix}[{i}]', self.path) for i, item in enumerate(value)]

    def text(self, key: str, default: str | None = None) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.error(key, 'must be a text')
        return value

    def number(
        self, key: str, default: float | None, low: float, high: float, *, open_low: bool = False
    ) -> float:
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, 'must be a number')
        if not (low < value if open_low else low <= value) or not value <= high:
            # a whole number of JSON may be too large for a float
            raise self.error(key, f'must lie between {low:g} and {high:g}, not {str(value)[:20]}')
        return float(value)

    def whole(self, key: str, default: int | None, low: int, high: int) -> int:
        value = self.number(key, default, low, high)
        if value != int(value):
            raise self.error(key, f'must be a whole number, not {value:g}')
        return int(value)

    def flag(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.error(key, 'must be true or false')
        return value

    def triple(self, key: str, default: list[float] | None, low: float, high: float) -> Any:
        value = self.content.get(key, default)
        if (
            not isinstance(value, list)
            or len(value) != 3
            or any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in value)
        ):
            raise self.error(key, 'must be a list of three numbers')
        if any(not low <= item <= high for item in value):
            raise self.error(key, f'must hold numbers between {low:g} and {high:g}')
        return tuple(value)

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.content.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, 'must be an object {...}')
        return value

    def checksum(self, key: str) -> str:
        value = self.text(key).lower()
        if not re.fullmatch(rf'[0-9a-f]{{{_HEX[key]}}}', value):
            raise self.error(key, f'must be {_HEX[key]} hexadecimal digits')
        return value

    def file(self, key: str) -> str:
        value = self.text(key)
        if not is_inside(value):
            raise self.error(key, f'must be a path inside the bundle, not {value!r}')
        # one spelling for one file: a.keras, not ./a.keras
        return PurePosixPath(value).as_posix()


def is_inside(name: str) -> bool:
    """Tell whether a relative name stays in the folder that it is joined to."""
    pure = PurePosixPath(name)
    return bool(
        name.strip()
        and not pure.is_absolute()
        and '\\' not in name
        and ':' not in name
        and '\0' not in name
        and '..' not in pure.parts
        and pure.parts
    )


def check_name(name: str) -> str:
    """Return ``name`` if it can name a bundle and its folder.

    Raises
    ------
    ModelError
        It holds something else than letters, digits, dots, hyphens and underscores.
    """
    if not _NAME.fullmatch(name) or len(name) > 100:
        msg = (
            f'{name!r} cannot name a model; use letters, digits, dots, hyphens and underscores, '
            'beginning with a letter or digit'
        )
        raise ModelError(msg)
    return name


def read_json(path: Path) -> Any:
    """Read a small JSON file.

    Raises
    ------
    ModelError
        It is missing, unreadable, larger than 4 MiB or not JSON.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            msg = f'<{path}> is too large for a model description'
            raise ModelError(msg)
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        msg = f'cannot read <{path}>: {error.strerror}'
        raise ModelError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f'<{path}> is not valid JSON: {error}'
        raise ModelError(msg) from error


def load_bundle(path: str | Path) -> Bundle:
    """Read and check the ``model.json`` of a bundle; its networks are not opened.

    Parameters
    ----------
    path : path
        The bundle's folder, or its ``model.json``.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        Something in it is missing, of the wrong type or out of range.
    """
    # Nodes work in folders of their own: a relative path would lead nowhere there
    folder = Path(path).absolute()
    if folder.name == MODEL_FILE:
        folder = folder.parent
    file = folder / MODEL_FILE
    try:
        there = file.is_file()
    except OSError as error:
        msg = f'cannot read <{file}>: {error.strerror}; check its rights and the disk'
        raise ModelError(msg) from error
    if not there:
        msg = f'<{folder}> is not a model bundle: it has no {MODEL_FILE}'
        raise ModelError(msg)
    return parse_bundle(read_json(file), folder)


def parse_bundle(content: object, folder: Path) -> Bundle:
    """Check the content of a ``model.json`` that is (or will be) in ``folder``.

    Raises
    ------
    ModelError
        See :func:`load_bundle`.
    """
    top = _Reader(content, '', folder / MODEL_FILE)
    grid, folds = top.sub('grid'), top.items('folds')
    target = top.text('target', 'CMB')
    if target not in TARGETS:
        raise top.error('target', f'must be one of {", ".join(TARGETS)}')
    inputs = tuple(_input(item) for item in top.items('inputs'))
    if len({item.name for item in inputs}) != len(inputs):
        raise top.error('inputs', 'must have different names')
    bundle = Bundle(
        name=check_name(top.text('name')),
        version=str(top.content.get('version', '')),
        path=folder,
        inputs=inputs,
        grid=_grid(grid),
        folds=tuple(_fold(item) for item in folds),
        description=top.text('description', ''),
        license=top.text('license', ''),
        citation=top.text('citation', ''),
        url=top.text('url', ''),
        intended_use=top.text('intended_use', ''),
        target=target,
        training=top.mapping('training'),
        metrics=top.mapping('metrics'),
        architecture=top.mapping('architecture'),
        intensity=_intensity(top),
        classes=_classes(top),
        postprocess=_postprocess(top, set(inputs[0].contrasts)),
    )
    if len({fold.file for fold in bundle.folds}) != len(bundle.folds):
        raise top.error('folds', 'must have different files: a fold named twice counts twice')
    forms = [fold.openvino.file for fold in bundle.folds if fold.openvino is not None]
    if len(set(forms)) != len(forms):
        raise top.error('folds', 'must have different OpenVINO files, as their networks differ')
    return bundle


def _input(item: _Reader) -> Input:
    contrasts = item.content.get('contrasts')
    if (
        not isinstance(contrasts, list)
        or not contrasts
        or any(not isinstance(contrast, str) or not contrast for contrast in contrasts)
    ):
        raise item.error('contrasts', 'must be a list of texts such as "T2starw" or "swi"')
    return Input(item.text('name'), tuple(contrasts))


def _grid(item: _Reader) -> Grid:
    shape = item.triple('shape', None, 1, 4096)
    if any(size != int(size) for size in shape):
        raise item.error('shape', 'must be whole numbers')
    orientation = item.text('orientation', 'RAS').upper()
    axes = ['RL', 'AP', 'SI']
    if len(orientation) != 3 or not all(
        any(code in axis for code in orientation) for axis in axes
    ):
        raise item.error('orientation', 'must be three axis codes such as "RAS"')
    i, j, k = (int(size) for size in shape)
    x, y, z = (float(size) for size in item.triple('voxel_mm', [1.0, 1.0, 1.0], 0.05, 20))
    return Grid((i, j, k), (x, y, z), orientation)


def _intensity(top: _Reader) -> Intensity:
    item = _Reader(top.content.get('intensity', {}), 'intensity', top.path)
    return Intensity(
        item.number('percentile', 99.0, 0, 100, open_low=True),
        item.number('clip', 1.0, 0, 1e6, open_low=True),
        item.number('divide', 1.0, 0, 1e6, open_low=True),
        item.flag('masked'),
    )


def _postprocess(top: _Reader, contrasts: set[str]) -> Postprocess:
    item = _Reader(top.content.get('postprocess', {}), 'postprocess', top.path)
    connectivity = item.whole('connectivity', 26, 6, 26)
    if connectivity not in (6, 18, 26):
        raise item.error('connectivity', 'must be 6, 18 or 26')
    threshold = item.number('threshold', 0.4, 0, 1, open_low=True)
    outline = None
    if item.content.get('outline_threshold') is not None:
        outline = item.number('outline_threshold', None, 0, threshold, open_low=True)
    return Postprocess(
        threshold,
        item.whole('min_voxels', 3, 1, 10**6),
        connectivity,
        _shares(item, contrasts),
        outline,
    )


def _shares(item: _Reader, contrasts: set[str]) -> dict[str, float]:
    """Read ``min_parenchyma``: a share for each contrast that has one."""
    found = item.content.get('min_parenchyma', {})
    if not isinstance(found, dict) or not set(found) <= contrasts:
        raise item.error(
            'min_parenchyma',
            'must be a table such as {"T2starw": 0.5}, with contrasts of the first input',
        )
    shares = _Reader(found, f'{item.where}.min_parenchyma', item.path)
    return {name: shares.number(name, None, 0, 1) for name in found}


def _classes(top: _Reader) -> tuple[ClassLabel, ...]:
    if 'classes' not in top.content:
        return (ClassLabel(1, 'CMB'),)
    classes = tuple(
        ClassLabel(item.whole('value', None, 1, 10**6), item.text('name'))
        for item in top.items('classes')
    )
    values, names = ({getattr(item, key) for item in classes} for key in ('value', 'name'))
    if not len(values) == len(names) == len(classes):
        raise top.error('classes', 'must have different values and names')
    return classes


def _fold(item: _Reader) -> Fold:
    kind = item.text('format')
    if kind not in FORMATS:
        raise item.error('format', f'must be one of {", ".join(FORMATS)}')
    form = None
    if 'openvino' in item.content:
        sub = item.sub('openvino')
        if not sub.file('file').endswith('.xml'):
            raise sub.error('file', 'must end in .xml')
        form = IntermediateForm(
            sub.file('file'), sub.checksum('sha256'), sub.checksum('weights_sha256')
        )
    md5 = item.checksum('md5') if 'md5' in item.content else None
    return Fold(item.file('file'), kind, item.checksum('sha256'), md5, form)
