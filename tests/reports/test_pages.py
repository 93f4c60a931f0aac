from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest

from shivacmb.exceptions import OutputError
from shivacmb.reports import (
    ScanReport,
    figure_paths,
    page_summary,
    write_index,
    write_session_page,
)

PNG = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x20\x08\2\0\0\0'
VOID = {'meta', 'link', 'img', 'br', 'input'}


class _Page(HTMLParser):
    """Fails on tags that do not close; gathers tags and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], ''
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        # li and p may close by themselves in HTML, here they never do
        assert self.open.pop() == tag
        if tag in ('dt', 'dd', 'td', 'th'):
            self.text += ' '

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ('script', 'style'):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def _page(path):
    return _Page(path.read_text(encoding='utf-8'))


def _scan(lesion, stem='sub-01_ses-a_run-1', **changed):
    values = {
        'count': 2,
        'burden_class': '1-3',
        'volume_mm3': 91.4,
        'lesions': (
            lesion(1, -12.34, 5, 6),
            lesion(2, 1, 2, 3, edge_distance_mm=math.nan),
        ),
        'facts': (('Toolkit', 'native'), ('Threshold', '0.4')),
        'notices': (
            ('About the model', 'Trained on simulated lesions.'),
            ('About zones', 'A guess.'),
        ),
        'warnings': ('The mask is small.',),
        'files': (('table', 'sub-01/anat/x y.tsv'),),
    }
    return ScanReport(stem, **(values | changed))


def test_the_page_says_what_it_was_told(tmp_path, lesion):
    path = write_session_page(tmp_path, 'sub-01', 'ses-a', [_scan(lesion)], version='1.2')
    assert path == tmp_path / 'docs' / 'sub-01_ses-a.html'
    page = _page(path)
    words = ' '.join(page.text.split())
    for said in (
        'Research use only', 'Participant 01, session a', 'run-1', '1–3', '91 mm³',
        'About the model. Trained on simulated lesions.', 'About zones. A guess.',
        'The mask is small.', 'Toolkit', 'native', '-12.3', '67 %', 'shivacmb 1.2',
    ):  # fmt: skip
        assert said in words
    assert 'nan' not in words.lower()
    assert {'href': '../sub-01/anat/x%20y.tsv'} in page.all('a')
    assert sum(tag == 'tr' for tag, _ in page.tags) == 3


def test_pages_are_the_same_on_every_run(tmp_path, lesion):
    one = write_session_page(tmp_path, '01', None, [_scan(lesion)]).read_bytes()
    index = write_index(tmp_path).read_bytes()
    assert write_session_page(tmp_path, '01', None, [_scan(lesion)]).read_bytes() == one
    assert write_index(tmp_path).read_bytes() == index
    assert sorted(path.name for path in (tmp_path / 'docs').iterdir()) == [
        'index.html',
        'sub-01.html',
    ]


def test_pictures_are_linked_where_they_lie(tmp_path, lesion):
    scan = _scan(lesion)
    assert not _page(write_session_page(tmp_path, '01', 'a', [scan])).all('img')
    for path in figure_paths(tmp_path, 'sub-01', scan.stem):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    path = write_session_page(tmp_path, '01', 'a', [scan])
    images = _page(path).all('img')
    assert [image['src'] for image in images] == [
        f'figures/sub-01/{scan.stem}_overview.png',
        f'figures/sub-01/{scan.stem}_lesions.png',
    ]
    for image in images:
        assert (path.parent / image['src']).is_file()
        assert (image['width'], image['height']) == ('16', '32')
        assert len(image['alt']) > 40


def test_a_picture_cut_short_costs_no_page(tmp_path, lesion):
    path = figure_paths(tmp_path, '01', 'sub-01_ses-a_run-1')[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(PNG[:20])
    page = _page(write_session_page(tmp_path, '01', 'a', [_scan(lesion)]))
    assert not page.all('img')
    assert 'picture of this scan is missing or damaged' in page.text
    path.write_bytes(PNG)
    page = _page(write_session_page(tmp_path, '01', 'a', [_scan(lesion)]))
    assert len(page.all('img')) == 1
    assert 'picture of this scan is missing' not in page.text
    assert 'picture of the lesions is missing or damaged' in page.text
    figure_paths(tmp_path, '01', 'sub-01_ses-a_run-1')[1].write_bytes(PNG)
    page = _page(write_session_page(tmp_path, '01', 'a', [_scan(lesion)]))
    assert 'is missing or damaged' not in page.text


def test_a_failed_scan_shows_its_reason_and_nothing_old(tmp_path, lesion):
    scan = ScanReport('sub-01', status='failed', reason='The image <a.nii> is empty.')
    for path in figure_paths(tmp_path, '01', scan.stem):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG)
    page = _page(write_session_page(tmp_path, '01', None, [scan]))
    assert 'No result: failed. The image <a.nii> is empty.' in page.text
    assert 'microbleeds found' not in page.text
    assert not page.all('img')


def test_words_from_outside_stay_words(tmp_path, lesion):
    evil = '</script><script>alert(1)</script>&"\''
    scan = _scan(
        lesion, reason=evil, warnings=(evil,), facts=((evil, evil),), notices=((evil, evil),)
    )
    path = write_session_page(tmp_path, '01', None, [scan])
    page = _page(path)
    assert page.text.count(evil) == 6
    assert page.all('script') == [{'type': 'application/json', 'id': 'shivacmb-summary'}]
    write_session_page(tmp_path, '02', None, [ScanReport('sub-02', status='failed', reason=evil)])
    index = _page(write_index(tmp_path))
    assert index.text.count(evil) == 3
    assert len(index.all('script')) == 1


def test_nothing_is_fetched_from_elsewhere(tmp_path, lesion):
    paths = [write_session_page(tmp_path, '01', None, [_scan(lesion)]), write_index(tmp_path)]
    for path in paths:
        html = path.read_text(encoding='utf-8')
        assert not re.search(r'https?:|//[a-z]|@import|url\(', html)
        assert not _page(path).all('link')


def test_tables_have_heads_and_pages_a_language(tmp_path, lesion):
    paths = [write_session_page(tmp_path, '01', None, [_scan(lesion)]), write_index(tmp_path)]
    for path in paths:
        page = _page(path)
        assert page.all('html')[0]['lang'] == 'en'
        assert all(head['scope'] in ('col', 'row') for head in page.all('th'))
        ids = [attrs['id'] for _, attrs in page.tags if 'id' in attrs]
        assert len(ids) == len(set(ids))


def test_index_counts_and_orders(tmp_path, lesion):
    for label, count, words in (('10', 0, '0'), ('2', 12, '>=10'), ('1', 3, '1-3')):
        scan = ScanReport(f'sub-{label}', count=count, burden_class=words, volume_mm3=count * 2.0)
        write_session_page(tmp_path, label, None, [scan])
    failed = ScanReport('sub-3_ses-b_run-10', status='failed', reason='Empty file.')
    write_session_page(tmp_path, '3', 'b', [failed, ScanReport('sub-3_ses-b_run-2', count=None)])
    (tmp_path / 'docs' / 'sub-foreign.html').write_text('<p>not ours</p>')
    page = _page(write_index(tmp_path))
    words = ' '.join(page.text.split())
    links = [attrs['href'] for attrs in page.all('a')]
    assert links == [
        'sub-1.html#sub-1', 'sub-2.html#sub-2', 'sub-3_ses-b.html#sub-3_ses-b_run-2',
        'sub-3_ses-b.html#sub-3_ses-b_run-10', 'sub-10.html#sub-10',
    ]  # fmt: skip
    for link in links:
        name, anchor = link.split('#')
        assert anchor in {a.get('id') for _, a in _page(tmp_path / 'docs' / name).tags}
    assert 'participants 4' in words
    assert 'scans 5' in words
    assert 'without a result 1' in words
    assert 'microbleeds found 15' in words
    assert '≥\u200910 microbleeds: 1 scan (33 %)' in page.text
    assert 'failed: Empty file.' in words


def test_the_index_passes_over_what_is_no_page_of_ours(tmp_path, lesion):
    write_session_page(tmp_path, '1', None, [_scan(lesion, 'sub-1')])
    docs = tmp_path / 'docs'
    ours = '<script type="application/json" id="shivacmb-summary">{}</script>'
    (docs / 'sub-2.html').write_bytes('Zürich'.encode('latin-1'))
    (docs / 'sub-3.html').mkdir()
    (docs / 'sub-3²4.html').write_text('a digit that is no number')
    (docs / 'sub-4.html').symlink_to('gone.html')
    for number, content in enumerate(('{"a":', '[1]', '{"participant": "x"}'), start=5):
        (docs / f'sub-{number}.html').write_text(ours.replace('{}', content))
    page = _page(write_index(tmp_path))
    assert [attrs['href'] for attrs in page.all('a')] == ['sub-1.html#sub-1']


def test_the_index_says_each_notice_once(tmp_path, lesion):
    for label in ('1', '2'):
        write_session_page(tmp_path, label, None, [_scan(lesion, f'sub-{label}')])
    other = _scan(lesion, 'sub-3', notices=(('About the model', 'Another one.'),))
    write_session_page(tmp_path, '3', None, [other])
    # a page of a version that gave no notices to the index
    page = tmp_path / 'docs' / 'sub-2.html'
    older, changes = re.subn(r'"notices": \[\[.*?\]\], ', '', page.read_text(encoding='utf-8'))
    assert changes == 1
    page.write_text(older, encoding='utf-8')
    text = ' '.join(_page(write_index(tmp_path)).text.split())
    assert text.count('About the model. Trained on simulated lesions.') == 1
    assert text.count('About zones. A guess.') == 1
    assert text.count('About the model. Another one.') == 1


def test_known_results_spare_the_pages_and_give_the_same_index(tmp_path, lesion):
    scans = {'1': [_scan(lesion, 'sub-1_ses-a_run-1')], '2': [_scan(lesion, 'sub-2_ses-a')]}
    for label, found in scans.items():
        write_session_page(tmp_path, label, 'a', found)
    from_pages = write_index(tmp_path).read_bytes()
    known = [page_summary(label, 'a', found) for label, found in scans.items()]
    # a page that is known is not opened, one that is not there gets no row
    (tmp_path / 'docs' / 'sub-1_ses-a.html').write_bytes(b'\xff not read')
    known.append(page_summary('3', None, [_scan(lesion, 'sub-3')]))
    assert write_index(tmp_path, known=known).read_bytes() == from_pages


def test_ten_thousand_scans_fit_a_small_index(tmp_path):
    docs = tmp_path / 'docs'
    docs.mkdir()
    known = []
    for number in range(10_000):
        scan = ScanReport(f'sub-{number:05d}', count=2, burden_class='1-3', volume_mm3=30.5)
        known.append(page_summary(f'{number:05d}', None, [scan]))
        (docs / f'sub-{number:05d}.html').touch()
    index = write_index(tmp_path, known=known)
    assert index.stat().st_size < 600_000
    page = _page(index)
    assert 'scans 10000' in ' '.join(page.text.split())
    assert 'group_desc-CMB_counts.tsv' in page.text


def test_an_empty_folder_gives_an_index_that_says_so(tmp_path):
    assert 'No report has been written yet.' in _page(write_index(tmp_path)).text


def test_the_summary_in_a_page_can_be_read(tmp_path, lesion):
    html = write_session_page(tmp_path, '01', 'a', [_scan(lesion)]).read_text(encoding='utf-8')
    summary = json.loads(html.split('id="shivacmb-summary">')[1].split('</script>')[0])
    assert summary == {
        'participant': '01',
        'session': 'a',
        'scans': [
            {
                'stem': 'sub-01_ses-a_run-1',
                'status': 'complete',
                'reason': '',
                'count': 2,
                'burden_class': '1-3',
                'volume_mm3': 91.4,
                'warnings': 1,
            }
        ],
        'notices': [
            ['About the model', 'Trained on simulated lesions.'],
            ['About zones', 'A guess.'],
        ],
    }


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'docs').write_text('')
    with pytest.raises(OutputError, match=r'Cannot write <.*sub-01\.html>'):
        write_session_page(tmp_path, '01', None, [])


def test_index_of_those_without_a_scan(tmp_path):
    failed = ScanReport('sub-3', status='failed', reason='Empty file.')
    write_session_page(tmp_path, '3', None, [failed])
    without = [('sub-4', 'no usable scan'), ('sub-5', '<b>')]
    words = ' '.join(_page(write_index(tmp_path, without=without)).text.split())
    assert 'participants without a scan 2' in words
    assert 'Participants without a scan: 2 sub-4: no usable scan sub-5: <b>' in words
    assert 'microbleeds found –' in words, 'nothing was counted, which is not 0'
    words = ' '.join(_page(write_index(tmp_path)).text.split())
    assert 'without a scan' not in words


def test_lesions_in_fluid_are_marked(tmp_path, lesion):
    lesions = tuple(
        lesion(n, 0, 0, 0, region=name, parenchyma_fraction=share)
        for n, name, share in (
            (1, 'brainstem', 0.5),
            (2, 'left thalamus', 0.49),
            (3, '', math.nan),
        )
    )
    scan = _scan(lesion, lesions=lesions, groups=(('lobar', 0), ('deep', 3)))
    words = _page(write_session_page(tmp_path, '01', None, [scan])).text
    assert 'left thalamus*' in words
    assert 'brainstem*' not in words
    assert words.count('look here first') == 1
    scan = _scan(lesion, lesions=lesions[::2], groups=(('lobar', 0), ('deep', 2)))
    assert 'look here' not in _page(write_session_page(tmp_path, '02', None, [scan])).text
