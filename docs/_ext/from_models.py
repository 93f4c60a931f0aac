"""Pages of the shipped models, made from what their bundles say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown_parts import plain, table

DOCS = Path(__file__).parents[1]


def presets() -> str:
    """Numbers of the presets, as a table."""
    from shivacmb.models import PRESET_NAMES, preset

    rows = []
    for name in PRESET_NAMES:
        known = preset(name)
        grid, intensity, post = known['grid'], known['intensity'], known['postprocess']
        rows.append(
            (
                f'`{name}`',
                ' x '.join(map(str, grid['shape'])),
                f'{intensity["percentile"]:g}',
                f'{intensity["clip"]:g}',
                f'{intensity["divide"]:g}',
                f'{post["threshold"]:g}',
                str(post['min_voxels']),
            )
        )
    head = ('preset', 'box', 'percentile', 'clip', 'divided by', 'threshold', 'least voxels')
    return table(head, rows)


def bundles() -> list[Path]:
    """Folders of the shipped models."""
    folder = DOCS.parent / 'shivacmb' / 'models' / 'bundles'
    return sorted(path.parent for path in folder.glob('*/model.json'))


def _shares(by_contrast: dict[str, float]) -> str:
    found = [f'at least {share:.0%} in {name}' for name, share in by_contrast.items() if share]
    return ', '.join(found) or 'no rule'


def card(folder: Path) -> str:
    """Page of one shipped model."""
    from shivacmb.models.locate import DEFAULT_MODEL

    bundle = json.loads((folder / 'model.json').read_text(encoding='utf-8'))
    grid, post = bundle['grid'], bundle['postprocess']
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    size_mm = ' x '.join(f'{value:g}' for value in grid['voxel_mm'])
    rows = [
        ('version', bundle['version']),
        ('licence', bundle['license']),
        ('finds', 'the brain' if bundle.get('target') == 'brain' else 'microbleeds'),
        ('contrasts', ', '.join(bundle['inputs'][0]['contrasts'])),
        ('grid', f'{" x ".join(map(str, grid["shape"]))} voxels of {size_mm} mm'),
        ('threshold', f'{post["threshold"]:g}, clusters of {post["min_voxels"]} voxels and more'),
        ('brain tissue around a lesion', _shares(post.get('min_parenchyma', {}))),
        ('networks', f'{len(bundle["folds"])}, files of {size:.1f} MB in all'),
    ]
    lines = [
        f'# {bundle["name"]} {bundle["version"]}', '',
        plain(bundle['description']), '',
        f'**Intended use.** {plain(bundle["intended_use"])}', '',
        table(('', ''), [(name, plain(text)) for name, text in rows]), '',
        '## How well it does', '',
        _metrics(bundle.get('metrics', {})), '',
        _scores() if folder.name == DEFAULT_MODEL else '', '',
        '## How it was trained', '',
        _nested(bundle.get('training', {})), '',
        '## Files', '',
        table(
            ('file', 'SHA-256'),
            [(f'`{fold["file"]}`', f'`{fold["sha256"]}`') for fold in bundle['folds']],
        ),
    ]  # fmt: skip
    return '\n'.join(lines)


def _value(value: Any) -> str:
    return '' if value is None else str(value)


def _metrics(blocks: Mapping[str, Any], level: int = 3) -> str:
    """Blocks of figures side by side, a column each; blocks of blocks one after the other."""
    if not blocks or not all(isinstance(block, dict) for block in blocks.values()):
        return _nested(blocks)
    if any(isinstance(value, dict) for block in blocks.values() for value in block.values()):
        parts = (
            f'{"#" * level} {plain(name)}\n\n{_metrics(block, level + 1)}'
            if isinstance(block, dict)
            else f'{plain(name)}: {plain(str(block))}'
            for name, block in blocks.items()
        )
        return '\n\n'.join(parts)
    names = dict.fromkeys(key for block in blocks.values() for key in block if key != 'note')
    rows = [
        [
            plain(name.replace('_', ' ')),
            *(plain(_value(block.get(name))) for block in blocks.values()),
        ]
        for name in names
    ]
    side_by_side = table(['', *(plain(key.replace('_', ' ')) for key in blocks)], rows)
    notes = [
        f'*{plain(key.replace("_", " "))}*: {plain(block["note"])}.'
        for key, block in blocks.items()
        if 'note' in block
    ]
    return '\n\n'.join([side_by_side, *notes])


def _scores() -> str:
    """Tables in the layout of the SHIVA-CMB paper that ``make evaluate`` left of this model."""
    lines = ['## In the layout of the SHIVA-CMB paper', '']
    for path in sorted((DOCS / 'evaluation').glob('*/table3.md')):
        lines += [f'### {path.parent.name}', '', path.read_text(encoding='utf-8'), '']
    lines += ['How these were made, and what to compare them with: [](../evaluation/README.md).']
    return '\n'.join(lines)


def _nested(block: Mapping[str, Any], indent: str = '') -> str:
    lines = []
    for key, value in block.items():
        title = plain(key.replace('_', ' '))
        if isinstance(value, dict):
            lines += [f'{indent}- {title}', _nested(value, indent + '  ')]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            numbered = {str(number): item for number, item in enumerate(value, 1)}
            lines += [f'{indent}- {title}', _nested(numbered, indent + '  ')]
        else:
            many = isinstance(value, list)
            shown = ', '.join(map(str, value)) if many else str(value)
            lines.append(f'{indent}- {title}: {plain(shown)}')
    return '\n'.join(lines)
