"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable


def plain(text: str) -> str:
    """Plain text in Markdown: what would be markup is shown as it is typed."""
    text = re.sub(r'\s+', ' ', text).strip()
    return re.sub(r'([*_<>\[\]{}$|`])', r'\\\1', text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Build a table."""
    head = list(head)
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    lines += ['| ' + ' | '.join(cell.replace('\n', ' ') for cell in row) + ' |' for row in rows]
    return '\n'.join(lines) + '\n'
