"""Memory that runs out, and memory over many scans, seen through the installed command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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
        if left:
            left -= 1
            raise RuntimeError('Exception from the plugin: std::bad_alloc')
        return predict(self, image)

    OpenVINOEngine.predict = sometimes
"""


@pytest.fixture
def injected(tmp_path: Path) -> dict[str, str]:
    """Environment in which Python can be told to run out of memory."""
    (tmp_path / 'inject').mkdir()
    (tmp_path / 'inject' / 'sitecustomize.py').write_text(INJECTION)
    paths = [str(tmp_path / 'inject'), os.environ.get('PYTHONPATH', '')]
    return {'PYTHONPATH': os.pathsep.join(path for path in paths if path)}


@pytest.fixture
def bids(tmp_path: Path, tools: Any) -> Path:
    root = tools.dataset(tmp_path / 'bids')
    tools.place(root, 'sub-01_T2starw')
    return root


def sidecar(out: Path) -> dict[str, Any]:
    path = out / 'sub-01' / 'anat' / 'sub-01_desc-CMB_dseg.json'
    return dict(json.loads(path.read_text()))


def log_of(out: Path) -> str:
    (path,) = (out / 'logs').rglob('run.log')
    return path.read_text()


def test_out_of_memory_once_gives_the_same_result_and_is_noted(
    own_app: Any, bids: Path, tmp_path: Path, tools: Any, injected: dict[str, str]
) -> None:
    clean, short = tmp_path / 'clean', tmp_path / 'short'
    done = own_app.participant(bids, clean)
    assert done.returncode == 0, done.stderr
    done = own_app.participant(bids, short, INJECT_OUT_OF_MEMORY='1', **injected)
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
    # nothing else differs: no voxel, no row, no page
    results = [tools.results(folder) for folder in (clean, short)]
    differing = {name for name in results[0] if results[0][name] != results[1].get(name)}
    ours = ('dseg.json', 'probseg.json', 'CMB_mask.json')
    assert {name for name in differing if not name.endswith(ours)} == set()


def test_out_of_memory_for_good_ends_with_75(
    own_app: Any, bids: Path, tmp_path: Path, tools: Any, injected: dict[str, str]
) -> None:
    out = tmp_path / 'out'
    done = own_app.participant(bids, out, INJECT_OUT_OF_MEMORY='99', **injected)
    assert done.returncode == 75
    said = tools.sentence(done.stderr)
    assert 'memory ran out while predicting on the CPU, then on the CPU, fold by fold' in said
    assert 'run the same command again' in said
    assert tools.scan_rows(out)['sub-01']['status'] == 'failed'
    # and the same command does it once memory is back
    done = own_app.participant(bids, out, **injected)
    assert done.returncode == 0, done.stderr
    assert tools.scan_rows(out)['sub-01']['cmb_count'] == '3'
