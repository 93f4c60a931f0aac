"""What a run needs and does not have is said before the first scan, and changes no result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shivacmb.cli.main import main
from shivacmb.workflows.plan import ScanPlan

NEEDED = (
    'the engine "tensorflow" needs tensorflow (No module named \'tensorflow\'); '
    "install it with `pip install 'shivacmb[tensorflow]'`"
)


@pytest.fixture(autouse=True)
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have neither TensorFlow nor a GPU."""
    monkeypatch.setattr('shivacmb.models.ensemble.has_tensorflow', lambda: False)
    monkeypatch.setattr('shivacmb.models.ensemble.GPU_DEVICES', ())


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
    ('words', 'code', 'reason'),
    [
        (['--engine', 'tensorflow'], 65, NEEDED),
        # another node may have one, and TensorFlow with it
        (['--device', 'gpu'], 75, 'there is no GPU on '),
    ],
)
def test_a_run_is_refused(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], code: int, reason: str,
) -> None:  # fmt: skip
    out = tmp_path / 'out'
    before = content(out)
    words = ['participant', '--model', str(spot_bundle), *words]
    assert main([str(tmp_path / 'bids'), str(out), *words, '--dry-run']) == 0
    assert f'the run would stop: {reason}' in capsys.readouterr().out
    assert main([str(tmp_path / 'bids'), str(out), *words]) == code
    said = capsys.readouterr()
    assert said.err.startswith(f'shivacmb: {reason}')
    assert said.out == ''
    after = content(out)
    assert {path: after[path] for path in before} == before
    assert not [path for path in after if path not in before and 'sub-01' in str(path)]


def test_nothing_is_needed_for_finished_scans(
    tmp_path: Path, finished: ScanPlan, spot_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('shivacmb.cli.run.is_done', lambda *_: True)
    for picture in ('overview', 'lesions'):
        Path(finished.outputs[picture]).unlink()
    words = [str(tmp_path / 'bids'), str(tmp_path / 'out'), 'participant', '-q']
    assert main([*words, '--model', str(spot_bundle), '--engine', 'tensorflow']) == 0


def test_one_image_is_refused(tmp_path: Path, tools_main: Any, spot_bundle: Path) -> None:
    (tmp_path / 'scan.nii').write_bytes(b'not looked at')
    words = ('-o', tmp_path / 'out', '--model', spot_bundle, '--engine', 'tensorflow')
    done = tools_main('scan', tmp_path / 'scan.nii', *words)
    assert (done.returncode, done.stderr) == (65, f'shivacmb: {NEEDED}\n')
    assert not list((tmp_path / 'out').iterdir())
