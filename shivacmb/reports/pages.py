"""The pages of a report: one per participant or session, and an index over all."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shivacmb.exceptions import OutputError
from shivacmb.reports.files import write_whole
from shivacmb.reports.views import LesionLike

if TYPE_CHECKING:
    from jinja2 import Environment

COMPLETE = 'complete'
#: Above this the index holds data instead of a table, which browsers are slow to lay out.
MAX_PLAIN_ROWS = 500
BURDEN_CLASSES = ('0', '1-3', '4-9', '>=10')
_SUMMARY = re.compile(
    r'<script type="application/json" id="shivacmb-summary">(.*?)</script>', re.DOTALL
)
_SUMMARY_KEYS = {'participant', 'session', 'scans'}
_PNG_SIZE = slice(16, 24)


@dataclass(frozen=True)
class ScanReport:
    """What a page says about one scan.

    Attributes
    ----------
    stem : str
        Name of the scan's outputs without suffix, such as ``sub-01_ses-1_run-1``.
    status : str
        ``complete``; any other word marks the scan as not finished.
    reason : str
        Why it failed, for a person to act on.
    count, burden_class, volume_mm3 : int, str and float, or None
        The result; None where there is none.
    groups : tuple of (str, int)
        Count by group of zones, such as ``('lobar', 3)``; empty where zones are not known.
    lesions : sequence of lesions
        Rows of the per-lesion table.
    warnings : tuple of str
        Sentences.
    facts : tuple of (str, str)
        What was done, in order: a name and its value, such as ``('Brain mask', 'built in')``.
    notices : tuple of (str, str)
        What the cards of the models warn of, such as that no patient has validated one: a
        heading and a text for each model that took part.
    files : tuple of (str, str)
        Label and path of outputs worth a link, relative to the output folder.
    """

    stem: str
    status: str = COMPLETE
    reason: str = ''
    count: int | None = None
    burden_class: str | None = None
    volume_mm3: float | None = None
    groups: tuple[tuple[str, int], ...] = ()
    lesions: Sequence[LesionLike] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    notices: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = field(default=())


def figure_paths(out_dir: str | Path, participant: str, stem: str) -> tuple[Path, Path]:
    """Where the pictures of a scan belong and its page looks for them: overview, lesions."""
    folder = Path(out_dir) / 'docs' / 'figures' / f'sub-{participant.removeprefix("sub-")}'
    return folder / f'{stem}_overview.png', folder / f'{stem}_lesions.png'


def write_session_page(
    out_dir: str | Path,
    participant: str,
    session: str | None,
    scans: Sequence[ScanReport],
    *,
    version: str = '',
) -> Path:
    """Write ``docs/sub-X[_ses-Y].html`` over all scans of a participant or session.

    Parameters
    ----------
    out_dir : path
        The output folder. Pictures are those found at ``figure_paths``.
    participant, session : str
        Labels, with or without ``sub-`` and ``ses-``.
    scans : sequence of ScanReport
        Finished and failed ones; shown by name, run-2 before run-10.
    version : str
        Version of this package, for the foot of the page.

    Returns
    -------
    Path
        The page. The same input gives the same bytes.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    docs = Path(out_dir) / 'docs'
    participant = participant.removeprefix('sub-')
    session = session.removeprefix('ses-') if session else None
    name = _page_name(participant, session)
    scans = sorted(scans, key=lambda scan: _natural(scan.stem))
    summary = page_summary(participant, session, scans)
    sections = [
        {
            'scan': scan,
            'title': scan.stem.removeprefix(f'{name}_') or scan.stem,
            'overview': _picture(docs, figure_paths(out_dir, participant, scan.stem)[0]),
            'closeups': _picture(docs, figure_paths(out_dir, participant, scan.stem)[1]),
            'files': [(label, '../' + quote(path)) for label, path in scan.files],
        }
        for scan in scans
    ]
    html = (
        _environment()
        .get_template('session.html.j2')
        .render(
            name=name,
            participant=participant,
            session=session,
            sections=sections,
            summary=summary,
            version=version,
        )
    )
    return write_whole(docs / f'{name}.html', html.encode())


def page_summary(
    participant: str, session: str | None, scans: Sequence[ScanReport]
) -> dict[str, Any]:
    """Return what the index shows of one page; each page also carries it, in a block of JSON.

    Parameters
    ----------
    participant, session : str
        Labels without prefix.
    scans : sequence of ScanReport
        Of the session; of a scan only what the index shows has to be filled in.
    """
    return {
        'participant': participant,
        'session': session,
        'scans': [
            {
                'stem': scan.stem,
                'status': scan.status,
                'reason': scan.reason,
                'count': scan.count,
                'burden_class': scan.burden_class,
                'volume_mm3': None if scan.volume_mm3 is None else round(scan.volume_mm3, 2),
                'warnings': len(scan.warnings),
            }
            for scan in scans
        ],
        'notices': list(dict.fromkeys(notice for scan in scans for notice in scan.notices)),
    }


def _page_name(participant: str, session: str | None) -> str:
    return f'sub-{participant}' + (f'_ses-{session}' if session else '')


def _picture(docs: Path, path: Path) -> dict[str, Any] | None:
    """Address and size in pixels of a picture; None where it is not there, or cut short."""
    try:
        with path.open('rb') as stream:
            size = stream.read(_PNG_SIZE.stop)[_PNG_SIZE]
    except FileNotFoundError:
        return None
    if len(size) < 8:
        # one damaged picture must not cost the pages of all others, nor the index
        return None
    return {
        'src': quote(path.relative_to(docs).as_posix()),
        'width': int.from_bytes(size[:4], 'big'),
        'height': int.from_bytes(size[4:], 'big'),
    }


def write_index(
    out_dir: str | Path,
    *,
    version: str = '',
    known: Iterable[Mapping[str, Any]] = (),
    without: Sequence[tuple[str, str]] = (),
    counts: Callable[[str, str | None], bool] = lambda *_: True,
) -> Path:
    """Write ``docs/index.html`` over the pages that are in ``docs`` now.

    Each page carries its own results in a block of JSON, so that the index needs nothing else and
    can be made while participants are still being added. An HTML file without that block is
    passed over. Above ``MAX_PLAIN_ROWS`` scans the rows are written as data, of which a script
    shows some at a time.

    Parameters
    ----------
    out_dir : path
        The output folder.
    version : str
        Version of this package, for the foot of the page.
    known : iterable of dict
        Results as :func:`page_summary` returns them; pages that are among them are not opened.
    without : sequence of (str, str)
        Participants without any scan, and why.
    counts : callable
        Whether a session (participant, session) that is not among ``known`` has results still:
        who removes those may leave the page.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    docs = Path(out_dir) / 'docs'
    summaries = {_page_name(item['participant'], item['session']): item for item in known}
    rows: list[dict[str, Any]] = []
    notices: dict[tuple[str, str], None] = {}
    for name in sorted(_page_names(docs), key=_natural):
        summary = summaries.get(name) or _read_summary(docs / f'{name}.html')
        if summary is None:
            continue
        if name not in summaries and not counts(summary['participant'], summary['session']):
            continue
        # pages of earlier versions have none
        notices.update(((heading, text), None) for heading, text in summary.get('notices', ()))
        rows += [
            {
                'href': f'{quote(name)}.html#{quote(scan["stem"])}',
                'participant': summary['participant'],
                'session': summary['session'],
                'short': _without_labels(scan['stem']),
                **scan,
            }
            for scan in summary['scans']
        ]
    done = [row for row in rows if row['status'] == COMPLETE and row['count'] is not None]
    classes = Counter(row['burden_class'] for row in done)
    plain = len(rows) <= MAX_PLAIN_ROWS
    html = (
        _environment()
        .get_template('index.html.j2')
        .render(
            rows=rows if plain else [],
            data=None if plain else [_data_row(row) for row in rows],
            scans=len(rows),
            people=len({row['participant'] for row in rows}),
            complete=sum(row['status'] == COMPLETE for row in rows),
            total=sum(row['count'] for row in done) if done else None,
            without=without,
            classes=[
                (name, classes[name], 100 * classes[name] / len(done))
                for name in BURDEN_CLASSES
                if classes[name]
            ],
            class_names=[_burden_words(name) for name in BURDEN_CLASSES],
            with_session=any(row['session'] for row in rows),
            notices=list(notices),
            version=version,
        )
    )
    return write_whole(docs / 'index.html', html.encode())


def _page_names(docs: Path) -> list[str]:
    """Names of the session pages without extension: one listing, no page is opened."""
    try:
        found = os.listdir(docs)  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f'Cannot read <{docs}>: {error.strerror}. Check the rights.') from error
    return [name[:-5] for name in found if name.startswith('sub-') and name.endswith('.html')]


def _read_summary(page: Path) -> dict[str, Any] | None:
    """Return the results that a page carries; None for a page of someone else."""
    try:
        found = _SUMMARY.search(page.read_text(encoding='utf-8'))
        content = None if found is None else json.loads(found.group(1))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        # a folder, a link to nothing, another encoding: none of ours
        return None
    return content if isinstance(content, dict) and content.keys() >= _SUMMARY_KEYS else None


def _data_row(row: Mapping[str, Any]) -> list[Any]:
    """One row of a large index: what its script puts into cells, nothing that it can derive."""
    status = row['status'] if not row['reason'] else f'{row["status"]}: {row["reason"]}'
    done = row['status'] == COMPLETE and row['count'] is not None
    volume = None if row['volume_mm3'] is None else int(f'{row["volume_mm3"]:.0f}')
    return [
        row['participant'],
        row['session'] or 0,
        row['short'],
        row['stem'] if row['href'] != _usual_address(row) else 0,
        row['count'] if done else None,
        BURDEN_CLASSES.index(row['burden_class']) if done else None,
        volume if done else None,
        row['warnings'],
        0 if row['status'] == COMPLETE else status,
    ]


def _usual_address(row: Mapping[str, Any]) -> str:
    """Where the page of a row is if its stem is made of its labels, as stems are."""
    name = _page_name(row['participant'], row['session'])
    stem = '_'.join(part for part in (name, row['short']) if part)
    return f'{quote(name)}.html#{quote(stem)}'


def _without_labels(stem: str) -> str:
    parts = [part for part in stem.split('_') if not part.startswith(('sub-', 'ses-'))]
    return '_'.join(parts)


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key: sub-2 before sub-10."""
    return [
        (int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', text)
    ]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader('shivacmb.reports', 'templates'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['burden'] = _burden_words
    environment.filters['signed'] = lambda value: f'{round(value, 1) + 0.0:+.1f}'
    environment.filters['known'] = lambda value, form: (
        form.format(value) if math.isfinite(value) else '–'
    )
    return environment


def _burden_words(name: str | None) -> str:
    """Typeset a burden class: an en dash, and the sign for "at least"."""
    return '' if name is None else name.replace('-', '–').replace('>=', '≥\u2009')
