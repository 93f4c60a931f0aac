"""Tables that benchmarks leave beside themselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def write_table(path: Path, title: str, how: str, rows: Iterable[tuple[str, str]]) -> None:
    """Write a page with one table of figures, and print it."""
    text = [
        f'# {title}',
        '',
        how,
        '',
        '| what | measured |',
        '|---|---|',
        *[f'| {name} | {figure} |' for name, figure in rows],
        '',
    ]
    path.write_text('\n'.join(text), encoding='utf-8')
    print(path.read_text(encoding='utf-8'))
