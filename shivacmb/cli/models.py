"""``shivacmb-tools models``: list, add, show, verify, export and remove model bundles."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from shivacmb.models import Bundle

PRESETS = ('shiva-paper', 'shivai')
EXPORTS = ('shivai', 'savedmodel')


def register(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the ``models`` command; each handler is in ``args.handler`` and returns an exit code."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'models',
        help='list, add, check and export the networks',
        description='Model bundles: the networks, how a scan is prepared for them, and their '
        'checksums. They are looked for in --models-dir, in $SHIVACMB_MODELS (or the user '
        'data folder), and among the shipped ones.',
    )
    commands = parser.add_subparsers(dest='models_command', metavar='COMMAND', required=True)

    _command(commands, 'list', 'list the installed models', _list)
    add = _command(commands, 'add', 'install a model', _add)
    add.add_argument(
        'path',
        metavar='PATH',
        help='a bundle (folder or zip), or a published model_info_*.json beside its files',
    )
    add.add_argument('--name', help='install it under this name')
    add.add_argument(
        '--preset',
        choices=PRESETS,
        help='grid, contrast, threshold and minimum size: those of the SHIVA-CMB paper (used for '
        'a model_info_*.json when not given) or of the SHiVAi pipeline',
    )
    _trust(add)
    _overwrite(add, 'replace a model of that name')
    show = _command(commands, 'show', 'show all that a bundle says about itself', _show)
    show.add_argument('name', metavar='MODEL', help='name or folder')
    show.add_argument('--json', action='store_true', help='print its model.json')
    verify = _command(commands, 'verify', 'compare all files with their checksums', _verify)
    verify.add_argument(
        'name', nargs='*', metavar='MODEL', help='name or folder (default: all that are installed)'
    )
    export = _command(commands, 'export', 'write a model in the form of another program', _export)
    export.add_argument('name', metavar='MODEL', help='name or folder')
    export.add_argument(
        '--to', required=True, choices=EXPORTS, help='SHiVAi with its descriptor, or SavedModels'
    )
    export.add_argument(
        '-o', '--output', required=True, metavar='DIR', help='the folder MODEL is made in DIR'
    )
    _trust(export)
    _overwrite(export, 'replace the folder MODEL in DIR')
    remove = _command(commands, 'remove', 'remove an installed model', _remove)
    remove.add_argument('name', metavar='MODEL', help='name')
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    handler: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f'{text[0].upper()}{text[1:]}.'
    )
    parser.add_argument(
        '--models-dir', metavar='DIR', help='folder of models, before $SHIVACMB_MODELS'
    )
    parser.set_defaults(handler=handler)
    return parser


def _trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--trust-model',
        action='store_true',
        help='load the model even if its files carry Python code (Lambda layers)',
    )


def _overwrite(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument('--overwrite', action='store_true', help=text)


def _list(args: argparse.Namespace) -> int:
    from shivacmb.models.locate import bundle_folders, load_listed

    rows = [('NAME', 'VERSION', 'TARGET', 'FOLDS', 'LICENCE', 'FOLDER')]
    broken = 0
    for name, folder in bundle_folders(args.models_dir).items():
        bundle, problem = load_listed(folder)
        if bundle is None:
            broken += 1
            print(f'{name}: {problem}', file=sys.stderr)
            continue
        rows.append(
            (
                name,
                bundle.version or '-',
                bundle.target,
                str(len(bundle.folds)),
                bundle.license or 'not stated',
                str(bundle.path),
            )
        )
    if len(rows) == 1 and not broken:
        print('no models are installed; see `shivacmb-tools models add --help`')
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print('  '.join(cells).rstrip())
    return 65 if broken else 0


def _add(args: argparse.Namespace) -> int:
    from shivacmb.models.install import add_model

    bundle = add_model(
        args.path,
        name=args.name,
        preset_name=args.preset,
        models_dir=args.models_dir,
        overwrite=args.overwrite,
        trust_model=args.trust_model,
    )
    print(f'installed {bundle.name!r} in <{bundle.path}>')
    _print_summary(bundle)
    return 0


def _show(args: argparse.Namespace) -> int:
    from shivacmb.models import find_bundle

    bundle = find_bundle(args.name, args.models_dir)
    if args.json:
        print(json.dumps(bundle.to_json(), indent=2, ensure_ascii=False))
        return 0
    print(f'{bundle.name} {bundle.version}'.rstrip())
    print(f'folder        {bundle.path}')
    _print_summary(bundle)
    for label, block in (('training', bundle.training), ('metrics', bundle.metrics)):
        if block:
            print(label)
            print('\n'.join(_lines(block, '  ')))
    return 0


def _lines(block: Mapping[str, Any], indent: str) -> list[str]:
    """Lines of a block of model.json: one per value, those of a block in it further in."""
    width = max(len(key) for key in block)
    lines = []
    for key, value in block.items():
        if isinstance(value, dict) and value:
            lines += [f'{indent}{key}', *_lines(value, f'{indent}  ')]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            numbered = {str(number): item for number, item in enumerate(value)}
            lines += [f'{indent}{key}', *_lines(numbered, f'{indent}  ')]
        else:
            lines.append(f'{indent}{key:<{width}}  {_text(value)}'.rstrip())
    return lines


def _text(value: Any) -> str:
    if isinstance(value, list):
        # lists within it keep their brackets
        return ', '.join(
            json.dumps(item) if isinstance(item, list) else _text(item) for item in value
        )
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print_summary(bundle: Bundle) -> None:
    grid, intensity, post = bundle.grid, bundle.intensity, bundle.postprocess
    inputs = '; '.join(f'{item.name} ({" or ".join(item.contrasts)})' for item in bundle.inputs)
    size = 'x'.join(f'{value:g}' for value in grid.voxel_mm)
    contrast = (
        f'percentile {intensity.percentile:g}, clipped at {intensity.clip:g}, divided by '
        f'{intensity.divide:g}{", brain only" if intensity.masked else ""}'
    )
    rows = [
        ('description', bundle.description),
        ('licence', bundle.license or 'not stated'),
        ('intended use', bundle.intended_use),
        ('citation', bundle.citation),
        ('url', bundle.url),
        ('target', bundle.target),
        ('classes', ', '.join(f'{item.value} {item.name}' for item in bundle.classes)),
        ('inputs', inputs),
        ('grid', f'{"x".join(map(str, grid.shape))} voxels of {size} mm, {grid.orientation}'),
        ('intensity', contrast),
        ('threshold', f'{post.threshold:g}, clusters of at least {post.min_voxels} voxels'),
        ('outlines', f'down to {post.outline_threshold:g}' if post.outline_threshold else ''),
        ('parenchyma', ', '.join(f'{c}: {x:g} around' for c, x in post.min_parenchyma.items())),
    ]
    for label, text in rows:
        if text:
            print(f'{label:<13} {text}')
    for number, fold in enumerate(bundle.folds):
        form = ', OpenVINO form kept' if fold.openvino else ''
        print(f'fold {number:<8} {fold.file} ({fold.format}{form})')
        print(f'{"":<13} sha256 {fold.sha256}')
        if fold.md5:
            print(f'{"":<13} md5    {fold.md5}')
        if fold.openvino:
            print(f'{"":<13} sha256 {fold.openvino.sha256} {fold.openvino.file}')
            print(f'{"":<13} sha256 {fold.openvino.weights_sha256} {fold.openvino.weights_file}')


def _verify(args: argparse.Namespace) -> int:
    from shivacmb.models.locate import bundle_folders

    names = args.name or list(bundle_folders(args.models_dir))
    return 65 if sum(not _is_intact(name, args.models_dir) for name in names) else 0


def _is_intact(name: str, models_dir: str | None) -> bool:
    from shivacmb.exceptions import ShivaCMBError
    from shivacmb.models import find_bundle

    try:
        bundle = find_bundle(name, models_dir)
        bundle.verify()
    except ShivaCMBError as error:
        print(f'{name}: {error}', file=sys.stderr)
        return False
    print(f'{name}: all files are as described ({len(bundle.folds)} fold(s))')
    return True


def _export(args: argparse.Namespace) -> int:
    from shivacmb.models import find_bundle
    from shivacmb.models.export import export_bundle

    bundle = find_bundle(args.name, args.models_dir)
    folder = export_bundle(
        bundle,
        args.to,
        args.output,
        overwrite=args.overwrite,
        trust_model=args.trust_model,
    )
    print(f'wrote <{folder}>')
    for item in sorted(folder.iterdir()):
        print(f'  {item.name}')
    return 0


def _remove(args: argparse.Namespace) -> int:
    from shivacmb.models.install import remove_model

    print(f'removed <{remove_model(args.name, args.models_dir)}>')
    return 0
