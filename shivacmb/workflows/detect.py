"""Steps 8 to 11: predict, find lesions, return to the scan's own grid."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from shivacmb.interfaces.lesions import FindLesions, ToInputGrid
from shivacmb.interfaces.predict import Predict
from shivacmb.workflows.plan import Detection

INPUT_FIELDS = (
    'scan_file',
    'mask_file',
    'zones_file',
    'network_file',
    'network_mask_file',
    'chain_file',
)
OUTPUT_FIELDS = (
    'box_labels_file',
    'table_file',
    'left_out',
    'labels_file',
    'probability_file',
    'sd_file',
    'brain_file',
    'zones_file',
    'prediction',
)


def init_detect_wf(
    *,
    detection: Detection,
    min_parenchyma: float = 0.0,
    service: str = '',
    omp_nthreads: int = 1,
    name: str = 'detect_wf',
) -> pe.Workflow:
    """Predict with the ensemble, find lesions, bring everything back to the scan's grid.

    Workflow Graph
        predict -> find_lesions -> to_input_grid

    Parameters
    ----------
    detection : Detection
        Model, threshold and cluster settings.
    min_parenchyma : float
        Least share of brain tissue around a lesion of this scan; needs ``detection.zones``.
    service : str
        Address of a running ``PredictionService``; without it the node loads the networks in its
        own process, once.
    omp_nthreads : int
        Threads of one node.
    name : str
        Name of the workflow.

    Inputs
    ------
    scan_file
        The checked scan on its own grid.
    mask_file
        Brain mask on the isotropic grid.
    zones_file
        Zones of the brain on the isotropic grid; not used without ``detection.zones``.
    network_file
        The network's input, ``.npy``.
    network_mask_file
        Brain mask in the box, ``.npy``.
    chain_file
        JSON of the grids.

    Outputs
    -------
    box_labels_file
        Lesions in the box, ``.npy``.
    table_file
        JSON list of lesions.
    left_out
        Number of candidates left out for want of brain tissue around them; -1 where that could
        not be told.
    labels_file
        Lesions on the grid of the scan.
    probability_file
        Mean probability on the grid of the scan.
    sd_file
        Standard deviation of the folds on the grid of the scan.
    brain_file
        Brain mask on the grid of the scan.
    zones_file
        Zones of the brain on the grid of the scan; undefined without ``detection.zones``.
    prediction
        Library, device and arithmetic of the prediction.
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(list(INPUT_FIELDS)), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(list(OUTPUT_FIELDS)), name='outputnode')
    predict = pe.Node(
        Predict(
            bundle=detection.bundle,
            engine=detection.engine,
            device=detection.device,
            threads=omp_nthreads,
            trust_model=detection.trust_model,
            service=service,
        ),
        name='predict',
        # With a service the work is done elsewhere and this node only waits for it
        n_procs=1 if service else omp_nthreads,
        mem_gb=0.2 if service else 2.5,
    )
    find_lesions = pe.Node(
        FindLesions(
            threshold=detection.threshold,
            min_voxels=detection.min_voxels,
            connectivity=detection.connectivity,
            min_parenchyma=min_parenchyma,
        ),
        name='find_lesions',
        mem_gb=0.4,
    )
    if detection.outline_threshold is not None:
        find_lesions.inputs.outline_threshold = detection.outline_threshold
    to_input_grid = pe.Node(ToInputGrid(), name='to_input_grid', mem_gb=0.6)
    # fmt: off
    workflow.connect([
        (inputnode, predict, [('network_file', 'in_file')]),
        (inputnode, find_lesions, [
            ('network_mask_file', 'mask_file'),
            ('mask_file', 'iso_mask_file'),
            ('chain_file', 'chain_file'),
        ]),
        (predict, find_lesions, [('out_file', 'folds_file')]),
        (predict, outputnode, [('prediction', 'prediction')]),
        (inputnode, to_input_grid, [
            ('scan_file', 'scan_file'),
            ('mask_file', 'mask_file'),
            ('chain_file', 'chain_file'),
        ]),
        (find_lesions, to_input_grid, [
            ('labels_file', 'labels_file'),
            ('mean_file', 'mean_file'),
            ('sd_file', 'sd_file'),
        ]),
        (find_lesions, outputnode, [
            ('labels_file', 'box_labels_file'),
            ('table_file', 'table_file'),
            ('left_out', 'left_out'),
        ]),
        (to_input_grid, outputnode, [
            ('labels_file', 'labels_file'),
            ('probability_file', 'probability_file'),
            ('sd_file', 'sd_file'),
            ('brain_file', 'brain_file'),
        ]),
    ])
    # fmt: on
    if detection.zones:
        workflow.connect(inputnode, 'zones_file', find_lesions, 'zones_file')
        workflow.connect(inputnode, 'zones_file', to_input_grid, 'zones_file')
        workflow.connect(to_input_grid, 'zones_file', outputnode, 'zones_file')
    return workflow
