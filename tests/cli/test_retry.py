"""What a killed worker leaves undone is done all the same."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from shivacmb.cli.engine import Plugin, configure_nipype
from shivacmb.cli.failures import WorkerKilledError
from shivacmb.cli.retry import run_scans
from shivacmb.exceptions import TemporaryError
from shivacmb.workflows import base
from shivacmb.workflows.plan import ScanPlan


def _work(folder: str, scan: str, kills: bool) -> None:
    import os
    import signal
    import time
    from pathlib import Path

    with (Path(folder) / scan).open('a', encoding='utf-8') as runs:
        runs.write('x')
    if kills:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)


@pytest.mark.timeout(180)
@pytest.mark.parametrize('killers', [{2}, {0, 1, 5}])
def test_only_the_scan_that_kills_its_worker_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killers: set[int]
) -> None:
    runs = tmp_path / 'runs'
    runs.mkdir()

    def scan_wf(plan: ScanPlan, *_: Any, **__: Any) -> pe.Workflow:
        workflow = pe.Workflow(name=plan.node_name)
        node = pe.Node(niu.Function(function=_work), name='write_derivatives')
        node.inputs.folder, node.inputs.scan = str(runs), plan.stem
        node.inputs.kills = int(plan.stem[-2:]) in killers
        workflow.add_nodes([node])
        return workflow

    monkeypatch.setattr(base, 'init_scan_wf', scan_wf)
    plans = [
        ScanPlan(stem=f'sub-{i:02}', image=Path('/x'), brain_mask=None, outputs={}, staging='')
        for i in range(6)
    ]
    configure_nipype(tmp_path, verbose=0, stop_on_first_crash=False)
    before = Path.cwd()
    failures = run_scans(
        plans, None, Plugin('ScanByScan', {'n_procs': 2, 'raise_insufficient': False}),
        service='', omp_nthreads=1, work_dir=tmp_path / 'work', crash_dir=tmp_path,
        on_scan=lambda *_: None, log=logging.getLogger('test'),
    )  # fmt: skip
    assert Path.cwd() == before
    assert set(failures) == {f'sub-{i:02}' for i in killers}
    for error in failures.values():
        assert isinstance(error, WorkerKilledError)
        assert error.exit_code == TemporaryError.exit_code == os.EX_TEMPFAIL
        assert 'a worker process was killed' in str(error)
    assert {path.name for path in runs.iterdir()} == {plan.stem for plan in plans}
