"""Make the output folder of a large study from one real run, by giving its results other names.

    python bench/finished_tree.py SOURCE TARGET --scans 10000

SOURCE is an output folder of the participant level. Every record, table and page of TARGET is
that of one of its participants with another label; images and pictures are hard links. Nothing
reads the pixels of images at the group level, everything else is as a run leaves it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

_CHECKSUM = re.compile(r'"input_sha256": "([0-9a-f]{64})"')
TEXT = frozenset({'.json', '.tsv', '.html'})


@dataclass(frozen=True)
class Template:
    """One participant of a finished run: its files, with its label taken out of their names."""

    label: str
    texts: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, Path], ...]
    folders: frozenset[str]
    checksums: frozenset[str]


def read_template(source: Path, label: str) -> Template:
    """Read everything that belongs to one participant."""
    texts, links = [], []
    places = [source / f'sub-{label}', source / 'logs' / f'sub-{label}']
    places.append(source / 'docs' / 'figures' / f'sub-{label}')
    found = [path for place in places for path in sorted(place.rglob('*')) if path.is_file()]
    found += sorted((source / 'docs').glob(f'sub-{label}.html'))
    found += sorted((source / 'docs').glob(f'sub-{label}_*.html'))
    for path in found:
        name = path.relative_to(source).as_posix()
        # nothing of this participant's runs: they would be one more folder, not another name
        if '/run-' in name:
            continue
        if path.suffix in TEXT:
            texts.append((name, path.read_text('utf-8')))
        else:
            links.append((name, path))
    names = [name for name, _ in (*texts, *links)]
    return Template(
        label,
        tuple(texts),
        tuple(links),
        frozenset(name.rpartition('/')[0] for name in names),
        frozenset(found for _, text in texts for found in _CHECKSUM.findall(text)),
    )


def _renamed(text: str, old: str, new: str) -> str:
    return text.replace(f'sub-{old}', f'sub-{new}').replace(
        f'"participant": "{old}"', f'"participant": "{new}"'
    )


def _other_image(text: str, checksums: frozenset[str], label: str) -> str:
    """Give every participant an image of its own, as far as the checksum says."""
    for checksum in checksums:
        text = text.replace(checksum, hashlib.sha256((checksum + label).encode()).hexdigest())
    return text


def add(target: Path, template: Template, label: str) -> None:
    """Add one participant under another label; the record comes last, as in a run."""
    for folder in template.folders:
        (target / _renamed(folder, template.label, label)).mkdir(parents=True, exist_ok=True)
    for name, path in template.links:
        os.link(path, target / _renamed(name, template.label, label))
    for name, text in sorted(template.texts, key=lambda item: item[0].startswith('logs/')):
        content = _renamed(text, template.label, label)
        content = _other_image(content, template.checksums, label)
        (target / _renamed(name, template.label, label)).write_text(content, encoding='utf-8')


def templates_of(source: Path) -> list[Template]:
    """Return every participant of a finished run."""
    labels = sorted(path.name[4:] for path in (source / 'logs').glob('sub-*'))
    return [read_template(source, label) for label in labels]


def make(source: Path, target: Path, scans: int, start: int = 0) -> None:
    """Add ``scans`` participants to ``target``, numbered from ``start``."""
    templates = templates_of(source)
    for path in source.iterdir():
        if path.is_file() and not (target / path.name).exists():
            target.mkdir(parents=True, exist_ok=True)
            (target / path.name).write_bytes(path.read_bytes())
    for number in range(start, start + scans):
        add(target, templates[number % len(templates)], f'{number:05d}')


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path)
    parser.add_argument('target', type=Path)
    parser.add_argument('--scans', type=int, default=10_000)
    parser.add_argument('--start', type=int, default=0)
    args = parser.parse_args()
    make(args.source, args.target, args.scans, args.start)


if __name__ == '__main__':
    main()
