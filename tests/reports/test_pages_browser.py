"""The pages in a real browser: pictures load from file://, tables sort and filter."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from shivacmb.reports import (
    ScanReport,
    figure_paths,
    page_summary,
    write_figures,
    write_index,
    write_session_page,
)

BROWSER = next(
    (
        path
        for name in ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
        if (path := shutil.which(name))
    ),
    None,
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason='no Chromium on this machine')


def _probe(page, script, folder):
    """Run a script in the loaded page and return what it leaves in ``found``."""
    html = page.read_text(encoding='utf-8')
    probe = page.with_name('probe.html')
    probe.write_text(
        html.replace('loading="lazy"', '').replace(
            '</body>',
            '<script>window.addEventListener("load", function () { let found;'
            f'{script}; document.title = "found" + JSON.stringify(found); }});</script></body>',
        ),
        encoding='utf-8',
    )
    options = (
        '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run',
        '--disable-background-networking', f'--user-data-dir={folder / "profile"}',
        '--virtual-time-budget=10000', '--dump-dom',
    )  # fmt: skip
    run = subprocess.run(
        [BROWSER, *options, probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = re.search(r'<title>found(.*?)</title>', run.stdout, re.DOTALL)
    assert found, run.stderr[-2000:]
    return json.loads(
        found.group(1).replace('&lt;', '<').replace('&gt;', '>').replace('&amp;', '&')
    )


def test_pictures_load_and_the_table_has_its_rows(head, tmp_path):
    stem = 'sub-01_acq-swi'
    paths = figure_paths(tmp_path, '01', stem)
    write_figures(head.image, head.labels, head.mask, head.box, head.lesions, head.affine, *paths)
    scan = ScanReport(stem, count=2, burden_class='1-3', volume_mm3=280, lesions=head.lesions)
    page = write_session_page(tmp_path, '01', None, [scan])
    found = _probe(
        page,
        'const images = Array.from(document.images);'
        'found = {images: images.map(i => [i.naturalWidth, i.naturalWidth == i.getAttribute("width")]),'  # noqa: E501
        'rows: document.querySelectorAll("tbody tr").length,'
        'wide: document.documentElement.scrollWidth <= window.innerWidth}',
        tmp_path,
    )
    assert len(found['images']) == 2
    assert all(width > 400 and same for width, same in found['images'])
    assert found['rows'] == 2
    assert found['wide']


def test_index_sorts_and_filters(tmp_path):
    for label, count, words in (
        ('a', 2, '1-3'),
        ('b', 12, '>=10'),
        ('c', 0, '0'),
        ('d', 5, '4-9'),
    ):
        scan = ScanReport(f'sub-{label}', count=count, burden_class=words, volume_mm3=1.0 * count)
        write_session_page(tmp_path, label, None, [scan])
    write_session_page(tmp_path, 'e', None, [ScanReport('sub-e', status='failed', reason='No.')])
    found = _probe(
        write_index(tmp_path),
        'const names = () => Array.from(document.querySelectorAll("tbody tr:not([hidden]) a"))'
        '.map(a => a.textContent).join("");'
        'const click = n => document.querySelectorAll("thead button")[n].click();'
        'found = {start: names()}; click(2); found.count = names();'
        'click(2); found.down = names(); click(3); found.burden = names();'
        'const box = document.getElementById("words"); box.value = "FAILED";'
        'box.dispatchEvent(new Event("input")); found.filtered = names();'
        'found.shown = document.getElementById("shown").textContent',
        tmp_path,
    )
    assert found == {
        'start': 'abcde',
        'count': 'cadbe',
        'down': 'bdace',
        'burden': 'cadbe',
        'filtered': 'e',
        'shown': '1 of 5',
    }


def test_a_large_index_shows_a_part_at_a_time(tmp_path):
    summaries = []
    names = ('0', '1-3', '4-9', '>=10')
    for number in range(1001):
        count = number % 13
        name = names[0 if count == 0 else 1 if count < 4 else 2 if count < 10 else 3]
        scan = ScanReport(
            f'sub-{number}_ses-a_run-1', count=count, burden_class=name, volume_mm3=2.0 * count
        )
        summaries.append(page_summary(str(number), 'a', [scan]))
        (tmp_path / 'docs').mkdir(exist_ok=True)
        (tmp_path / 'docs' / f'sub-{number}_ses-a.html').touch()
    failed = ScanReport('sub-x', status='failed', reason='No </script> here.')
    summaries.append(page_summary('x', None, [failed]))
    (tmp_path / 'docs' / 'sub-x.html').touch()
    found = _probe(
        write_index(tmp_path, known=summaries),
        'const rows = () => Array.from(document.querySelectorAll("tbody tr"));'
        'const words = row => Array.from(row.cells).map(c => c.textContent);'
        'const click = n => document.querySelectorAll("thead button")[n].click();'
        'const where = () => document.getElementById("where").textContent;'
        'found = {rows: rows().length, first: words(rows()[0]), where: where(),'
        'link: rows()[0].querySelector("a").getAttribute("href")};'
        'document.getElementById("next").click(); found.next = [where(), words(rows()[0])[0]];'
        'click(3); click(3); found.most = words(rows()[0]);'
        'const box = document.getElementById("words"); box.value = "FAILED";'
        'box.dispatchEvent(new Event("input")); found.filtered = rows().map(words);'
        'found.shown = document.getElementById("shown").textContent;'
        'found.back = document.getElementById("back").disabled',
        tmp_path,
    )
    assert found == {
        'rows': 200,
        'first': ['0', 'a', 'run-1', '0', '0', '0', '0', 'complete'],
        'where': '1 to 200 of 1002',
        'link': 'sub-0_ses-a.html#sub-0_ses-a_run-1',
        'next': ['201 to 400 of 1002', '200'],
        'most': ['12', 'a', 'run-1', '12', '≥\u200910', '24', '0', 'complete'],
        'filtered': [['x', '–', '–', '–', '–', '–', '0', 'failed: No </script> here.']],
        'shown': '1 of 1002',
        'back': True,
    }
