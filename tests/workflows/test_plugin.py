"""Scans are finished one after the other."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from nipype.pipeline.plugins.multiproc import MultiProcPlugin

from shivacmb.workflows.plugin import ScanByScanPlugin, scan_order


def test_order_is_by_scan_and_then_as_it_was() -> None:
    names = ['wf.scan_b.x', 'wf.scan_a.x', 'wf.scan_b.y.z', 'wf.scan_a.y']
    assert [names[index] for index in scan_order(names)] == [
        'wf.scan_a.x',
        'wf.scan_a.y',
        'wf.scan_b.x',
        'wf.scan_b.y.z',
    ]


@pytest.mark.parametrize('scans', [2, 3])
def test_one_worker_finishes_a_scan_before_it_begins_the_next(scans: int, tmp_path: Path) -> None:
    workflow = pe.Workflow(name='wf', base_dir=str(tmp_path))
    for number in range(scans):
        scan = pe.Workflow(name=f'scan_{number}')
        first, second, third = (
            pe.Node(niu.Function(function=_add_one), name=name) for name in 'abc'
        )
        first.inputs.value = 0
        scan.connect([(first, second, [('out', 'value')]), (second, third, [('out', 'value')])])
        workflow.add_nodes([scan])
    ended = []

    def status(node: Any, state: str) -> None:
        if state == 'end':
            ended.append(node.fullname)

    workflow.config['execution'] = {'poll_sleep_duration': 0.01}
    workflow.run(plugin=ScanByScanPlugin(plugin_args={'n_procs': 1, 'status_callback': status}))
    assert ended == [f'wf.scan_{number}.{name}' for number in range(scans) for name in 'abc']


def _add_one(value: int) -> int:
    return value + 1


def _die() -> int:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
    return 1


@pytest.mark.timeout(120)
def test_a_worker_that_is_killed_over_the_last_node_ends_the_run(tmp_path: Path) -> None:
    """Nothing is left to submit then, which is where nipype itself would learn of it."""
    workflow = pe.Workflow(name='wf', base_dir=str(tmp_path))
    scan = pe.Workflow(name='scan_0')
    scan.add_nodes([pe.Node(niu.Function(function=_die), name='a')])
    workflow.add_nodes([scan])
    with pytest.raises(BrokenExecutor):
        workflow.run(plugin=ScanByScanPlugin({'n_procs': 1}))


@pytest.mark.timeout(120)
def test_a_node_whose_folder_cannot_be_made_has_failed(tmp_path: Path) -> None:
    """nipype stores no result then; the other scan goes on."""
    workflow = pe.Workflow(name='wf', base_dir=str(tmp_path))
    for number in range(2):
        scan = pe.Workflow(name=f'scan_{number}')
        node = pe.Node(niu.Function(function=_add_one), name='a')
        node.inputs.value = 0
        scan.add_nodes([node])
        workflow.add_nodes([scan])
    (tmp_path / 'wf').mkdir()
    (tmp_path / 'wf' / 'scan_0').write_text('a file where a folder should be')
    states = []

    def status(node: Any, state: str) -> None:
        states.append((node.fullname, state))

    workflow.config['execution'] = {'crashdump_dir': str(tmp_path), 'poll_sleep_duration': 0.01}
    with pytest.raises(RuntimeError):
        workflow.run(plugin=ScanByScanPlugin({'n_procs': 2, 'status_callback': status}))
    assert ('wf.scan_0.a', 'exception') in states
    assert ('wf.scan_1.a', 'end') in states


@pytest.mark.timeout(120)
def test_a_killed_worker_ends_the_run_also_where_few_jobs_may_wait(tmp_path: Path) -> None:
    workflow = pe.Workflow(name='wf', base_dir=str(tmp_path))
    scan = pe.Workflow(name='scan_0')
    scan.add_nodes([pe.Node(niu.Function(function=_die), name=name) for name in 'ab'])
    workflow.add_nodes([scan])
    with pytest.raises(BrokenExecutor):
        workflow.run(plugin=ScanByScanPlugin({'n_procs': 2, 'max_jobs': 1}))


def _sleep() -> int:
    import time

    time.sleep(0.8)
    return 1


def test_it_sleeps_while_workers_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = MultiProcPlugin._send_procs_to_workers

    def counted(self: MultiProcPlugin, *args: Any, **options: Any) -> None:
        looks.append(1)
        look(self, *args, **options)

    monkeypatch.setattr(MultiProcPlugin, '_send_procs_to_workers', counted)
    workflow = pe.Workflow(name='wf', base_dir=str(tmp_path))
    scan = pe.Workflow(name='scan_0')
    scan.add_nodes([pe.Node(niu.Function(function=_sleep), name=name) for name in 'ab'])
    workflow.add_nodes([scan])
    workflow.config['execution'] = {'poll_sleep_duration': 0.01}
    workflow.run(plugin=ScanByScanPlugin({'n_procs': 1}))
    # two nodes, each begun and ended, and a look now and then; by polling there would be 160
    assert len(looks) < 20
