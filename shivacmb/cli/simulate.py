"""``shivacmb-tools simulate OUT``: heads with microbleeds and their truth."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from shivacmb.cli import implant, types

CONTRASTS = ('T2starw', 'phase', 'swi', 'Chimap', 'T2w')


def register(commands: Any) -> None:
    """Add the subcommand to an ``argparse`` subparsers object."""
    parser = commands.add_parser(
        'simulate',
        help='make a BIDS dataset of heads with microbleeds and their truth',
        description='Simulate heads with microbleeds and what resembles them: a BIDS dataset with '
        'the truth in derivatives/truth. What is not given is drawn for each subject. The same '
        'options and seed give the same bytes; run the same command again to go on after a stop.',
    )
    parser.add_argument('out_dir', metavar='OUT', type=types.folder, help='folder of the dataset')
    parser.add_argument(
        '--subjects', type=types.positive_int, metavar='N', help='how many (default: 10)'
    )
    parser.add_argument('--seed', type=types.seed, default=0, metavar='S', help='default: 0')
    parser.add_argument(
        '--contrasts',
        type=_contrasts,
        metavar='A,B,...',
        help=f'some of {",".join(CONTRASTS)} (default: all)',
    )
    _add_lesions(parser)
    _add_protocol(parser)
    group = parser.add_argument_group('your own scans')
    group.add_argument(
        '--into',
        type=types.folder,
        metavar='BIDS_DIR',
        help='put the lesions into the scans of this dataset, whose files stay as they are; '
        '--field and --echo-time then serve where sidecars are silent',
    )
    implant.add_scan_options(group)
    parser.add_argument(
        '--nprocs',
        type=types.positive_int,
        metavar='N',
        help='subjects simulated at the same time, 2 to 4 GB (more with voxels under 0.25 mm3) '
        'and up to two processors each (default: 1)',
    )
    parser.add_argument('-q', '--quiet', action='store_true', help='show no progress')
    parser.set_defaults(handler=run)


def _add_lesions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('lesions')
    group.add_argument(
        '--lesions',
        type=types.whole_range,
        metavar='N|MIN-MAX',
        help='lesions of a subject (default: as in the VALDO cohort)',
    )
    group.add_argument(
        '--lesion-free',
        type=types.share,
        metavar='SHARE',
        help='share of subjects without any, when --lesions is not given (default: 0.3)',
    )
    group.add_argument(
        '--radius',
        type=types.number_range,
        metavar='MIN-MAX',
        help='apparent radius in mm (default: as in 957 lesions of patients)',
    )
    group.add_argument(
        '--chi',
        type=types.number_range,
        default=(0.15, 2.5),
        metavar='MIN-MAX',
        help='susceptibility in ppm (default: 0.15-2.5)',
    )
    group.add_argument(
        '--mimics',
        type=types.amount,
        metavar='AMOUNT',
        help='amount of vessels and perivascular spaces, 1 is usual; calcifications are present '
        '(above 0) or not (0)',
    )


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('protocol', 'what is not given is drawn for each subject')
    group.add_argument(
        '--voxel-size',
        type=float,
        nargs=3,
        metavar='MM',
        help='in plane, in plane, slice thickness',
    )
    group.add_argument('--field', type=float, metavar='T', help='main field')
    group.add_argument(
        '--echo-time', type=float, nargs='+', metavar='MS', help='several make a MEGRE'
    )
    group.add_argument('--snr', type=float, metavar='RATIO', help='white matter over noise')
    group.add_argument('--orientation', choices=('axial', 'coronal', 'sagittal'))
    group.add_argument(
        '--oblique', type=float, metavar='DEGREES', help='slices against the scanner, 0 to 45'
    )
    group.add_argument('--whole-head', action='store_true', help='scan face and neck too')
    group.add_argument(
        '--clean',
        action='store_true',
        help='no ghosts, no missing k-space, no missing slices',
    )


def _contrasts(value: str) -> tuple[str, ...]:
    """Contrasts in the usual order, whatever their case."""
    names = {name.lower(): name for name in CONTRASTS}
    asked = [word for word in value.replace(',', ' ').split() if word]
    unknown = [word for word in asked if word.lower() not in names]
    if unknown or not asked:
        raise argparse.ArgumentTypeError(f'expected some of {",".join(CONTRASTS)}, got {value!r}')
    chosen = {names[word.lower()] for word in asked}
    return tuple(name for name in CONTRASTS if name in chosen)


_OF_HEADS = (
    'subjects', 'contrasts', 'mimics', 'voxel_size', 'snr', 'orientation', 'oblique',
    'whole_head', 'clean',
)  # fmt: skip
_OF_SCANS = ('participant_label', 'modality', 'derivatives', 'brain_mask', 'phase_sign')


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Say which option does not go with the others instead of passing it over."""
    from shivacmb.exceptions import UsageError

    for name in names:
        value = getattr(args, name)
        # 0 is an amount of mimics that somebody asked for
        if value is not None and value is not False and value != []:
            raise UsageError(f'--{name.replace("_", "-")} {why}')


def run(args: argparse.Namespace) -> int:
    """Simulate the dataset; return the exit code."""
    if args.lesions is not None:
        _refuse(args, ('lesion_free',), 'means nothing with --lesions: 0-N draws some without any')
    if args.into is not None:
        _refuse(args, _OF_HEADS, 'means nothing with --into: the scans decide it')
        _refuse(args, ('nprocs',), 'means nothing with --into: scans come one after the other')
        if len(args.echo_time or ()) > 1:
            _refuse(args, ('echo_time',), 'takes one value with --into, where sidecars are silent')
        return implant.run_into(args)
    _refuse(args, _OF_SCANS, 'needs --into BIDS_DIR')
    from shivacmb.cli.progress import counting
    from shivacmb.simulate.allocation import keep_freed_memory
    from shivacmb.simulate.bids_dataset import Order, make_dataset
    from shivacmb.simulate.scanner import Wishes

    keep_freed_memory()
    wishes = Wishes(
        voxel_mm=tuple(args.voxel_size) if args.voxel_size else None,
        field_t=args.field,
        echoes_s=tuple(1e-3 * echo for echo in args.echo_time) if args.echo_time else None,
        snr=args.snr,
        orientation=args.orientation,
        oblique_deg=args.oblique,
        mimics=args.mimics,
        whole_head=args.whole_head,
        artefacts=not args.clean,
    )
    subjects = args.subjects or 10
    order = Order(
        seed=args.seed,
        contrasts=args.contrasts or CONTRASTS,
        wishes=wishes,
        lesions=args.lesions,
        lesion_free=0.3 if args.lesion_free is None else args.lesion_free,
        radius_mm=args.radius,
        chi_ppm=args.chi,
    )
    with counting('subjects', quiet=args.quiet) as report:
        made = make_dataset(args.out_dir, order, subjects, nprocs=args.nprocs or 1, report=report)
    print(
        f'{len(made)} subject(s) simulated, {subjects - len(made)} were there; '
        f'images in <{args.out_dir}>, truth in <{args.out_dir / "derivatives" / "truth"}>'
    )
    if not made:
        sys.stderr.write('shivacmb: nothing was left to do\n')
    return 0
