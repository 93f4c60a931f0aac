"""Graphs are built and expanded for every option; no tool runs."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from nipype.pipeline.engine.utils import generate_expanded_graph

import shivacmb.workflows
from shivacmb.workflows import base, detect, preproc
from shivacmb.workflows.plan import Detection, ScanPlan

MASK_NODES = {
    'given': ['mask'],
    'auto': ['mask'],
    'builtin': ['mask'],
    'background': ['mask'],
    'bet': ['bet', 'mask'],
    'synthstrip': ['mask', 'synthstrip'],
    'hd-bet': ['hdbet', 'mask'],
}


@pytest.fixture
def detection(tmp_path: Path) -> Detection:
    return Detection(
        bundle=str(tmp_path),
        engine='openvino',
        device='cpu',
        trust_model=False,
        toolkit='native',
        mask='auto',
        zones=True,
        voxel_mm=1.0,
        box_shape=(160, 216, 176),
        percentile=99.0,
        clip=1.0,
        divide=1.0,
        masked=False,
        threshold=0.4,
        min_voxels=3,
        connectivity=26,
    )


@pytest.fixture
def plan(tmp_path: Path) -> ScanPlan:
    image = tmp_path / 'sub-01_T2starw.nii.gz'
    image.touch()
    return ScanPlan(
        stem='sub-01_run-1',
        image=image,
        brain_mask=None,
        outputs={'record': str(tmp_path / 'record.json')},
        staging=str(tmp_path / 'staging'),
    )


def expanded(workflow: pe.Workflow, base_dir: Path) -> Any:
    workflow.base_dir = str(base_dir)
    return generate_expanded_graph(workflow._create_flat_graph())


@pytest.mark.parametrize('toolkit', ['native', 'fsl'])
@pytest.mark.parametrize('method', sorted(MASK_NODES))
def test_scan_graph(
    detection: Detection, plan: ScanPlan, tmp_path: Path, toolkit: str, method: str
) -> None:
    options = replace(detection, toolkit=toolkit, mask='auto' if method == 'given' else method)
    mask = tmp_path / 'mask.nii.gz'
    told = replace(plan, brain_mask=mask if method == 'given' else None)
    workflow = base.init_scan_wf(plan=told, detection=options, omp_nthreads=2)
    graph = expanded(workflow, tmp_path)
    names = sorted(node.name for node in graph)
    others = ['check_image', 'figures', 'find_lesions', 'network_input', 'predict', 'reorient']
    others += ['resample', 'to_input_grid', 'write_derivatives']
    assert names == sorted([*others, *MASK_NODES[method]])
    kinds = {node.name: type(node.interface).__name__ for node in graph}
    assert kinds['reorient'] == {'native': 'Reorient', 'fsl': 'Reorient2Std'}[toolkit]
    assert kinds['resample'] == {'native': 'Resample', 'fsl': 'FLIRT'}[toolkit]
    sources = [node.name for node in graph if graph.in_degree(node) == 0]
    sinks = [node.name for node in graph if graph.out_degree(node) == 0]
    assert sources == ['check_image']
    assert sinks == ['write_derivatives']


def test_numbers_reach_the_nodes(detection: Detection, plan: ScanPlan, tmp_path: Path) -> None:
    options = replace(
        detection, percentile=98.0, clip=1.3, divide=1.3, masked=True, threshold=0.7,
        min_voxels=5, connectivity=18, voxel_mm=2.0, box_shape=(8, 9, 10),
    )  # fmt: skip
    graph = expanded(
        base.init_scan_wf(plan=plan, detection=options, service='/s', omp_nthreads=3), tmp_path
    )
    inputs = {node.name: node.inputs for node in graph}
    scale = inputs['network_input']
    assert (scale.percentile, scale.clip, scale.divide, scale.masked) == (98.0, 1.3, 1.3, True)
    assert (scale.voxel_mm, scale.shape) == (2.0, (8, 9, 10))
    lesions = inputs['find_lesions']
    assert (lesions.threshold, lesions.min_voxels, lesions.connectivity) == (0.7, 5, 18)
    assert inputs['resample'].voxel_mm == 2.0
    assert (inputs['predict'].service, inputs['predict'].threads) == ('/s', 3)
    costs = {node.name: (node.n_procs, node.mem_gb) for node in graph}
    assert costs['predict'] == (1, 0.2)  # the work is done by the service


@pytest.mark.parametrize('zones', [True, False])
def test_zones_take_their_way_or_leave_no_trace(
    detection: Detection, plan: ScanPlan, tmp_path: Path, zones: bool
) -> None:
    workflow = base.init_scan_wf(plan=plan, detection=replace(detection, zones=zones))
    graph = expanded(workflow, tmp_path)
    fields = {
        (one.name, other.name)
        for one, other, data in graph.edges(data=True)
        if any(into == 'zones_file' for _, into in data['connect'])
    }
    ways = {
        ('mask', 'find_lesions'),
        ('mask', 'to_input_grid'),
        ('to_input_grid', 'write_derivatives'),
    }
    assert fields == (ways if zones else set())
    assert next(node for node in graph if node.name == 'mask').inputs.zones is zones


def test_prediction_in_the_node_itself_is_paid_for(
    detection: Detection, plan: ScanPlan, tmp_path: Path
) -> None:
    workflow = base.init_scan_wf(plan=plan, detection=detection, omp_nthreads=3)
    predict = workflow.get_node('detect_wf.predict')
    assert (predict.n_procs, predict.mem_gb) == (3, 2.5)


def test_scans_share_nothing(detection: Detection, plan: ScanPlan, tmp_path: Path) -> None:
    plans = [replace(plan, stem=stem) for stem in ('sub-01', 'sub-02_acq-a+b', 'my scan (2)')]
    workflow = base.init_shivacmb_wf(plans=plans, detection=detection)
    assert workflow.list_node_names()[0].startswith('scan_')
    graph = expanded(workflow, tmp_path)
    for one, other in graph.edges():
        assert one.fullname.split('.')[1] == other.fullname.split('.')[1]
    assert len({node.fullname.split('.')[1] for node in graph}) == 3


MODULES = [base, detect, preproc]
FACTORIES = [
    getattr(module, name)
    for module in MODULES
    for name in vars(module)
    if re.fullmatch(r'init_\w+_wf', name) and getattr(module, name).__module__ == module.__name__
]


def built(factory: Any, detection: Detection, plan: ScanPlan) -> pe.Workflow:
    values = {'detection': detection, 'plan': plan, 'plans': [plan], 'method': 'bet'}
    names = factory.__code__.co_varnames[: factory.__code__.co_kwonlyargcount]
    return factory(**{name: values[name] for name in names if name in values})


@pytest.mark.parametrize('factory', FACTORIES, ids=lambda factory: factory.__name__)
def test_factory_documents_its_door(factory: Any, detection: Detection, plan: ScanPlan) -> None:
    """Sections Inputs and Outputs are the fields of inputnode and outputnode, in their order."""
    assert factory.__code__.co_argcount == 0, 'arguments by keyword only'
    workflow = built(factory, detection, plan)
    text = inspect.cleandoc(factory.__doc__)
    for section, node_name in (('Inputs', 'inputnode'), ('Outputs', 'outputnode')):
        match = re.search(rf'\n{section}\n-+\n(.*?)(?=\n\w+\n-+\n|\Z)', text, re.DOTALL)
        documented = re.findall(r'^(\w+)$', match[1], re.MULTILINE) if match else []
        node = workflow.get_node(node_name)
        fields = []
        if node is not None:
            assert isinstance(node.interface, niu.IdentityInterface)
            fields = list(node.interface._fields)
        assert documented == fields, section
    assert '\nWorkflow Graph\n' in text


def test_factories_are_found() -> None:
    assert {factory.__name__ for factory in FACTORIES} == {
        'init_shivacmb_wf', 'init_scan_wf', 'init_preproc_wf', 'init_channel_wf', 'init_mask_wf',
        'init_detect_wf',
    }  # fmt: skip


SOURCES = sorted(Path(shivacmb.workflows.__path__[0]).glob('*.py'))


def node_names(tree: ast.AST) -> list[tuple[str, str]]:
    """Pairs of variable and node name for each ``x = pe.Node(..., name='y')``."""
    pairs = []
    for statement in ast.walk(tree):
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            continue
        call = statement.value
        if isinstance(call.func, ast.Attribute) and call.func.attr in ('Node', 'MapNode'):
            (name,) = [word.value for word in call.keywords if word.arg == 'name']
            (target,) = statement.targets
            assert isinstance(name, ast.Constant)
            assert isinstance(target, ast.Name)
            pairs.append((target.id, name.value))
    return pairs


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.stem)
def test_node_is_named_as_its_variable(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding='utf-8'))
    pairs = node_names(tree)
    assert [variable for variable, _ in pairs] == [name for _, name in pairs]
    calls = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and node.func.attr in ('Node', 'MapNode')
    ]  # fmt: skip
    assert len(calls) == len(pairs), 'a node that is not assigned to a variable'


def test_no_numerics_in_workflows() -> None:
    """Images are never opened; the pool's bookkeeping holds arrays of nipype's own."""
    for path in SOURCES:
        wanted = r'scipy|nibabel' if path.stem == 'plugin' else r'numpy|scipy|nibabel'
        text = path.read_text(encoding='utf-8')
        assert not re.search(rf'^\s*(import|from) ({wanted})', text, re.MULTILINE), path


@pytest.mark.parametrize('toolkit', ['native', 'fsl'])
def test_further_channels_go_the_way_of_the_scan(
    detection: Detection, plan: ScanPlan, tmp_path: Path, toolkit: str
) -> None:
    others = tuple(tmp_path / f'sub-01_{suffix}.nii.gz' for suffix in ('T2w', 'T1w'))
    told = replace(plan, channels=others)
    workflow = base.init_scan_wf(plan=told, detection=replace(detection, toolkit=toolkit))
    names = [node.fullname for node in expanded(workflow, tmp_path).nodes()]
    for number, path in enumerate(others, start=1):
        inside = f'preproc_wf.channel{number}_wf'
        assert sum(f'{inside}.resample' in name for name in names) == 1
        assert workflow.get_node(f'{inside}.inputnode').inputs.in_file == str(path)
        for step in ('reorient', 'resample'):
            scan, channel = (
                workflow.get_node(f'{part}.{step}').interface for part in ('preproc_wf', inside)
            )
            assert type(scan) is type(channel)
            assert scan.inputs.get_traitsfree() == channel.inputs.get_traitsfree()
