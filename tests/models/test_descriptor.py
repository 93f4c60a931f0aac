from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shivacmb.exceptions import ModelError
from shivacmb.models import load_bundle, preset
from shivacmb.models.checksums import sha256_of
from shivacmb.models.descriptor import check_name, is_inside, parse_bundle

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults_are_those_of_the_paper(tmp_path: Path, description: dict[str, Any]) -> None:
    bundle = parse_bundle(description, tmp_path)
    paper = preset('shiva-paper')
    content = bundle.to_json()
    assert content['intensity'] == paper['intensity']
    assert content['postprocess'] == paper['postprocess']
    assert content['classes'] == [{'value': 1, 'name': 'CMB'}]
    assert bundle.target == 'CMB'
    assert bundle.grid.shape == (6, 5, 4)


def test_what_is_written_is_read_back(tmp_path: Path, description: dict[str, Any]) -> None:
    form = {'file': 'f.xml', 'sha256': 'b' * 64, 'weights_sha256': 'c' * 64}
    description['folds'][0] |= {'md5': 'd' * 32, 'openvino': form}
    description |= preset('shivai') | {'training': {'seeds': [1, 2]}, 'target': 'brain'}
    bundle = parse_bundle(description, tmp_path)
    (tmp_path / 'model.json').write_text(json.dumps(bundle.to_json()))
    assert load_bundle(tmp_path) == bundle
    assert load_bundle(tmp_path / 'model.json') == bundle
    assert bundle.intensity.divide == 1.3
    assert bundle.folds[0].openvino is not None
    assert bundle.folds[0].openvino.weights_file == 'f.bin'


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        (['name'], None, 'name must be a text'),
        (['name'], '../x', "'../x' cannot name a model"),
        (['grid'], None, 'grid must be an object'),
        (['grid', 'shape'], [1, 2], 'grid.shape must be a list of three numbers'),
        (['grid', 'shape'], [1.5, 2, 3], 'grid.shape must be whole numbers'),
        (['grid', 'shape'], [0, 2, 3], 'grid.shape must hold numbers between 1 and 4096'),
        (['grid', 'voxel_mm'], [1, 1, 0], 'grid.voxel_mm must hold numbers between 0.05 and 20'),
        (['grid', 'orientation'], 'RRS', 'three axis codes'),
        (['inputs'], [], 'inputs must be a list with at least one entry'),
        (['inputs', 0, 'contrasts'], [], r'inputs\[0\].contrasts must be a list of texts'),
        (['folds'], [], 'folds must be a list with at least one entry'),
        (['folds', 0, 'format'], 'pickle', r'folds\[0\].format must be one of keras'),
        (['folds', 0, 'sha256'], 'xyz', r'folds\[0\].sha256 must be 64 hexadecimal digits'),
        (['folds', 0, 'file'], '../f', r'folds\[0\].file must be a path inside the bundle'),
        (['folds', 0, 'file'], '/etc/passwd', 'must be a path inside the bundle'),
        (['target'], 'WMH', 'target must be one of CMB, brain'),
        (['intensity'], {'clip': 0}, 'intensity.clip must lie between 0 and'),
        (['intensity'], {'masked': 1}, 'intensity.masked must be true or false'),
        (['postprocess'], {'connectivity': 8}, 'postprocess.connectivity must be 6, 18 or 26'),
        (['postprocess'], {'threshold': True}, 'postprocess.threshold must be a number'),
        (
            ['postprocess'],
            {'threshold': 10**400},
            'threshold must lie between 0 and 1, not 10{19} in',
        ),
        (['postprocess'], {'min_voxels': 2.5}, 'postprocess.min_voxels must be a whole number'),
        (
            ['postprocess'],
            {'min_parenchyma': {'t2starw': 0.5}},
            'with contrasts of the first input',
        ),
        (['postprocess'], {'min_parenchyma': 0.5}, r'must be a table such as {"T2starw": 0.5}'),
        (
            ['postprocess'],
            {'min_parenchyma': {'swi': 1.5}},
            'postprocess.min_parenchyma.swi must lie between 0 and 1, not 1.5',
        ),
        (
            ['postprocess'],
            {'threshold': 0.6, 'outline_threshold': 0.7},
            'postprocess.outline_threshold must lie between 0 and 0.6, not 0.7',
        ),
        *(
            (
                ['classes'],
                [{'value': 1, 'name': 'a'}, second],
                'classes must have different values and names',
            )
            for second in ({'value': 1, 'name': 'b'}, {'value': 2, 'name': 'a'})
        ),
    ],
)
def test_a_broken_description_is_named(
    tmp_path: Path, description: dict[str, Any], path: list[Any], value: object, message: str
) -> None:
    content = copy.deepcopy(description)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ModelError, match=message):
        parse_bundle(content, tmp_path)


def test_the_rule_for_surroundings_is_by_contrast(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    description['postprocess'] = {'min_parenchyma': {'T2starw': 0.5}}
    found = parse_bundle(description, tmp_path).postprocess
    assert (found.parenchyma_for('T2starw'), found.parenchyma_for('swi')) == (0.5, 0.0)


def test_outlines_end_where_the_bundle_says(tmp_path: Path, description: dict[str, Any]) -> None:
    for given, expected in (({}, None), ({'outline_threshold': 0.2}, 0.2)):
        description['postprocess'] = {'threshold': 0.4, **given}
        assert parse_bundle(description, tmp_path).postprocess.outline_threshold == expected


def test_a_fold_named_twice_is_refused(tmp_path: Path, description: dict[str, Any]) -> None:
    [fold] = description['folds']
    for again in (fold['file'], f'./{fold["file"]}'):
        description['folds'] = [fold, {**fold, 'file': again}]
        with pytest.raises(ModelError, match='a fold named twice counts twice'):
            parse_bundle(description, tmp_path)


def test_an_openvino_form_of_two_folds_is_refused(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    form = {'file': 'fold-0.xml', 'sha256': 'a' * 64, 'weights_sha256': 'b' * 64}
    [fold] = description['folds']
    description['folds'] = [
        {**fold, 'file': f'fold-{index}.keras', 'openvino': form} for index in range(2)
    ]
    with pytest.raises(ModelError, match='folds must have different OpenVINO files'):
        parse_bundle(description, tmp_path)


def test_a_linked_folder_in_a_savedmodel_is_refused(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    fold, elsewhere = tmp_path / 'fold-0.savedmodel', tmp_path / 'elsewhere'
    for folder in (fold, elsewhere):
        folder.mkdir()
        (folder / 'file').write_text('one')
    (fold / 'link').symlink_to(elsewhere / 'file')
    entry = {'file': fold.name, 'format': 'savedmodel', 'sha256': sha256_of(fold)}
    bundle = parse_bundle({**description, 'folds': [entry]}, tmp_path)
    bundle.verify()
    (fold / 'variables').symlink_to(elsewhere)
    with pytest.raises(ModelError, match='holds links to folders, whose files no checksum'):
        bundle.verify()


def test_a_missing_or_unreadable_description(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'is not a model bundle: it has no model\.json'):
        load_bundle(tmp_path)
    (tmp_path / 'model.json').write_text('{"name": ')
    with pytest.raises(ModelError, match='is not valid JSON'):
        load_bundle(tmp_path)
    (tmp_path / 'model.json').write_text('[' * 100_000)
    with pytest.raises(ModelError, match='is not valid JSON'):
        load_bundle(tmp_path)


@pytest.mark.parametrize('name', ['/a', '../a', 'a/../../b', 'a\\b', 'C:/a', '', ' ', '.', 'a\0b'])
def test_names_that_leave_the_folder(name: str) -> None:
    assert not is_inside(name)


def test_names_that_stay() -> None:
    assert is_inside('a/b.keras')
    assert is_inside('..a')
    assert check_name('swi-cmb_v2.1') == 'swi-cmb_v2.1'


def test_foreground_drops_only_the_background(tmp_path: Path, description: dict[str, Any]) -> None:
    bundle = parse_bundle(description, tmp_path)
    two = np.stack([np.zeros((2, 2)), np.ones((2, 2))], axis=-1).astype(np.float32)
    assert np.array_equal(bundle.foreground(two), two[..., 1:])
    assert np.array_equal(bundle.foreground(two[..., :1]), two[..., :1])
    with pytest.raises(ModelError, match=r'returns 3 maps, but its model\.json names 1 classes'):
        bundle.foreground(np.zeros((2, 2, 3), np.float32))


def test_presets_are_copies() -> None:
    preset('shivai')['grid']['shape'][0] = 0
    assert preset('shivai')['grid']['shape'] == [160, 214, 176]
    with pytest.raises(ModelError, match="there is no preset 'x'; choose one of shiva-paper"):
        preset('x')
