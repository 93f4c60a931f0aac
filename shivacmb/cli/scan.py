"""``shivacmb-tools scan IMAGE -o DIR``: one file without BIDS."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb import __version__
from shivacmb.cli import types
from shivacmb.exceptions import DataError, ShivaCMBError
from shivacmb.interfaces.staging import staging_folder

if TYPE_CHECKING:
    from shivacmb.cli.settings import Settings
    from shivacmb.models import Bundle
    from shivacmb.workflows.plan import Detection, ScanPlan

NAMES = {
    'preproc': 'desc-preproc.nii.gz',
    'net': 'res-net_desc-preproc.nii.gz',
    'brain_mask': 'desc-brain_mask.nii.gz',
    'probseg': 'label-CMB_probseg.nii.gz',
    'probseg_sd': 'label-CMB_desc-ensSD_probseg.nii.gz',
    'lesion_mask': 'label-CMB_mask.nii.gz',
    'zones': 'desc-zones_dseg.nii.gz',
    'zones_tsv': 'desc-zones_dseg.tsv',
    'dseg': 'desc-CMB_dseg.nii.gz',
    'dseg_tsv': 'desc-CMB_dseg.tsv',
    'overview': 'overview.png',
    'lesions': 'lesions.png',
    'record': 'record.json',
}


def register(commands: Any) -> None:
    """Add the subcommand to an ``argparse`` subparsers object."""
    parser = commands.add_parser(
        'scan',
        help='find microbleeds in one image',
        description='Find microbleeds in one T2*-GRE or SWI image, without a BIDS dataset.',
    )
    parser.add_argument('image', type=types.existing_file, help='NIfTI image')
    parser.add_argument('-m', '--mask', type=types.existing_file, help='brain mask, same grid')
    parser.add_argument(
        '--channel',
        action='append',
        default=[],
        type=types.existing_file,
        metavar='IMAGE',
        help='further image on the same grid, for a model with several channels; repeat in their '
        'order',
    )
    parser.add_argument('-o', '--out-dir', type=types.folder, required=True, help='output folder')
    parser.add_argument(
        '--contrast',
        choices=('T2starw', 'swi'),
        default='T2starw',
        help='what the image shows (default: T2starw)',
    )
    parser.add_argument('--model', default='default', metavar='NAME|PATH', help='model bundle')
    parser.add_argument('--models-dir', type=types.folder, metavar='DIR', help='installed bundles')
    parser.add_argument('--trust-model', action='store_true', help='load networks with code')
    parser.add_argument('--engine', choices=('auto', 'openvino', 'tensorflow'), default='auto')
    parser.add_argument('--device', choices=('auto', 'cpu', 'gpu'), default='auto')
    parser.add_argument('--threshold', type=types.probability, metavar='P')
    parser.add_argument('--min-size', type=types.positive_int, metavar='VOXELS')
    parser.add_argument('--min-parenchyma', type=types.share, metavar='SHARE')
    parser.add_argument('--toolkit', choices=('auto', 'fsl', 'native'), default='auto')
    parser.add_argument(
        '--mask-method',
        choices=('auto', 'builtin', 'bet', 'synthstrip', 'hd-bet', 'background'),
        default='auto',
        help='brain mask when none is given',
    )
    parser.add_argument('--no-zones', action='store_true', help='leave out the zones of the brain')
    parser.add_argument(
        '--nprocs', type=types.positive_int, default=0, metavar='N', help='processors to use'
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Process one image; return the exit code."""
    from shivacmb.cli import plans
    from shivacmb.cli.engine import choose_plugin
    from shivacmb.cli.main import check_options, check_writable
    from shivacmb.cli.run import run_plans
    from shivacmb.cli.settings import Settings
    from shivacmb.models import check_engine, check_gpu, find_bundle

    settings = Settings(
        bids_dir=args.image.parent,
        out_dir=args.out_dir,
        analysis_level='scan',
        model=args.model,
        models_dir=args.models_dir,
        trust_model=args.trust_model,
        engine=args.engine,
        device=args.device,
        threshold=args.threshold,
        min_size=args.min_size,
        min_parenchyma=args.min_parenchyma,
        toolkit=args.toolkit,
        mask=args.mask_method,
        brain_mask=None if args.mask is None else str(args.mask),
        no_zones=args.no_zones,
        nprocs=args.nprocs,
    )
    check_options(settings)
    bundle = find_bundle(settings.model, settings.models_dir)
    bundle.check_contrast(args.contrast, f'<{args.image}>')
    bundle.check_channels(1 + len(args.channel))
    detection = plans.build_detection(settings, bundle)
    plans.check_mask_tool(settings.mask)
    check_writable(args.out_dir)
    plans.verify_model(bundle, detection.engine)
    check_gpu(detection.device)
    check_engine(detection.engine)
    plan = _plan(args, settings, detection, bundle)
    log_dir = Path(tempfile.mkdtemp(prefix='shivacmb-log-'))
    failure: ShivaCMBError | None = None
    try:
        plugin = choose_plugin(settings, 1)
        failures = run_plans(settings, [plan], detection, bundle, plugin, run_dir=log_dir)
        failure = failures.get(plan.stem)
    finally:
        # what nobody foresaw refers to a crash file, which must still be there
        if type(failure) is not ShivaCMBError:
            shutil.rmtree(log_dir, ignore_errors=True)
    if failure is not None:
        if log_dir.is_dir() and str(log_dir) not in str(failure):
            raise ShivaCMBError(f'{failure}; the log of this run is <{log_dir}>')
        if type(failure) is DataError and '<' not in str(failure):
            # a dataset's scans are named by their rows
            raise DataError(f'<{args.image}>: {failure}')
        raise failure
    record = json.loads(Path(plan.outputs['record']).read_text('utf-8'))
    left_out = ''
    if record['cmb_left_out']:
        left_out = (
            '; not counted, as they lie in fluid, at the pineal gland or outside the brain: '
            f'{record["cmb_left_out"]}'
        )
    print(
        f'{record["cmb_count"]} microbleed(s), class {record["burden_class"]}, '
        f'{record["cmb_volume_mm3"]:.1f} mm3{left_out}\nTable: {plan.outputs["dseg_tsv"]}\n'
        f'Picture: {plan.outputs["overview"]}\nFor research use only.'
    )
    return 0


def _plan(
    args: argparse.Namespace, settings: Settings, detection: Detection, bundle: Bundle
) -> ScanPlan:
    from shivacmb.cli import plans
    from shivacmb.workflows.plan import ScanPlan

    stem = args.image.name.removesuffix('.gz').removesuffix('.nii')
    rule = plans.parenchyma_rule(settings, bundle)
    least = rule[args.contrast]
    facts = plans.scan_facts(
        detection,
        bundle,
        settings.mask,
        args.mask,
        args.channel,
        contrast=args.contrast,
        rule=rule,
    )
    hashed = plans.hash_of(facts, settings.mask)
    facts.update(
        source=args.image.as_uri(),
        contrast=args.contrast,
        reason='named on the command line',
        warnings=[],
        record={
            'participant': stem,
            'session': None,
            'stem': stem,
            'filename': f'{stem}_{NAMES["dseg"]}',
            'source': args.image.as_uri(),
            'contrast': args.contrast,
            'software_version': __version__,
            **plans.record_values(detection, bundle, hashed, least),
        },
    )
    outputs = {key: str(args.out_dir / f'{stem}_{tail}') for key, tail in NAMES.items()}
    for key in list(outputs):
        if outputs[key].endswith('.nii.gz'):
            outputs[f'{key}_json'] = outputs[key].removesuffix('.nii.gz') + '.json'
    plan = ScanPlan(
        stem=stem,
        image=args.image,
        min_parenchyma=least,
        brain_mask=args.mask,
        outputs=outputs,
        staging=str(staging_folder(args.out_dir, f'.{stem}')),
        channels=tuple(args.channel),
        replaces=tuple(outputs.values()),
        overwrite=True,
        facts=facts,
    )
    plans.check_inputs_stay(plan)
    return plan
