"""Models that must not be used, or do not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

CODE_65 = 65


@pytest.fixture(scope='module')
def bids(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('models') / 'bids')
    tools.place(root, 'sub-01_T2starw')
    tools.place(root, 'sub-02_swi')
    return root


@pytest.fixture
def bundle(spot_bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle of one's own, to be damaged."""
    return Path(shutil.copytree(spot_bundle, tmp_path / 'bundle'))


def change(bundle: Path, **values: Any) -> dict[str, Any]:
    path = bundle / 'model.json'
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps(content))
    return content


def refused(
    app: Any, tools: Any, bids: Path, out: Path, model: Any, *words: str, code: int = CODE_65
) -> None:
    """Assert that the run ends before anything is processed, with one sentence."""
    done = app.participant(bids, out, '--model', model)
    assert done.returncode == code, done.stderr
    said = tools.sentence(done.stderr)
    for word in words:
        assert word in said, said
    assert list(out.glob('sub-*')) == []


@pytest.mark.parametrize('name', ['fold-1.xml', 'fold-1.bin'])
def test_wrong_checksum(
    app: Any, tools: Any, bids: Path, bundle: Path, tmp_path: Path, name: str
) -> None:
    path = bundle / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    refused(app, tools, bids, tmp_path / 'out', bundle, name, 'checksum')


@pytest.mark.parametrize('name', ['fold-0.keras', 'fold-1.xml', 'fold-1.bin'])
def test_missing_or_altered_file_is_found_by_verify(
    app: Any, tools: Any, bundle: Path, name: str
) -> None:
    """Also the form of a fold that this machine's engine does not read."""
    assert app.run('models', 'verify', bundle, program='shivacmb-tools').returncode == 0
    (bundle / name).write_bytes(b'altered')
    altered = app.run('models', 'verify', bundle, program='shivacmb-tools')
    (bundle / name).unlink()
    missing = app.run('models', 'verify', bundle, program='shivacmb-tools')
    for done in (altered, missing):
        assert done.returncode == CODE_65
        assert name in done.stderr
        assert 'Traceback' not in done.stderr


def test_missing_fold(app: Any, tools: Any, bids: Path, bundle: Path, tmp_path: Path) -> None:
    (bundle / 'fold-1.xml').unlink()
    refused(app, tools, bids, tmp_path / 'out', bundle, 'fold-1.xml')


def test_no_such_model(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    refused(app, tools, bids, tmp_path / 'out', 'unheard-of', "no model 'unheard-of'", 'hold: ')


def test_description_that_is_no_json(
    app: Any, tools: Any, bids: Path, bundle: Path, tmp_path: Path
) -> None:
    (bundle / 'model.json').write_text('{"name": ')
    refused(app, tools, bids, tmp_path / 'out', bundle, 'model.json>')


def test_channels_that_the_networks_do_not_have(
    app: Any, tools: Any, bids: Path, bundle: Path, tmp_path: Path
) -> None:
    both = [
        {'name': 'swi', 'contrasts': ['T2starw', 'swi']},
        {'name': 't2', 'contrasts': ['T2w']},
    ]
    change(bundle, inputs=both)
    tools.place(bids, 'sub-01_T2w')
    only = ('participant', '--participant-label', '01')
    done = app.run(bids, tmp_path / 'out', *only, '--model', bundle)
    assert done.returncode == CODE_65, done.stderr
    assert 'says 96x96x96 (2 channels)' in tools.sentence(done.stderr)
    (bids / 'sub-01' / 'anat' / 'sub-01_T2w.nii.gz').unlink()


def test_contrast_that_the_model_does_not_take(
    app: Any, tools: Any, bids: Path, bundle: Path, tmp_path: Path
) -> None:
    """The scan that fits is processed, the other has a row that says why not."""
    change(bundle, inputs=[{'name': 'swi', 'contrasts': ['swi']}])
    out = tmp_path / 'out'
    done = app.participant(bids, out, '--model', bundle)
    assert done.returncode == 1, done.stderr
    assert 'takes swi and <' in tools.sentence(done.stderr)
    rows = tools.scan_rows(out)
    assert rows['sub-02']['status'] == 'ok'
    assert 'choose another model' in rows['sub-01']['reason']
    tools.check_whole(out)


def test_lambda_is_refused_without_running_it(
    app: Any, tools: Any, bids: Path, bundle: Path, tmp_path: Path
) -> None:
    layer = {'module': 'keras.layers', 'class_name': 'Lambda', 'config': {'function': 'evil'}}
    config = {'class_name': 'Functional', 'config': {'layers': [layer]}}
    fold = bundle / 'fold-0.keras'
    with zipfile.ZipFile(fold, 'w') as archive:
        archive.writestr('config.json', json.dumps(config))
        archive.writestr('metadata.json', '{}')
        archive.writestr('model.weights.h5', b'')
    sha256 = hashlib.sha256(fold.read_bytes()).hexdigest()
    change(bundle, folds=[{'file': fold.name, 'format': 'keras', 'sha256': sha256}])
    out = tmp_path / 'out'
    done = app.participant(bids, out, '--model', bundle)
    assert done.returncode == CODE_65, done.stderr
    assert 'Traceback' not in done.stderr
    assert 'Lambda layer' in done.stderr
    assert '--trust-model' in done.stderr
    tools.check_whole(out)
    assert not list(out.rglob('*.nii.gz'))


def test_network_that_cannot_be_loaded(
    app: Any, tools: Any, bids: Path, bundle: Path, tmp_path: Path
) -> None:
    """Right checksum, wrong content: every scan gets the sentence of the engine."""
    xml = bundle / 'fold-0.xml'
    xml.write_text('<net/>')
    folds = json.loads((bundle / 'model.json').read_text())['folds']
    folds[0]['openvino']['sha256'] = hashlib.sha256(xml.read_bytes()).hexdigest()
    change(bundle, folds=folds)
    out = tmp_path / 'out'
    done = app.participant(bids, out, '--model', bundle)
    assert done.returncode == CODE_65, done.stderr
    assert 'Traceback' not in done.stderr
    assert 'fold-0.xml' in done.stderr or str(bundle) in done.stderr
    tools.check_whole(out)


def test_mask_of_another_grid(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    masks = tmp_path / 'masks'
    masks.mkdir()
    for label in ('01', '02'):
        image = tools.head(voxel_mm=(2.0, 2.0, 2.0 if label == '01' else 4.0))
        image.to_filename(masks / f'{label}.nii.gz')
    done = app.participant(
        bids, tmp_path / 'out', '--brain-mask', f'{masks}/{{participant}}.nii.gz'
    )
    assert done.returncode == CODE_65, done.stderr
    assert done.stderr.count('has another grid than its scan') == 2
    assert 'Traceback' not in done.stderr


def test_dry_run_in_which_every_scan_would_fail(
    app: Any, tools: Any, bids: Path, tmp_path: Path
) -> None:
    masks = ('--brain-mask', f'{tmp_path}/{{participant}}.nii.gz')
    done = app.participant(bids, tmp_path / 'out', '--dry-run', *masks)
    assert done.returncode == 66, done.stderr
    scans = done.stdout.count('would fail: no brain mask')
    assert scans == 2
    assert done.stdout.endswith('\n2 of 2 would fail\n')
    tools.head().to_filename(tmp_path / '01.nii.gz')
    some = app.participant(bids, tmp_path / 'out', '--dry-run', *masks)
    assert some.returncode == 0, some.stderr
    assert some.stdout.endswith('\n1 of 2 would fail\n')
    assert not (tmp_path / 'out').exists()


def test_one_mask_for_everybody(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    done = app.participant(bids, tmp_path / 'out', '--brain-mask', '/masks/one.nii.gz')
    assert done.returncode == 64, done.stderr
    assert 'add {participant}' in tools.sentence(done.stderr)
    assert not (tmp_path / 'out').exists()


def test_mask_that_is_missing(app: Any, tools: Any, bids: Path, tmp_path: Path) -> None:
    done = app.participant(
        bids, tmp_path / 'out', '--brain-mask', f'{tmp_path}/{{participant}}.nii.gz',
        '--participant-label', '01',
    )  # fmt: skip
    assert done.returncode == 66, done.stderr
    assert 'no brain mask <' in tools.sentence(done.stderr)
