"""Zones from the mask's node to the tables, with a network whose answer is known."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from shivacmb.exceptions import DataError, ModelError
from shivacmb.imaging import SpatialChain, centred_box
from shivacmb.interfaces.brain_mask import FoundMask, GivenMask, ToolMask
from shivacmb.interfaces.derivatives import (
    NO_ZONES,
    NOT_LEFT_OUT,
    OUTPUT_KEYS,
    ScanFiles,
    write_derivatives,
)
from shivacmb.interfaces.lesions import FindLesions, ToInputGrid
from shivacmb.preparation import Prepared, prepare

SHAPE = (40, 50, 44)


class Maps:
    """Left cortex and right thalamus, split in the middle of the first axis."""

    def mask(self) -> np.ndarray:
        brain = np.zeros(SHAPE, np.uint8)
        brain[4:-4, 4:-4, 4:-4] = 1
        return brain

    def zones(self, mask: np.ndarray) -> np.ndarray:
        zones = np.full(SHAPE, 24, np.uint8)
        zones[:20] = 11
        return zones * (mask > 0)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / 'node'
    folder.mkdir()
    monkeypatch.chdir(folder)
    values = np.random.default_rng(0).uniform(50, 100, SHAPE).astype(np.float32)
    path = tmp_path / 'head.nii'
    nib.Nifti1Image(values, np.diag([3.0, 3, 3, 1])).to_filename(path)
    return str(path)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def find_brain(*_: Any, **__: Any) -> Maps:
        calls.append(1)
        return Maps()

    monkeypatch.setattr('shivacmb.models.brain_mask.find_brain', find_brain)
    return calls


def test_mask_and_zones_come_from_one_look(image: str, network: list[int]) -> None:
    found = FoundMask(iso_file=image, method='builtin', zones=True).run().outputs
    mask = np.asarray(nib.load(found.mask_file).dataobj)
    zones = np.asarray(nib.load(found.zones_file).dataobj)
    np.testing.assert_array_equal(mask, Maps().mask())
    np.testing.assert_array_equal(zones > 0, mask > 0)
    assert set(np.unique(zones)) == {0, 11, 24}
    assert len(network) == 1


def test_zones_of_another_mask_fill_it(image: str, network: list[int], tmp_path: Path) -> None:
    other = np.zeros(SHAPE, np.uint8)
    other[2:30, 2:-2, 2:-2] = 1
    path = tmp_path / 'other.nii'
    nib.Nifti1Image(other, nib.load(image).affine).to_filename(path)
    tool = ToolMask(iso_file=image, tool_file=str(path), method='bet', zones=True).run().outputs
    np.testing.assert_array_equal(np.asarray(nib.load(tool.zones_file).dataobj) > 0, other > 0)
    given = GivenMask(
        scan_file=image, iso_file=image, given_file=str(path), voxel_mm=3.0, zones=True
    ).run()
    zones = np.asarray(nib.load(given.outputs.zones_file).dataobj)
    np.testing.assert_array_equal(zones > 0, other > 0)
    assert len(network) == 2


def test_without_zones_the_network_is_not_asked(
    image: str, network: list[int], tmp_path: Path
) -> None:
    path = tmp_path / 'other.nii'
    nib.Nifti1Image(Maps().mask(), nib.load(image).affine).to_filename(path)
    out = ToolMask(iso_file=image, tool_file=str(path), method='bet', zones=False).run().outputs
    assert not Path(out.mask_file).with_name('zones.nii').exists()
    assert not network


def test_a_given_mask_survives_a_network_that_sees_no_brain(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*_: Any, **__: Any) -> Maps:
        raise DataError('sees 0 mL')

    monkeypatch.setattr('shivacmb.models.brain_mask.find_brain', blind)
    path = tmp_path / 'other.nii'
    nib.Nifti1Image(Maps().mask(), nib.load(image).affine).to_filename(path)
    out = ToolMask(iso_file=image, tool_file=str(path), method='bet', zones=True).run().outputs
    assert not np.asarray(nib.load(out.zones_file).dataobj).any()
    with pytest.raises(DataError, match='sees 0 mL'):
        FoundMask(iso_file=image, method='builtin', zones=True).run()


@pytest.mark.parametrize(('kind', 'lost'), [(DataError, True), (ModelError, False)])
def test_only_a_network_that_works_can_see_no_brain(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[DataError], lost: bool
) -> None:
    def fails(*_: Any, **__: Any) -> Maps:
        raise kind('brain-zones is damaged')

    monkeypatch.setattr('shivacmb.models.brain_mask.find_brain', fails)
    path = tmp_path / 'other.nii'
    nib.Nifti1Image(Maps().mask(), nib.load(image).affine).to_filename(path)
    node = ToolMask(iso_file=image, tool_file=str(path), method='bet', zones=True)
    ours = prepare_with(image, path)
    if lost:
        assert not np.asarray(nib.load(node.run().outputs.zones_file).dataobj).any()
        assert ours().zones is None
        return
    with pytest.raises(ModelError, match='damaged'):
        node.run()
    with pytest.raises(ModelError, match='damaged'):
        ours()


def prepare_with(image: str, mask: Path) -> Callable[[], Prepared]:
    grid = SimpleNamespace(voxel_mm=(3.0, 3.0, 3.0), shape=(32, 32, 32))
    intensity = SimpleNamespace(percentile=99.0, clip=1.0, divide=1.0, masked=False)
    return functools.partial(prepare, [image], mask, grid=grid, intensity=intensity, zones=True)


def _written(
    image: str, tmp_path: Path, zones: np.ndarray | None, least: float = 0.0
) -> tuple[Any, Path]:
    """Run everything from the folds to the files, with one lesion in each half."""
    scan = nib.load(image)
    mask = Maps().mask()
    box = centred_box(mask > 0, (32, 40, 36))
    chain = SpatialChain.from_images(scan, scan, 3.0, box)
    fold = np.zeros((1, *box.shape), np.float32)
    fold[0, 5, 20, 20] = fold[0, 27, 20, 20] = fold[0, 28, 20, 20] = 0.9
    files = {'chain': json.dumps(chain.to_dict())}
    (tmp_path / 'chain.json').write_text(files['chain'])
    np.save(tmp_path / 'folds.npy', fold)
    np.save(tmp_path / 'inside.npy', np.ones(box.shape, bool))
    np.save(tmp_path / 'net.npy', fold[0][..., None])
    nib.Nifti1Image(mask, scan.affine).to_filename(tmp_path / 'mask.nii')
    told = {}
    if zones is not None:
        nib.Nifti1Image(zones, scan.affine).to_filename(tmp_path / 'zones.nii')
        told = {'zones_file': str(tmp_path / 'zones.nii')}
    lesions = FindLesions(
        folds_file=str(tmp_path / 'folds.npy'),
        mask_file=str(tmp_path / 'inside.npy'),
        iso_mask_file=str(tmp_path / 'mask.nii'),
        chain_file=str(tmp_path / 'chain.json'),
        threshold=0.5,
        min_voxels=1,
        min_parenchyma=least,
        **told,
    ).run()
    lesions = lesions.outputs
    back = ToInputGrid(
        scan_file=image,
        mask_file=str(tmp_path / 'mask.nii'),
        labels_file=lesions.labels_file,
        mean_file=lesions.mean_file,
        sd_file=lesions.sd_file,
        chain_file=str(tmp_path / 'chain.json'),
        **told,
    ).run()
    back = back.outputs
    outputs = {key: str(tmp_path / 'out' / f'{key}.nii.gz') for key in OUTPUT_KEYS}
    for key in OUTPUT_KEYS:
        if key.endswith(('_json', '_tsv')):
            outputs[key] = str(tmp_path / 'out' / key.replace('_', '.'))
    (tmp_path / 'a.png').write_bytes(b'')
    record = write_derivatives(
        ScanFiles(
            scan=Path(image),
            iso=Path(image),
            network=tmp_path / 'net.npy',
            mask=tmp_path / 'mask.nii',
            labels=Path(back.labels_file),
            mean=Path(back.probability_file),
            sd=Path(back.sd_file),
            brain=Path(back.brain_file),
            chain=tmp_path / 'chain.json',
            table=Path(lesions.table_file),
            figures=(tmp_path / 'a.png',),
            zones=Path(back.zones_file) if zones is not None else None,
        ),
        outputs,
        {
            'record': {'participant': '01', 'session': None, 'stem': 's', 'filename': 'f'},
            'parameters': {
                'voxel_mm': 3.0,
                'masked': False,
                'box_shape': box.shape,
                'min_parenchyma': least,
            },
            'model': {'Name': 'm'},
            'zones_model': {'Name': 'brain-zones'} if zones is not None else {},
            'brain_model': {'Name': 'brain-zones'},
            'versions': {},
            'source': 'bids:raw:x',
            'contrast': 'swi',
            'reason': 'only one',
        },
        {
            'input_sha256': '0',
            'mask_method': 'builtin',
            'warnings': [],
            'voxels_outside': 0,
            'left_out': lesions.left_out,
            'prediction': {'engine': 'openvino', 'device': 'cpu', 'note': ''},
        },
        staging=tmp_path / 'staging',
    )
    return record, tmp_path / 'out'


def test_regions_reach_table_record_and_image(image: str, tmp_path: Path) -> None:
    zones = Maps().zones(Maps().mask())
    record, out = _written(image, tmp_path, zones)
    rows = [line.split('\t') for line in (out / 'dseg.tsv').read_text().splitlines()]
    assert [row[-2] for row in rows] == ['region', 'right thalamus', 'left cerebral cortex']
    assert [row[-1] for row in rows] == ['parenchyma_fraction', '1.0000', '1.0000']
    counts = record.cmb_lobar, record.cmb_deep, record.cmb_infratentorial, record.cmb_unplaced
    assert counts == (1, 1, 0, 0)
    assert (record.cmb_count, record.cmb_left_out) == (2, 0)
    np.testing.assert_array_equal(np.asarray(nib.load(out / 'zones.nii.gz').dataobj), zones)
    sidecar = json.loads((out / 'zones.json').read_text())
    assert sidecar['Model'] == {'Name': 'brain-zones'}
    assert 'BrainModel' not in sidecar
    sidecar = json.loads((out / 'dseg.json').read_text())
    assert sidecar['BrainModel'] == {'Name': 'brain-zones', 'UsedFor': ['brain mask', 'zones']}
    assert sidecar['SpatialReference'] == 'orig'
    assert 'left thalamus' in (out / 'zones.tsv').read_text()


def test_without_zones_there_is_no_zone_file_and_no_count(image: str, tmp_path: Path) -> None:
    record, out = _written(image, tmp_path, None)
    assert record.cmb_count == 2
    assert record.cmb_lobar is record.cmb_left_out is None
    assert not list(out.glob('zones*'))
    sidecar = json.loads((out / 'dseg.json').read_text())
    assert sidecar['BrainModel']['UsedFor'] == ['brain mask']
    assert (out / 'dseg.tsv').read_text().splitlines()[1].endswith('\tn/a\tn/a')


def test_zones_that_were_not_found_are_a_warning_not_a_count(image: str, tmp_path: Path) -> None:
    record, out = _written(image, tmp_path, np.zeros(SHAPE, np.uint8))
    assert record.cmb_lobar is None
    assert record.warnings == (NO_ZONES,)
    assert (out / 'zones.nii.gz').exists()


def test_a_candidate_in_fluid_is_left_out_everywhere(image: str, tmp_path: Path) -> None:
    zones = Maps().zones(Maps().mask())
    zones[zones == 11] = 7
    record, out = _written(image, tmp_path, zones, 0.5)
    assert (record.cmb_count, record.cmb_left_out) == (1, 1)
    assert (record.cmb_lobar, record.cmb_deep) == (0, 1)
    [row] = (out / 'dseg.tsv').read_text().splitlines()[1:]
    assert row.startswith('1\tCMB1\t')
    labels = np.asarray(nib.load(out / 'dseg.nii.gz').dataobj)
    assert np.unique(labels).tolist() == [0, 1]
    assert labels[:20].max() == 0
    assert record.warnings == ()


@pytest.mark.parametrize('zones', [None, np.zeros(SHAPE, np.uint8)], ids=['none', 'not-found'])
def test_without_zones_nothing_is_left_out(
    image: str, tmp_path: Path, zones: np.ndarray | None
) -> None:
    record, _ = _written(image, tmp_path, zones, 0.5)
    assert (record.cmb_count, record.cmb_left_out) == (2, None)
    assert record.warnings[-1] == NOT_LEFT_OUT
