"""What the documentation says is there, and what is there is in the documentation."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
LINK = re.compile(r'(?<!\!)\[[^\]]*\]\(([^)\s]+)\)')
CODE = re.compile(r'```.*?```|`[^`\n]*`|(?m:^ {4}.*$)', re.DOTALL)


@pytest.fixture(scope='module')
def from_code() -> ModuleType:
    sys.path.insert(0, str(DOCS / '_ext'))
    try:
        return importlib.import_module('from_code')
    finally:
        sys.path.remove(str(DOCS / '_ext'))


@pytest.fixture(scope='module')
def made(from_code: ModuleType) -> dict[str, str]:
    return from_code.pages()


def _leaves(from_code: Any, parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    children = from_code.commands(parser).values()
    return [parser, *(leaf for child in children for leaf in _leaves(from_code, child))]


def test_every_option_has_its_line(from_code: Any, made: dict[str, str]) -> None:
    parsers = {
        'shivacmb': from_code._run_parser(),
        **from_code.commands(from_code._tools_parser()),
    }
    assert {'scan', 'models', 'simulate', 'evaluate', 'train'} <= set(parsers)
    for name, parser in parsers.items():
        lines = made[f'command-{name}.md'].splitlines()
        for leaf in _leaves(from_code, parser):
            assert any(line.strip('# ') == leaf.prog for line in lines)
            for action in leaf._actions:
                for option in action.option_strings:
                    if option in ('-h', '--help') or '_' in option:
                        continue
                    said = [
                        line for line in lines if f'`{option}`' in line or f'`{option} ' in line
                    ]
                    assert said, f'{leaf.prog} {option}'


def test_every_option_says_something(made: dict[str, str]) -> None:
    for name, text in made.items():
        if name.startswith('command-'):
            said = [line[2:] for line in text.splitlines() if line.startswith(': ')]
            assert said
            assert [
                line for line in said if len(line) < 4 or line.startswith('see the help')
            ] == []


def test_every_file_and_column_of_a_scan_is_described(made: dict[str, str]) -> None:
    from shivacmb.bids.names import IMAGES
    from shivacmb.bids.tables import COLUMNS
    from shivacmb.lesions import LESION_COLUMNS

    assert made['parts/scan-files.md'].count('.nii.gz`') == len(IMAGES)
    for name in COLUMNS:
        assert f'| `{name}` |' in made['parts/scans-table.md']
    for name in LESION_COLUMNS:
        assert f'| `{name}` |' in made['parts/lesions-table.md']


def test_every_exit_code_is_explained(made: dict[str, str]) -> None:
    from shivacmb import exceptions

    codes = {kind.exit_code for kind in vars(exceptions).values() if hasattr(kind, 'exit_code')}
    for code in codes | {0, 17}:
        assert f'\n| {code} | ' in made['parts/exit-codes.md']


def test_cards_of_shipped_models_have_figures_and_checksums(made: dict[str, str]) -> None:
    cards = {name: text for name, text in made.items() if name.startswith('model-')}
    assert {'model-synth-cmb.md', 'model-brain-zones.md'} <= set(cards)
    for name, text in cards.items():
        assert '**Intended use.**' in text, name
        figures = text.split('## How well it does')[1].split('## How it was trained')[0]
        assert re.search(r'\d\.\d', figures), name
        assert re.search(r'`[0-9a-f]{64}`', text), name


def test_tables_have_as_many_cells_as_their_head(made: dict[str, str]) -> None:
    for name, text in made.items():
        lengths = {}
        for line in text.splitlines():
            if line.startswith('|'):
                cells = re.sub(r'\\\||`[^`]*`', '', line).count('|')
                lengths.setdefault('first', cells)
                assert cells == lengths['first'], f'{name}: {line}'
            else:
                lengths.clear()


def _written() -> list[Path]:
    top = [ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md')]
    pages = [path for path in DOCS.rglob('*.md') if 'generated' not in path.parts]
    return [*top, *(path for path in pages if '_build' not in path.parts)]


@pytest.mark.parametrize('page', _written(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path, made: dict[str, str]) -> None:
    broken = []
    for target in LINK.findall(CODE.sub('', page.read_text(encoding='utf-8'))):
        if '://' in target or target.startswith(('#', 'mailto:')):
            continue
        name = target.split('#')[0]
        if name.startswith('generated/'):
            found = name.removeprefix('generated/') in made
        else:
            found = (page.parent / name).exists()
        if not found:
            broken.append(target)
    assert broken == []


def test_every_page_is_in_the_navigation(made: dict[str, str]) -> None:
    text = (DOCS / 'index.md').read_text() + made['parts/cluster-pages.md']
    listed = set(re.findall(r'^([\w/-]+)$', text, re.MULTILINE)) | {'index'}
    pages = {path.stem for path in DOCS.glob('*.md')}
    assert pages - listed == set()


def test_every_decision_is_listed_once(from_code: Any, made: dict[str, str]) -> None:
    files = sorted((DOCS / 'decisions').glob('[0-9]*.md'))
    numbers = [path.name[:4] for path in files]
    assert sorted(set(numbers)) == numbers
    for path in files:
        assert f'</decisions/{path.stem}>' in made['decisions.md']
        assert from_code.decision_titles()[path.stem]


def test_upgrade_notes_cover_every_version_of_the_changelog() -> None:
    def versions(name: Path) -> list[str]:
        return re.findall(r'^## (Unreleased|\d+\.\d+\.\d+)', name.read_text(), re.MULTILINE)

    changelog = versions(ROOT / 'CHANGELOG.md')
    assert changelog
    assert set(changelog) <= set(versions(DOCS / 'upgrading.md'))


def test_shown_commands_are_commands(from_code: Any) -> None:
    """Every ``shivacmb-tools NAME --option`` in the pages exists with its options."""
    tools = from_code.commands(from_code._tools_parser())
    known = {
        name: {
            option for leaf in _leaves(from_code, tool) for option in leaf._option_string_actions
        }
        for name, tool in tools.items()
    }
    run = set(from_code._run_parser()._option_string_actions)
    wrong = []
    for page in [ROOT / 'README.md', *DOCS.glob('*.md')]:
        text = page.read_text(encoding='utf-8').replace('\\\n', ' ')
        for line in re.findall(
            r'^ {4,}(?:\w+=\S+ )*(shivacmb(?:-tools)? .*)$', text, re.MULTILINE
        ):
            typed, _, passed_on = re.sub(r'[>&|;].*', '', line.split('#')[0]).partition(' -- ')
            words = typed.split()
            if words[0] == 'shivacmb-tools' and words[1] not in {*known, '--version', '--help'}:
                wrong.append(f'{page.name}: {line}')
                continue
            allowed = known.get(words[1], set()) if words[0] == 'shivacmb-tools' else run
            options = [(word, allowed) for word in words] + [
                (word, run) for word in passed_on.split()
            ]
            for word, those in options:
                if word.startswith('--') and word.split('=')[0] not in those | {
                    '--version',
                    '--help',
                }:
                    wrong.append(f'{page.name}: {line}')
    assert wrong == []


def test_pages_with_parts_from_the_code_tell_readers_of_a_clone() -> None:
    """In a clone nothing stands there; the index has lists of pages alone."""
    for path in sorted(DOCS.glob('*.md')):
        text = path.read_text()
        if '{include} generated/' in text and path.name != 'index.md':
            assert '`make docs` puts ' in text, path.name
