"""A model that looks at several images of an acquisition, through the installed command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import shivacmb
from shivacmb.exceptions import DataError, ModelError

pytestmark = pytest.mark.system

IN_BOTH = ((20.0, 5.0, 10.0), (-18.0, 12.0, -14.0))
ONLY_T2S, ONLY_T2 = (2.0, -22.0, 6.0), (-16.0, -14.0, 10.0)
INPUTS = [{'name': 't2s', 'contrasts': ['T2starw']}, {'name': 't2', 'contrasts': ['T2w']}]


@pytest.fixture(scope='module')
def model(make_spot_bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_spot_bundle(tmp_path_factory.mktemp('two') / 'two', inputs=INPUTS))


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('channels') / 'bids')
    t2s = tools.head([*IN_BOTH, ONLY_T2S])
    t2 = tools.head([*IN_BOTH, ONLY_T2], seed=2)
    tools.place(root, 'sub-01_T2starw', t2s)
    tools.place(root, 'sub-01_T2w', t2)
    tools.place(root, 'sub-02_T2starw', t2s)
    tools.place(root, 'sub-03_T2starw', t2s)
    tools.place(root, 'sub-03_T2w', tools.head(IN_BOTH, voxel_mm=(1.0, 1.0, 1.5)))
    return root


@pytest.fixture(scope='module')
def done(app: Any, bids: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp('out')
    return app.run(bids, out, 'participant', *app.quick, '--model', model), out


def images(bids: Path) -> tuple[Path, Path]:
    folder = bids / 'sub-01' / 'anat'
    return folder / 'sub-01_T2starw.nii.gz', folder / 'sub-01_T2w.nii.gz'


def centres(table: Path) -> list[tuple[float, ...]]:
    rows = [line.split('\t') for line in table.read_text().splitlines()]
    where = [rows[0].index(axis) for axis in 'xyz']
    return sorted(tuple(float(row[i]) for i in where) for row in rows[1:])


def test_both_images_decide(done: Any, tools: Any, bids: Path) -> None:
    """Spots that one image shows alone are not found."""
    run, out = done
    assert run.returncode == 1, run.stderr  # two participants lack what the model needs
    found = centres(out / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.tsv')
    np.testing.assert_allclose(found, sorted(IN_BOTH), atol=1.5)
    text = (out / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.json').read_text()
    sources = json.loads(text)['Sources']
    assert sources[0] == 'bids:raw:sub-01/anat/sub-01_T2starw.nii.gz'
    assert sources[1] == 'bids:raw:sub-01/anat/sub-01_T2w.nii.gz'
    [preproc] = (out / 'sub-01' / 'anat').glob('*_res-net_desc-preproc*.json')
    assert json.loads(preproc.read_text())['Description'].startswith('First channel of the net')


def test_what_a_participant_lacks_is_said(done: Any, tools: Any) -> None:
    run, out = done
    rows = tools.scan_rows(out)
    by_name = {name.split('/')[-1].split('_')[0]: row for name, row in rows.items()}
    assert by_name['sub-01']['status'] == 'ok'
    assert "no image for the channel 't2' (T2w)" in by_name['sub-02']['reason']
    assert 'another grid than the scan' in by_name['sub-03']['reason']
    assert 'sub-03_T2w.nii.gz' in by_name['sub-03']['reason']
    assert 'Traceback' not in run.stderr


def test_a_changed_channel_is_processed_again(
    app: Any, tools: Any, bids: Path, model: Path, done: Any
) -> None:
    _, out = done
    _, t2 = images(bids)
    before = t2.read_bytes()
    choice = ('participant', '--participant-label', '01', *app.quick, '--model', model)
    try:
        again = app.run(bids, out, *choice)
        assert again.returncode == 0, again.stderr
        table = out / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.tsv'
        assert len(centres(table)) == len(IN_BOTH)
        tools.head([IN_BOTH[0], ONLY_T2], seed=2).to_filename(t2)
        changed = app.run(bids, out, *choice)
        assert changed.returncode == 0, changed.stderr
        np.testing.assert_allclose(centres(table), [IN_BOTH[0]], atol=1.5)
    finally:
        t2.write_bytes(before)


def test_one_file_and_python_agree_with_the_dataset(
    app: Any, bids: Path, model: Path, tmp_path: Path
) -> None:
    t2s, t2 = images(bids)
    run = app.run(
        'scan', t2s, '--channel', t2, '-o', tmp_path, '--model', model, program='shivacmb-tools'
    )
    assert run.returncode == 0, run.stderr
    found = shivacmb.detect(t2s, model=model, channels=[t2])
    written = nib.load(tmp_path / 'sub-01_T2starw_desc-CMB_dseg.nii.gz')
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(found.labels.dataobj))
    assert len(found.lesions) == len(IN_BOTH)


def test_too_few_images_are_refused(app: Any, bids: Path, model: Path, tmp_path: Path) -> None:
    t2s, _ = images(bids)
    run = app.run('scan', t2s, '-o', tmp_path, '--model', model, program='shivacmb-tools')
    assert run.returncode == 65
    assert 'needs 2 image(s) (t2s, t2) and was given 1' in run.stderr
    with pytest.raises(ModelError, match=r'needs 2 image\(s\)'):
        shivacmb.detect(t2s, model=model)
    other = bids / 'sub-03' / 'anat' / 'sub-03_T2w.nii.gz'
    with pytest.raises(DataError, match='another grid'):
        shivacmb.detect(t2s, model=model, channels=[other])
