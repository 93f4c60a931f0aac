from __future__ import annotations

import json

import pytest

from shivacmb.bids import find_scans, load_filters, parse_labels
from shivacmb.exceptions import FilterError, UsageError

FILES = (
    'sub-01/anat/sub-01_acq-hi_run-1_T2starw.nii.gz',
    'sub-01/anat/sub-01_acq-hi_run-02_T2starw.nii.gz',
    'sub-01/anat/sub-01_acq-phase_T2starw.nii.gz',
    'sub-01/anat/sub-01_swi.nii.gz',
    'sub-01/anat/sub-01_acq-swi_angio.nii.gz',
)
HI1, HI2, SWI = ('acq-hi_run-1_T2starw', 'acq-hi_run-02_T2starw', 'swi')


@pytest.mark.parametrize(
    ('filters', 'names'),
    [
        ({}, {HI1, HI2, SWI}),
        ({'scan': {'acquisition': 'hi'}}, {HI1, HI2}),
        ({'scan': {'acq': '*'}}, {HI1, HI2}),
        ({'scan': {'acquisition': None}}, {SWI}),
        ({'scan': {'acq': 'Query.NONE'}}, {SWI}),
        ({'scan': {'run': 2}}, {HI2}),
        ({'scan': {'run': ['1', None]}}, {HI1, SWI}),
        ({'scan': {'suffix': 't2starw', 'run': '02'}}, {HI2}),
        ({'t2starw': {'run': '1'}}, {HI1, SWI}),
        ({'swi': {'acq': 'none'}}, {HI1, HI2}),
        ({'scan': {'acquisition': 'phase'}}, {'acq-phase_T2starw'}),
        ({'scan': {'suffix': 'angio'}}, {'acq-swi_angio'}),
        ({'t1w': {'run': 1}}, {HI1, HI2, SWI}),
    ],
)
def test_filters_select(dataset, filters, names):
    found = find_scans(dataset(*FILES), filters=filters)
    assert {scan.name for scan in found.scans} == {f'sub-01_{name}.nii.gz' for name in names}


def test_a_section_that_names_the_suffix_decides_the_contrast(dataset):
    root = dataset('sub-01/anat/sub-01_T2starw.nii.gz')
    (scan,) = find_scans(root, filters={'swi': {'suffix': 'T2starw'}}).scans
    assert scan.contrast == 'swi'
    assert scan.out_suffix == 'T2starw'


def test_nothing_left_is_a_filter_error(dataset):
    with pytest.raises(FilterError, match=r'acq is absent, the filter asks for x|asks for x'):
        find_scans(dataset(*FILES), filters={'scan': {'acq': 'x'}})


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'bad': {}}, 'section "bad"'),
        ({'scan': []}, 'section "scan"'),
        ({'scan': {'colour': 'red'}}, 'unknown key "colour"'),
        ({'scan': {'run': {}}}, 'must be a text'),
        ([], 'must hold a JSON object'),
    ],
)
def test_filter_files_that_are_not_understood(tmp_path, content, words):
    path = tmp_path / 'filter.json'
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words):
        load_filters(path)


def test_filter_file_that_is_no_json(tmp_path):
    path = tmp_path / 'filter.json'
    path.write_text('{')
    with pytest.raises(UsageError, match=r'filter.json> cannot be read as JSON'):
        load_filters(path)


def test_labels_come_with_and_without_prefix_from_lists_and_files(tmp_path):
    path = tmp_path / 'ids.txt'
    path.write_text('participant_id\nsub-03\n\n 04  # a comment\n01\n')
    assert parse_labels(['sub-01', '02,sub-05', str(path)]) == ('01', '02', '05', '03', '04')
    assert parse_labels(['ses-a', 'b'], prefix='ses-') == ('a', 'b')
    assert parse_labels(None) is None


@pytest.mark.parametrize(('item', 'words'), [('./none', 'cannot be read'), ('a_b', 'not a label')])
def test_labels_that_are_none(item, words):
    with pytest.raises(UsageError, match=words):
        parse_labels([item])
