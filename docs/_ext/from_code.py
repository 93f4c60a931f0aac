"""Pages and tables that are made from the code, so that they cannot say something else.

Written into ``docs/generated`` before a build: whole pages there, and below ``parts`` the tables
that written pages include.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from from_models import bundles, card, presets
from markdown_parts import plain, table

DOCS = Path(__file__).parents[1]
#: Packages of the reference, in the order of use; what each is for is in its docstring.
PACKAGES = (
    'imaging', 'models', 'bids', 'lesions', 'reports', 'evaluate', 'simulate', 'train',
    'interfaces', 'workflows',
)  # fmt: skip
#: Pages of the section on clusters, in order; a part that is not there yet has no page.
CLUSTER = ('cluster', 'containers', 'faults', 'security')


def pages() -> dict[str, str]:
    """Every generated file: path below ``docs/generated`` and its text."""
    made = {
        'command-shivacmb.md': _command_page(_run_parser()),
        'parts/scan-files.md': _scan_files(),
        'parts/scans-table.md': _columns(_scans_columns()),
        'parts/lesions-table.md': _columns(_lesion_columns()),
        'parts/participants-table.md': _columns(_participants_columns()),
        'parts/truth-table.md': _columns(_truth_columns()),
        'parts/evaluation-tables.md': _evaluation_tables(),
        'parts/suffixes.md': _suffixes(),
        'parts/zones.md': _zones(),
        'parts/presets.md': presets(),
        'parts/exit-codes.md': _exit_codes(),
        'parts/cluster-pages.md': _cluster_pages(),
        'decisions.md': _decisions(),
        'api/index.md': _api_index(),
    }
    made.update({f'api/{name}.md': _api_page(name) for name in PACKAGES})
    for name, text in _tools_pages():
        made[f'command-{name}.md'] = text
    for folder in bundles():
        made[f'model-{folder.name}.md'] = card(folder)
    return made


def write(folder: Path) -> None:
    """Write all of them, and remove what is no longer made; unchanged files stay untouched."""
    made = pages()
    for old in folder.rglob('*.md'):
        if str(old.relative_to(folder)) not in made:
            old.unlink()
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')


# -- commands ---------------------------------------------------------------------------------


def _run_parser() -> argparse.ArgumentParser:
    from shivacmb.cli.parser import build_parser

    return build_parser()


def _tools_parser() -> argparse.ArgumentParser:
    from shivacmb.cli.tools import build_parser

    return build_parser()


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Subcommands of a parser by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _tools_pages() -> Iterator[tuple[str, str]]:
    for name, parser in commands(_tools_parser()).items():
        yield name, _command_page(parser)


def _command_page(parser: argparse.ArgumentParser, level: int = 1) -> str:
    lines = ['#' * level + f' {parser.prog}', '', plain(parser.description or ''), '']
    lines += ['```text', _usage(parser), '```', '']
    for group in parser._action_groups:
        shown = [
            action
            for action in group._group_actions
            if action.help is not argparse.SUPPRESS
            and not isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
        ]
        if shown:
            title = {'positional arguments': 'arguments'}.get(group.title or '', group.title or '')
            lines += ['#' * (level + 1) + f' {title.capitalize()}', '']
            if group.description:
                lines += [plain(group.description), '']
            for action in shown:
                lines += [_names(action), f': {_help(parser, action)}', '']
    for child in commands(parser).values():
        lines += [_command_page(child, level + 1), '']
    if parser.epilog:
        lines += [plain(parser.epilog), '']
    return '\n'.join(lines)


def _usage(parser: argparse.ArgumentParser) -> str:
    """Positional arguments and what must be given; the options follow one by one."""
    words = [parser.prog]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words.append(str(action.metavar or 'COMMAND'))
        elif action.option_strings and action.required:
            words.append(f'{action.option_strings[-1]} {_value(action)}')
        elif not action.option_strings:
            many = action.nargs in ('*', '+')
            value = _value(action) + (' ...' if many else '')
            words.append(f'[{value}]' if action.nargs in ('*', '?') else value)
    return ' '.join(words) + ' [options]'


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        known = action.metavar
        return known if isinstance(known, str) else ' '.join(known)
    if action.choices is not None:
        return '{' + ','.join(map(str, action.choices)) + '}'
    return action.dest if not action.option_strings else action.dest.upper()


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f'`{_value(action)}`'
    hyphened = [name for name in action.option_strings if '_' not in name]
    value = '' if action.nargs == 0 else ' ' + _value(action)
    if action.nargs in ('*', '+'):
        value += ' ...'
    return ', '.join(f'`{name}{value}`' for name in hyphened)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = action.help or _same_option(action)
    if isinstance(action, argparse._VersionAction):
        text = 'print the version and stop'
    if '%' in text:
        facts = {**vars(action), 'prog': parser.prog}
        text = text % {key: value for key, value in facts.items() if value is not None}
    default = action.default
    said = 'default' in text
    if default not in (None, argparse.SUPPRESS, False, (), []) and not said:
        shown = ' '.join(map(str, default)) if isinstance(default, (list, tuple)) else default
        text = f'{text} (default: {shown})'.strip()
    return plain(text[:1].upper() + text[1:])


def _same_option(action: argparse.Action) -> str:
    """Help of the option of ``shivacmb`` that a tool took over without words of its own."""
    for other in _run_parser()._actions:
        if set(other.option_strings) & set(action.option_strings) and other.help:
            return other.help
    return f'see the help of the command: {action.dest}'


# -- outputs ----------------------------------------------------------------------------------


class _Scan:
    participant, session, stem, out_suffix = 'X', None, 'sub-X', 'T2starw'


def _scan_files() -> str:
    from shivacmb.bids.names import output_paths
    from shivacmb.interfaces.sidecars import IMAGE_DESCRIPTIONS

    said = {
        **IMAGE_DESCRIPTIONS,
        'dseg_tsv': 'A row per lesion; columns below.',
        'zones_tsv': 'Names of the values of the zone map.',
        'record': 'All that is known of the scan; the tables are made from these records.',
        'overview': 'Picture of the slices with lesions.',
        'lesions': 'A close-up of each lesion.',
    }
    rows = []
    for key, path in output_paths('', _Scan()).items():
        if key.endswith('_json'):
            continue
        name = str(path).replace('sub-X/anat/sub-X_', '…_')
        rows.append((f'`{name}`', plain(said[key])))
    return table(('file', 'content'), rows)


def _scans_columns() -> dict[str, Any]:
    from shivacmb.bids.tables import COLUMNS

    return dict(COLUMNS)


def _lesion_columns() -> dict[str, Any]:
    from shivacmb.lesions import LESION_COLUMNS

    return dict(LESION_COLUMNS)


def _participants_columns() -> dict[str, Any]:
    from shivacmb.bids import group

    return dict(group._PARTICIPANT_COLUMNS)


def _truth_columns() -> dict[str, Any]:
    from shivacmb.simulate import truth

    return truth.describe(list(truth.COLUMNS))


def _columns(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name, entry in entries.items():
        text = plain(entry['Description'])
        levels = entry.get('Levels')
        if levels:
            said = '; '.join(f'`{key}`: {plain(value)}' for key, value in levels.items())
            text = f'{text} {said}.'
        unit = entry.get('Units', '')
        rows.append((f'`{name}`', text, '' if unit == 'arbitrary' else unit.replace('^3', '³')))
    if any(unit for _, _, unit in rows):
        return table(('column', 'meaning', 'unit'), rows)
    return table(('column', 'meaning'), [row[:2] for row in rows])


def _evaluation_tables() -> str:
    from shivacmb.evaluate.columns import MEASURES, TABLES, dictionary

    lines = []
    for name, own in TABLES.items():
        known = dictionary(name, list(own))
        own_rows = {key: value for key, value in known.items() if own[key] != MEASURES.get(key)}
        if own_rows:
            lines += [f'### `{name}.tsv`', '', _columns(own_rows), '']
    measures = {name: {'Description': text} for name, text in MEASURES.items()}
    lines += ['### Measures', '', _columns(measures), '']
    return '\n'.join(lines)


def _suffixes() -> str:
    from shivacmb.bids.rules import REFUSED_SUFFIXES, SPELLINGS, SUFFIX_FAMILY

    kinds = {'swi': 'susceptibility-weighted', 't2s': 'T2*-weighted', 'megre': 'several echoes'}
    spelled = {item.lower(): item for item in reversed(SPELLINGS)}
    rows = [
        (f'`{spelled.get(suffix, suffix)}`', plain(kinds[family]))
        for suffix, family in SUFFIX_FAMILY.items()
    ]
    refused: dict[str, list[str]] = {}
    for suffix, reason in REFUSED_SUFFIXES.items():
        refused.setdefault(reason, []).append(f'`{suffix}`')
    turned = [(', '.join(names), plain(reason)) for reason, names in refused.items()]
    return '\n'.join(
        [
            table(('suffix (any case)', 'taken as'), rows),
            '',
            table(('never taken', 'because it is'), turned),
        ]
    )


def _zones() -> str:
    from shivacmb.imaging.zones import REGIONS, group_of

    rows = [
        (str(value), plain(region.name), group_of(region.name) or 'not counted')
        for value, region in sorted(REGIONS.items())
    ]
    return table(('value', 'zone', 'group'), rows)


def _exit_codes() -> str:
    from shivacmb import exceptions
    from shivacmb.cli import main, parser

    known: dict[int, str] = {
        0: 'All done.',
        1: 'Some scans failed, the others are complete.',
        main.EXIT_UNKNOWN_LEVEL: 'Unknown analysis level.',
        parser.EXIT_USAGE: 'Arguments that cannot be understood or contradict each other.',
        main.EXIT_IO: 'The file system gave an error.',
        main.EXIT_INTERRUPTED: 'Interrupted; the same command goes on.',
        main.EXIT_TERMINATED: 'Terminated; the same command goes on.',
    }
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, exceptions.ShivaCMBError):
            known.setdefault(kind.exit_code, (kind.__doc__ or '').split('\n', maxsplit=1)[0])
    return table(
        ('code', 'meaning'), [(str(code), plain(text)) for code, text in sorted(known.items())]
    )


def _cluster_pages() -> str:
    there = [name for name in CLUSTER if (DOCS / f'{name}.md').is_file()]
    head = ['```{toctree}', ':hidden:', ':caption: Clusters and containers', '']
    return '\n'.join([*head, *there, '```', ''])


# -- decisions --------------------------------------------------------------------------------


def decision_titles() -> dict[str, str]:
    """Title of each decision by the stem of its file."""
    found = {}
    for path in sorted((DOCS / 'decisions').glob('[0-9]*.md')):
        first = path.read_text(encoding='utf-8').split('\n', maxsplit=1)[0]
        found[path.stem] = re.sub(r'^#\s*\d+[.:]?\s*', '', first)
    return found


def _decisions() -> str:
    lines = [
        '# Decisions', '',
        'Choices that someone could question: what was chosen, what was measured, and when to '
        'look again. Numbers go by part: 0001 the app, 0010 imaging, 0020 models, 0030 BIDS, '
        '0040 lesions and reports, 0050 heads and masks, 0060 and 0090 training and simulation, '
        '0080 evaluation, 0100 and on clusters, containers, large datasets, faults and releases.',
        '', '```{toctree}', ':maxdepth: 1', '',
    ]  # fmt: skip
    lines += [
        f'{stem[:4]} {title} </decisions/{stem}>' for stem, title in decision_titles().items()
    ]
    return '\n'.join([*lines, '```', ''])


# -- API --------------------------------------------------------------------------------------


def _api_index() -> str:
    lines = [
        '# API reference', '',
        'Made from the docstrings. What a user of the library needs is on this page and under '
        '`imaging`; everything else may change between minor versions.', '',
        '```{eval-rst}',
        '.. autofunction:: shivacmb.detect', '',
        '.. autoclass:: shivacmb.Detected',
        '```', '',
        '## Errors', '',
        '```{eval-rst}',
        '.. automodule:: shivacmb.exceptions',
        '   :members:',
        '```', '',
        '```{toctree}', ':maxdepth: 2', '', *PACKAGES, '```', '',
    ]  # fmt: skip
    return '\n'.join(lines)


def _api_page(name: str) -> str:
    package = importlib.import_module(f'shivacmb.{name}')
    public = list(getattr(package, '__all__', ()))
    lines = [f'# shivacmb.{name}', '', '```{eval-rst}', f'.. automodule:: shivacmb.{name}']
    if public:
        lines += ['   :members: ' + ', '.join(public), '   :imported-members:']
    lines += ['```', '']
    shown = {getattr(package, item) for item in public if callable(getattr(package, item))}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        if info.name.startswith('_'):
            continue
        module = importlib.import_module(f'shivacmb.{name}.{info.name}')
        members = [
            key
            for key, item in vars(module).items()
            if not key.startswith('_')
            and callable(item)
            and getattr(item, '__module__', '') == module.__name__
            and getattr(item, '__doc__', None)
            and item not in shown
        ]
        lines += [f'## {info.name}', '', '```{eval-rst}', f'.. automodule:: {module.__name__}']
        lines += ['   :members: ' + ', '.join(members)] if members else []
        lines += ['```', '']
    return '\n'.join(lines)


def _before_reading(app: Any) -> None:
    write(Path(app.srcdir) / 'generated')


def setup(app: Any) -> dict[str, bool]:
    """Write the generated pages as soon as the builder is there, before sources are listed."""
    app.connect('builder-inited', _before_reading)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
