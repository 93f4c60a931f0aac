"""What a cluster is short of, memory and files, seen through the installed command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

#: Python runs a module of this name at its start: networks run out of memory a number of times.
INJECTION = """
import os
left = int(os.environ.get('INJECT_OUT_OF_MEMORY', '0'))
if left:
    from shivacmb.models.engine_openvino import OpenVINOEngine
    predict = OpenVINOEngine.predict

    def sometimes(self, image):
        global left
        if left and self.model != 'brain-zones':
            left -= 1
            raise RuntimeError('Exception from the plugin: std::bad_alloc')
        return predict(self, image)

    begin = OpenVINOEngine.__init__

    def named(self, bundle, *args, **options):
        self.model = bundle.name
        begin(self, bundle, *args, **options)

    OpenVINOEngine.__init__ = named
    OpenVINOEngine.predict = sometimes
"""


@pytest.fixture
def injected(tmp_path: Path) -> dict[str, str]:
    """Environment in which Python can be told to run out of memory."""
    (tmp_path / 'inject').mkdir()
    (tmp_path / 'inject' / 'sitecustomize.py').write_text(INJECTION)
    paths = [str(tmp_path / 'inject'), os.environ.get('PYTHONPATH', '')]
    return {'PYTHONPATH': os.pathsep.join(path for path in paths if path)}


@pytest.fixture(scope='module')
def bids(tmp_path_factory: pytest.TempPathFactory, tools: Any) -> Path:
    root = tools.dataset(tmp_path_factory.mktemp('short') / 'bids')
    tools.place(root, 'sub-01_T2starw')
    return root


@pytest.fixture(scope='module')
def clean(bids: Path, app: Any) -> Path:
    """Output of a run over one participant with one scan."""
    out = bids.with_name('clean')
    done = app.default(bids, out, '--work-dir', bids.with_name('work'))
    assert done.returncode == 0, done.stderr
    return out


def sidecar(out: Path) -> dict[str, Any]:
    path = out / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.json'
    return dict(json.loads(path.read_text()))


def log_of(out: Path) -> str:
    (path,) = (out / 'logs').rglob('run.log')
    return path.read_text()


def test_out_of_memory_once_gives_the_same_result_and_is_noted(
    app: Any, bids: Path, clean: Path, tmp_path: Path, tools: Any, injected: dict[str, str]
) -> None:
    short = tmp_path / 'short'
    done = app.default(bids, short, INJECT_OUT_OF_MEMORY='1', **injected)
    assert done.returncode == 0, done.stderr
    assert sidecar(clean)['Prediction'] == {
        'Engine': 'openvino',
        'EngineVersion': sidecar(clean)['Prediction']['EngineVersion'],
        'Device': 'cpu',
        'Precision': 'f32',
        'Folds': 2,
    }
    note = 'memory ran out on the CPU; ran on the CPU, fold by fold'
    assert sidecar(short)['Prediction'] == {**sidecar(clean)['Prediction'], 'Note': note}
    assert ' s on cpu (openvino, f32)\n' in log_of(clean)
    assert f' s on cpu (openvino, f32); {note}\n' in log_of(short)
    # no label, row or page differs; a graph of one fold may round the last bit otherwise
    results = [tools.results(folder) for folder in (clean, short)]
    differing = {name for name in results[0] if results[0][name] != results[1].get(name)}
    maps = {name for name in differing if name.endswith('probseg.nii.gz')}
    ours = ('dseg.json', 'probseg.json', 'CMB_mask.json')
    assert {name for name in differing - maps if not name.endswith(ours)} == set()
    for name in maps:
        one, other = (nib.load(folder / name).get_fdata() for folder in (clean, short))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_out_of_memory_for_good_ends_with_75(
    app: Any, bids: Path, tmp_path: Path, tools: Any, injected: dict[str, str]
) -> None:
    out = tmp_path / 'out'
    done = app.default(bids, out, INJECT_OUT_OF_MEMORY='99', **injected)
    assert done.returncode == 75
    said = tools.sentence(done.stderr)
    assert 'memory ran out while predicting on the CPU, then on the CPU, fold by fold' in said
    assert 'run the same command again' in said
    assert tools.scan_rows(out)['sub-01']['status'] == 'failed'
    # and the same command does it once memory is back
    done = app.default(bids, out, **injected)
    assert done.returncode == 0, done.stderr
    assert tools.scan_rows(out)['sub-01']['cmb_count'] == '3'


def test_a_run_leaves_few_files(clean: Path, bids: Path, app: Any) -> None:
    """At most 25 for a scan that is a run of its own, also with zones of the brain (two more)."""
    shared = {path for path in clean.iterdir() if path.is_file()}
    shared |= set((clean / 'logs').glob('CITATION-*.md'))
    mine = {path.relative_to(clean).as_posix() for path in clean.rglob('*') if path.is_file()}
    mine -= {path.relative_to(clean).as_posix() for path in shared}
    with_zones = len(mine) + 2 * (not any('desc-zones_dseg' in name for name in mine))
    assert with_zones <= 25, sorted(mine)
    # what a job array makes ten thousand of lies with its participant
    assert {path.name for path in (clean / 'logs').iterdir() if path.is_dir()} == {'sub-01'}
    (run,) = (clean / 'logs' / 'sub-01').glob('run-*')
    assert {path.name for path in run.iterdir()} == {'settings.toml', 'run.log'}
    # nothing is left of the work
    assert list(bids.with_name('work').iterdir()) == []
    assert app.temporary == []
