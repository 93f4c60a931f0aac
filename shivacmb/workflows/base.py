"""The graph of one scan, and of a run."""

from __future__ import annotations

from collections.abc import Sequence

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from shivacmb.interfaces.derivatives import WriteDerivatives
from shivacmb.interfaces.figures import Figures
from shivacmb.workflows.detect import init_detect_wf
from shivacmb.workflows.plan import Detection, ScanPlan
from shivacmb.workflows.preproc import init_preproc_wf


def init_shivacmb_wf(
    *,
    plans: Sequence[ScanPlan],
    detection: Detection,
    service: str = '',
    omp_nthreads: int = 1,
    name: str = 'shivacmb_wf',
) -> pe.Workflow:
    """Process several scans; they share nothing, so one that fails cannot harm another.

    Workflow Graph
        one ``scan_*`` workflow per scan, unconnected

    Parameters
    ----------
    plans : sequence of ScanPlan
        The scans.
    detection : Detection
        How to detect.
    service : str
        Address of a running ``PredictionService``, or ''.
    omp_nthreads : int
        Threads of one node.
    name : str
        Name of the workflow.

    Returns
    -------
    Workflow
        Without inputs or outputs: everything is in the plans.
    """
    workflow = pe.Workflow(name=name)
    for plan in plans:
        scan_wf = init_scan_wf(
            plan=plan, detection=detection, service=service, omp_nthreads=omp_nthreads
        )
        workflow.add_nodes([scan_wf])
    return workflow


def init_scan_wf(
    *,
    plan: ScanPlan,
    detection: Detection,
    service: str = '',
    omp_nthreads: int = 1,
    name: str | None = None,
) -> pe.Workflow:
    """Process one scan from the file as found to its derivatives.

    Workflow Graph
        inputnode -> preproc_wf -> detect_wf -> figures -> write_derivatives -> outputnode

    Parameters
    ----------
    plan : ScanPlan
        The scan.
    detection : Detection
        How to detect.
    service : str
        Address of a running ``PredictionService``, or ''.
    omp_nthreads : int
        Threads of one node.
    name : str, optional
        Name of the workflow; ``plan.node_name`` by default.

    Inputs
    ------
    in_file
        The scan as found; set from the plan.

    Outputs
    -------
    record
        The row of the scan.
    """
    workflow = pe.Workflow(name=name or plan.node_name)
    inputnode = pe.Node(niu.IdentityInterface(['in_file']), name='inputnode')
    inputnode.inputs.in_file = str(plan.image)
    outputnode = pe.Node(niu.IdentityInterface(['record']), name='outputnode')
    preproc_wf = init_preproc_wf(
        detection=detection,
        brain_mask=plan.brain_mask,
        brain_mask_sha256=plan.mask_sha256,
        channels=plan.channels,
        channels_sha256=plan.channel_sha256,
        service=service,
        omp_nthreads=omp_nthreads,
    )
    detect_wf = init_detect_wf(
        detection=detection,
        min_parenchyma=plan.min_parenchyma,
        service=service,
        omp_nthreads=omp_nthreads,
    )
    figures = pe.Node(Figures(title=plan.stem), name='figures', mem_gb=0.5)
    write_derivatives = pe.Node(
        WriteDerivatives(
            outputs=plan.outputs,
            facts=plan.facts,
            out_dir=plan.out_dir,
            staging=plan.staging,
            replaces=list(plan.replaces),
            overwrite=plan.overwrite,
            threads=omp_nthreads,
        ),
        name='write_derivatives',
        mem_gb=0.8,
    )
    # fmt: off
    workflow.connect([
        (inputnode, preproc_wf, [('in_file', 'inputnode.in_file')]),
        (preproc_wf, detect_wf, [
            ('outputnode.scan_file', 'inputnode.scan_file'),
            ('outputnode.mask_file', 'inputnode.mask_file'),
            ('outputnode.zones_file', 'inputnode.zones_file'),
            ('outputnode.network_file', 'inputnode.network_file'),
            ('outputnode.network_mask_file', 'inputnode.network_mask_file'),
            ('outputnode.chain_file', 'inputnode.chain_file'),
        ]),
        (preproc_wf, figures, [
            ('outputnode.iso_file', 'iso_file'),
            ('outputnode.mask_file', 'mask_file'),
            ('outputnode.chain_file', 'chain_file'),
        ]),
        (detect_wf, figures, [
            ('outputnode.box_labels_file', 'labels_file'),
            ('outputnode.table_file', 'table_file'),
        ]),
        (preproc_wf, write_derivatives, [
            ('outputnode.scan_file', 'scan_file'),
            ('outputnode.source', 'source'),
            ('outputnode.warnings', 'warnings'),
            ('outputnode.iso_file', 'iso_file'),
            ('outputnode.mask_file', 'mask_file'),
            ('outputnode.mask_method', 'mask_method'),
            ('outputnode.network_file', 'network_file'),
            ('outputnode.chain_file', 'chain_file'),
            ('outputnode.voxels_outside', 'voxels_outside'),
        ]),
        (detect_wf, write_derivatives, [
            ('outputnode.labels_file', 'labels_file'),
            ('outputnode.probability_file', 'mean_file'),
            ('outputnode.sd_file', 'sd_file'),
            ('outputnode.brain_file', 'brain_file'),
            ('outputnode.table_file', 'table_file'),
            ('outputnode.left_out', 'left_out'),
            ('outputnode.prediction', 'prediction'),
        ]),
        (figures, write_derivatives, [('files', 'figures')]),
        (write_derivatives, outputnode, [('record', 'record')]),
    ])
    # fmt: on
    if detection.zones:
        workflow.connect(detect_wf, 'outputnode.zones_file', write_derivatives, 'zones_file')
    return workflow
