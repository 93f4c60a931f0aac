"""The one-page summary: HTML, and a PDF of it."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shivacmb.evaluate.evaluation import Result
from shivacmb.evaluate.summaries import Row
from shivacmb.evaluate.table3 import TableRow
from shivacmb.reports.files import write_whole

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
_SECONDS = 60
#: measure, aggregate: what the page shows of each rule
SHOWN = (
    ('sensitivity', 'mean'), ('precision', 'mean'), ('f1_count', 'mean'), ('f1_count', 'median'),
    ('magnitude', 'of-means'),
    ('sensitivity', 'pooled'), ('precision', 'pooled'), ('f1_count', 'pooled'),
    ('f1_harmonic', 'pooled'), ('fp_avg', 'pooled'),
)  # fmt: skip


def text(value: float | None, digits: int = 2) -> str:
    """Write a number with fixed digits, a dash where there is none."""
    return '–' if value is None or not math.isfinite(value) else f'{value:.{digits}f}'


def between(low: float, high: float) -> str:
    """Both ends of an interval; a word between them where a dash could be taken for a minus."""
    return f'{text(low)} to {text(high)}' if low < 0 else f'{text(low)}\u2013{text(high)}'


def with_interval(row: Any) -> dict[str, str]:
    """Value and interval as text."""
    if row is None:
        return {'value': '–', 'interval': ''}
    known = math.isfinite(row.low) and math.isfinite(row.high)
    return {
        'value': text(row.value),
        'interval': between(row.low, row.high) if known else '',
    }


def rule_rows(result: Result) -> list[dict[str, Any]]:
    """One line per rule and zero rule for the page's main table."""
    lines = []
    for rule in result.plan.rules:
        rows = result.summary.get(rule.name, [])
        for zero_rule in rule.zero_rules if rows else ():
            cells = [
                with_interval(_find(rows, measure, aggregate, zero_rule))
                for measure, aggregate in SHOWN
            ]
            limit = ''
            if not math.isnan(rule.tolerance):
                limit = f'{rule.tolerance:g} {rule.unit.replace("voxel", "voxels")}'
            lines.append(
                {'rule': rule.name, 'zero_rule': zero_rule, 'limit': limit, 'cells': cells}
            )
    return lines


def _find(rows: Sequence[Row], measure: str, aggregate: str, zero_rule: str) -> Row | None:
    for row in rows:
        fits = aggregate == 'pooled' or row.zero_rule in (zero_rule, 'n/a')
        if row.measure == measure and row.aggregate == aggregate and fits:
            return row
    return None


def write_page(path: Path, content: Mapping[str, Any]) -> Path:
    """Render the template.

    Parameters
    ----------
    path : Path
        HTML to write; pictures are linked relative to it.
    content : mapping
        What the template asks for.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader('shivacmb.evaluate', 'templates'),
                PackageLoader('shivacmb.reports', 'templates'),
            ]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    html = environment.get_template('evaluation.html.j2').render(**content)
    return write_whole(path, html.encode())


def table_content(rows: Sequence[TableRow]) -> list[dict[str, Any]]:
    """Rows of the paper's table for the template."""
    return [
        {'name': row.name, 'images': row.images, 'lesions': row.lesions, 'cells': row.cells}
        for row in rows
    ]


def write_pdf(page: Path, pictures: Sequence[Path], summary: str, *, browser: bool) -> str:
    """Write a PDF beside the page.

    Parameters
    ----------
    page : Path
        HTML.
    pictures : sequence of Path
        Used where there is no browser.
    summary : str
        Text of the first sheet then.
    browser : bool
        Whether a browser may be started.

    Returns
    -------
    str
        What made it: the name of the browser, or ``matplotlib``.
    """
    target = page.with_suffix('.pdf')
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser and program and _print_page(program, page, target):
        return Path(program).name
    _collect(target, pictures, summary)
    return 'matplotlib'


def _print_page(program: str, page: Path, target: Path) -> bool:
    """Print by a headless browser; False when it does not manage in a minute."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / 'page.pdf'
        command = [
            program, '--headless', '--disable-gpu', '--no-sandbox', '--no-pdf-header-footer',
            f'--user-data-dir={folder}/profile', f'--print-to-pdf={made}', page.resolve().as_uri(),
        ]  # fmt: skip
        try:
            subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
            content = made.read_bytes()
        except (OSError, subprocess.SubprocessError):
            return False
    if not content.startswith(b'%PDF'):
        return False
    write_whole(target, content)
    return True


def _collect(target: Path, pictures: Sequence[Path], summary: str) -> None:
    """One sheet of text, then one picture a sheet; the same input gives the same bytes."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure
    from PIL import Image

    stream = io.BytesIO()
    wrapped = '\n'.join(textwrap.fill(line, 150, subsequent_indent='  ', drop_whitespace=False)
                        if len(line) > 150 else line for line in summary.splitlines())  # fmt: skip
    with mpl.rc_context():
        mpl.rcdefaults()
        with PdfPages(stream, metadata={'CreationDate': None}) as pdf:
            sheet = Figure(figsize=(11.7, 8.3))
            sheet.text(0.04, 0.96, wrapped, va='top', family='monospace', fontsize=7.5,
                       parse_math=False)  # fmt: skip
            pdf.savefig(sheet)
            for path in pictures:
                with Image.open(path) as image:
                    sheet = Figure(figsize=(11.7, 8.3))
                    axes = sheet.add_axes((0.03, 0.03, 0.94, 0.94))
                    axes.imshow(image.convert('RGB'))
                axes.axis('off')
                pdf.savefig(sheet, dpi=150)
    write_whole(target, stream.getvalue())
