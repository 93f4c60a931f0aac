"""Steps 2 to 7: from the file as found to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nipype.interfaces import fsl
from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from shivacmb.interfaces.brain_mask import FoundMask, GivenMask, ToolMask
from shivacmb.interfaces.brain_tools import HDBet, SynthStrip
from shivacmb.interfaces.images import CheckChannel, CheckImage, NetworkInput, Reorient, Resample
from shivacmb.workflows.plan import Detection

INPUT_FIELDS = ('in_file',)
OUTPUT_FIELDS = (
    'scan_file',
    'warnings',
    'source',
    'iso_file',
    'mask_file',
    'zones_file',
    'mask_method',
    'network_file',
    'network_mask_file',
    'chain_file',
    'voxels_outside',
)
IDENTITY = Path(__file__).parent.joinpath('data', 'ident.mat')


def init_preproc_wf(
    *,
    detection: Detection,
    brain_mask: Path | None = None,
    brain_mask_sha256: str = '',
    channels: Sequence[Path] = (),
    channels_sha256: Sequence[str] = (),
    service: str = '',
    omp_nthreads: int = 1,
    name: str = 'preproc_wf',
) -> pe.Workflow:
    """Check, reorient, resample, mask, crop and scale one scan.

    Workflow Graph
        check_image -> reorient -> resample -> brain mask -> network_input

    Parameters
    ----------
    detection : Detection
        Toolkit, mask method, grid and intensity settings.
    brain_mask : Path, optional
        A precomputed mask on the grid of the scan; replaces ``detection.mask``.
    brain_mask_sha256 : str
        Checksum that it must have, if not empty.
    channels : sequence of Path
        Images on the grid of the scan for the further channels of the network.
    channels_sha256 : sequence of str
        Checksums that they must have; empty for any.
    service : str
        Address of a running ``PredictionService`` that holds the network of the brain mask;
        without it the node loads the network in its own process, once.
    omp_nthreads : int
        Threads of one node.
    name : str
        Name of the workflow.

    Inputs
    ------
    in_file
        The scan as found.

    Outputs
    -------
    scan_file
        The scan, 3-D float32, on its own grid.
    warnings
        What a user should know about the scan.
    source
        Checksum, size and times of the scan as it was read.
    iso_file
        Reoriented isotropic image.
    mask_file
        Brain mask on the grid of ``iso_file``.
    zones_file
        Zones of the brain on the grid of ``iso_file``; undefined without ``detection.zones``.
    mask_method
        How the mask came about.
    network_file
        The network's input, ``.npy``.
    network_mask_file
        Brain mask in the box, ``.npy``.
    chain_file
        JSON of the grids and the maps between them.
    voxels_outside
        Voxels of brain that the box leaves out.
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(list(INPUT_FIELDS)), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(list(OUTPUT_FIELDS)), name='outputnode')
    check_image = pe.Node(CheckImage(), name='check_image', mem_gb=0.6)
    reorient, resample = _spatial_nodes(workflow, detection)
    network_input = pe.Node(
        NetworkInput(
            voxel_mm=detection.voxel_mm,
            shape=detection.box_shape,
            percentile=detection.percentile,
            clip=detection.clip,
            divide=detection.divide,
            masked=detection.masked,
        ),
        name='network_input',
        mem_gb=0.6,
    )
    mask_wf = init_mask_wf(
        method='given' if brain_mask is not None else detection.mask,
        given_file=brain_mask,
        given_sha256=brain_mask_sha256,
        voxel_mm=detection.voxel_mm,
        zones=detection.zones,
        service=service,
        omp_nthreads=omp_nthreads,
    )
    iso = (resample, 'out_file')
    # fmt: off
    workflow.connect([
        (inputnode, check_image, [('in_file', 'in_file')]),
        (inputnode, network_input, [('in_file', 'in_file')]),
        (check_image, reorient, [('out_file', 'in_file')]),
        (check_image, mask_wf, [('out_file', 'inputnode.scan_file')]),
        (iso[0], mask_wf, [(iso[1], 'inputnode.iso_file')]),
        (check_image, network_input, [('out_file', 'scan_file')]),
        (reorient, network_input, [('out_file', 'std_file')]),
        (iso[0], network_input, [(iso[1], 'iso_file')]),
        (mask_wf, network_input, [('outputnode.mask_file', 'mask_file')]),
        (check_image, outputnode, [
            ('out_file', 'scan_file'),
            ('warnings', 'warnings'),
            ('source', 'source'),
        ]),
        (iso[0], outputnode, [(iso[1], 'iso_file')]),
        (mask_wf, outputnode, [
            ('outputnode.mask_file', 'mask_file'),
            ('outputnode.zones_file', 'zones_file'),
            ('outputnode.method', 'mask_method'),
        ]),
        (network_input, outputnode, [
            ('out_file', 'network_file'),
            ('mask_file', 'network_mask_file'),
            ('chain_file', 'chain_file'),
            ('voxels_outside', 'voxels_outside'),
        ]),
    ])
    # fmt: on
    if channels:
        _add_channels(workflow, detection, channels, channels_sha256)
    return workflow


def _spatial_nodes(workflow: pe.Workflow, detection: Detection) -> tuple[pe.Node, pe.Node]:
    """Add the nodes that reorient and resample, connected."""
    if detection.toolkit == 'fsl':
        reorient = pe.Node(fsl.Reorient2Std(output_type='NIFTI'), name='reorient', mem_gb=0.6)
        resample = pe.Node(
            fsl.FLIRT(
                apply_isoxfm=detection.voxel_mm,
                no_resample_blur=True,
                in_matrix_file=str(IDENTITY),
                output_type='NIFTI',
            ),
            name='resample',
            mem_gb=0.6,
        )
        workflow.connect(reorient, 'out_file', resample, 'reference')
    else:
        reorient = pe.Node(Reorient(), name='reorient', mem_gb=0.6)
        resample = pe.Node(Resample(voxel_mm=detection.voxel_mm), name='resample', mem_gb=0.6)
    workflow.connect(reorient, 'out_file', resample, 'in_file')
    return reorient, resample


def _add_channels(
    workflow: pe.Workflow,
    detection: Detection,
    channels: Sequence[Path],
    sha256: Sequence[str] = (),
) -> None:
    """Bring further images of the acquisition to the network's grid, beside the scan."""
    check_image, network_input, outputnode = (
        workflow.get_node(name) for name in ('check_image', 'network_input', 'outputnode')
    )
    channel_files = pe.Node(niu.Merge(len(channels)), name='channel_files')
    network_input.inputs.channel_in_files = [str(path) for path in channels]
    warnings = pe.Node(niu.Merge(1 + len(channels)), name='warnings')
    workflow.disconnect(check_image, 'warnings', outputnode, 'warnings')
    workflow.connect(check_image, 'warnings', warnings, 'in1')
    for number, path in enumerate(channels, start=1):
        channel_wf = init_channel_wf(detection=detection, name=f'channel{number}_wf')
        channel_wf.get_node('inputnode').inputs.in_file = str(path)
        if sha256:
            channel_wf.get_node('check_channel').inputs.sha256 = sha256[number - 1]
        # fmt: off
        workflow.connect([
            (check_image, channel_wf, [('out_file', 'inputnode.scan_file')]),
            (channel_wf, channel_files, [('outputnode.iso_file', f'in{number}')]),
            (channel_wf, warnings, [('outputnode.warnings', f'in{number + 1}')]),
        ])
        # fmt: on
    workflow.connect(channel_files, 'out', network_input, 'channel_files')
    workflow.connect(warnings, 'out', outputnode, 'warnings')


def init_channel_wf(*, detection: Detection, name: str = 'channel_wf') -> pe.Workflow:
    """Check, reorient and resample a further image of an acquisition.

    Workflow Graph
        check_channel -> reorient -> resample

    Parameters
    ----------
    detection : Detection
        Toolkit and voxel size.
    name : str
        Name of the workflow.

    Inputs
    ------
    in_file
        The image as found.
    scan_file
        The checked scan, whose grid the image must have.

    Outputs
    -------
    iso_file
        Reoriented isotropic image.
    warnings
        What a user should know about the image.
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(['in_file', 'scan_file']), name='inputnode')
    outputnode = pe.Node(niu.IdentityInterface(['iso_file', 'warnings']), name='outputnode')
    check_channel = pe.Node(CheckChannel(), name='check_channel', mem_gb=0.6)
    reorient, resample = _spatial_nodes(workflow, detection)
    # fmt: off
    workflow.connect([
        (inputnode, check_channel, [('in_file', 'in_file'), ('scan_file', 'scan_file')]),
        (check_channel, reorient, [('out_file', 'in_file')]),
        (resample, outputnode, [('out_file', 'iso_file')]),
        (check_channel, outputnode, [('warnings', 'warnings')]),
    ])
    # fmt: on
    return workflow


def init_mask_wf(
    *,
    method: str,
    given_file: Path | None = None,
    given_sha256: str = '',
    voxel_mm: float = 1.0,
    zones: bool = True,
    service: str = '',
    omp_nthreads: int = 1,
    name: str = 'mask_wf',
) -> pe.Workflow:
    """Mask the brain on the isotropic grid, and find its zones.

    Workflow Graph
        one node for 'given', 'auto', 'builtin' and 'background'; tool -> check for the others

    Parameters
    ----------
    method : {'given', 'auto', 'builtin', 'background', 'bet', 'synthstrip', 'hd-bet'}
        How to find the brain.
    given_file : Path, optional
        The precomputed mask, with ``method='given'``.
    given_sha256 : str
        Checksum that it must have, if not empty.
    voxel_mm : float
        Isotropic voxel size, mm.
    zones : bool
        Whether to find the zones, which are the built-in network's for every method.
    service : str
        As for :func:`init_preproc_wf`.
    omp_nthreads : int
        Threads of one node.
    name : str
        Name of the workflow.

    Inputs
    ------
    scan_file
        The checked scan on its own grid.
    iso_file
        Reoriented isotropic image.

    Outputs
    -------
    mask_file
        Brain mask on the grid of ``iso_file``.
    zones_file
        Zones in the mask, on the same grid; undefined without ``zones``.
    method
        How the mask came about.
    """
    workflow = pe.Workflow(name=name)
    inputnode = pe.Node(niu.IdentityInterface(['scan_file', 'iso_file']), name='inputnode')
    outputs = ['mask_file', 'zones_file', 'method']
    outputnode = pe.Node(niu.IdentityInterface(outputs), name='outputnode')
    common = {'zones': zones, 'threads': omp_nthreads, 'service': service}
    if method == 'given':
        mask = pe.Node(
            GivenMask(
                given_file=str(given_file), sha256=given_sha256, voxel_mm=voxel_mm, **common
            ),
            name='mask',
            mem_gb=0.5,
        )
        workflow.connect(inputnode, 'scan_file', mask, 'scan_file')
    elif method in ('auto', 'builtin', 'background'):
        mask = pe.Node(FoundMask(method=method, **common), name='mask', mem_gb=0.5)
    else:
        mask = pe.Node(ToolMask(method=method, **common), name='mask', mem_gb=0.5)
        tool, field = _mask_tool(method, omp_nthreads)
        workflow.connect(inputnode, 'iso_file', tool, 'in_file')
        workflow.connect(tool, field, mask, 'tool_file')
    # fmt: off
    workflow.connect([
        (inputnode, mask, [('iso_file', 'iso_file')]),
        (mask, outputnode, [('mask_file', 'mask_file'), ('method', 'method')]),
    ])
    # fmt: on
    if zones:
        workflow.connect(mask, 'zones_file', outputnode, 'zones_file')
    return workflow


def _mask_tool(method: str, omp_nthreads: int) -> tuple[pe.Node, str]:
    """Node of the outside tool, and the name of its mask output."""
    if method == 'bet':
        bet = pe.Node(fsl.BET(mask=True, output_type='NIFTI'), name='bet', mem_gb=0.5)
        return bet, 'mask_file'
    if method == 'synthstrip':
        synthstrip = pe.Node(
            SynthStrip(threads=omp_nthreads), name='synthstrip', n_procs=omp_nthreads, mem_gb=4
        )
        return synthstrip, 'mask_file'
    hdbet = pe.Node(HDBet(), name='hdbet', n_procs=omp_nthreads, mem_gb=6)
    return hdbet, 'mask_file'
