"""Lesions in a user's own scans: ``simulate --into`` and ``detectability``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shivacmb.cli import types

if TYPE_CHECKING:
    import nibabel as nib

    from shivacmb.exceptions import ShivaCMBError
    from shivacmb.models import Bundle
    from shivacmb.simulate.implant_files import Fallback


def add_scan_options(parser: argparse._ArgumentGroup) -> None:
    """Options of both commands: which scans, which masks, what sidecars do not say."""
    parser.add_argument('--participant-label', nargs='+', metavar='LABEL')
    parser.add_argument('--modality', choices=('auto', 'swi', 't2s'), help='default: auto')
    parser.add_argument(
        '-d',
        '--derivatives',
        type=types.named_folder,
        action='extend',
        nargs='+',
        default=[],
        metavar='NAME=PATH',
        help='derivatives with desc-brain_mask files (default: the built-in mask)',
    )
    parser.add_argument(
        '--brain-mask',
        metavar='PATTERN',
        help="path of the masks with {participant} (without 'sub-'), {session} or {stem}",
    )
    parser.add_argument(
        '--phase-sign',
        choices=('+', '-'),
        help='sign of the phase where the field is raised (default: +)',
    )


def register(commands: Any) -> None:
    """Add ``detectability`` to an ``argparse`` subparsers object."""
    parser = commands.add_parser(
        'detectability',
        help='measure which microbleeds a model finds on your own scans',
        description='Put simulated microbleeds of known radius and susceptibility into the scans '
        'of a dataset, in memory, run the detection, and count what is found: a table with '
        'intervals and a plot for each protocol. The scans are only read.',
    )
    parser.add_argument('bids_dir', metavar='BIDS_DIR', type=types.folder, help='the dataset')
    parser.add_argument(
        '-o', '--out-dir', type=types.folder, required=True, metavar='OUT', help='output folder'
    )
    parser.add_argument('--model', default='default', metavar='NAME|PATH', help='model bundle')
    parser.add_argument('--threshold', type=types.probability, metavar='P')
    parser.add_argument('--min-size', type=types.positive_int, metavar='VOXELS')
    parser.add_argument('--min-parenchyma', type=types.share, metavar='SHARE')
    parser.add_argument(
        '--radii', type=float, nargs='+', metavar='MM', help='default: 0.4 0.6 0.9 1.3 1.9 2.8'
    )
    parser.add_argument(
        '--chi', type=float, nargs='+', metavar='PPM', help='default: 0.15 0.4 1 2.5'
    )
    parser.add_argument(
        '--repeats',
        type=types.positive_int,
        default=4,
        metavar='N',
        help='lesions of each kind per scan (default: 4)',
    )
    parser.add_argument('--seed', type=types.seed, default=0, metavar='S')
    group = parser.add_argument_group('scans')
    add_scan_options(group)
    group.add_argument('--field', type=float, metavar='T', help='where sidecars are silent')
    group.add_argument('--echo-time', type=float, metavar='MS', help='where sidecars are silent')
    parser.add_argument(
        '--nprocs', type=types.positive_int, default=0, metavar='N', help='threads of the network'
    )
    parser.add_argument('-q', '--quiet', action='store_true', help='show no progress')
    parser.set_defaults(handler=run_detectability)


def fallback(field_t: float | None, echo_ms: float | None, sign: str | None) -> Fallback:
    """What is taken where sidecars are silent."""
    from shivacmb.exceptions import UsageError
    from shivacmb.simulate.implant_files import Fallback

    if field_t is not None and not 0.1 <= field_t <= 20:
        raise UsageError(f'a field of {field_t:g} T: give one between 0.1 and 20')
    if echo_ms is not None and not 1 <= echo_ms <= 200:
        raise UsageError(f'an echo time of {echo_ms:g} ms: give one between 1 and 200')
    return Fallback(
        3.0 if field_t is None else field_t,
        0.020 if echo_ms is None else 1e-3 * echo_ms,
        -1 if sign == '-' else 1,
    )


def note(text: str) -> None:
    """Tell the user something that stops nothing."""
    sys.stderr.write(f'shivacmb: {text}\n')


def exit_code(failures: Mapping[str, ShivaCMBError], others: int) -> int:
    """0 when nothing failed, 1 when some did, the failures' own code when all did alike."""
    if not failures:
        return 0
    codes = {error.exit_code for error in failures.values()}
    return codes.pop() if not others and len(codes) == 1 else 1


def run_into(args: argparse.Namespace) -> int:
    """Put lesions into the scans of a dataset; return the exit code."""
    from shivacmb.cli.progress import counting
    from shivacmb.simulate.implant_dataset import ImplantOrder, implant_dataset

    echo = args.echo_time[0] if args.echo_time else None
    order = ImplantOrder(
        seed=args.seed,
        lesions=args.lesions,
        lesion_free=0.3 if args.lesion_free is None else args.lesion_free,
        radius_mm=args.radius,
        chi_ppm=args.chi,
        fallback=fallback(args.field, echo, args.phase_sign),
    )
    with counting('scans', quiet=args.quiet) as report:
        made, failures, kept = implant_dataset(
            args.into,
            args.out_dir,
            order,
            participants=args.participant_label,
            modality=args.modality or 'auto',
            derivatives=types.folders_by_name(args.derivatives),
            mask_pattern=args.brain_mask,
            report=report,
            say=note,
        )
    print(
        f'{len(made)} scan(s) written to <{args.out_dir}>, {len(kept)} were there, '
        f'{len(failures)} failed; truth in <{args.out_dir / "derivatives" / "truth"}>'
    )
    return exit_code(failures, len(made) + len(kept))


def _key(bundle: Bundle) -> dict[str, Any]:
    """Checksums of a model's description and networks, which its name does not stand for."""
    from shivacmb.models.bundle import MODEL_FILE
    from shivacmb.models.checksums import sha256_of

    return {
        'model': sha256_of(bundle.path / MODEL_FILE),
        'folds': [fold.sha256 for fold in bundle.folds],
    }


def run_detectability(args: argparse.Namespace) -> int:
    """Measure detectability; return the exit code."""
    from shivacmb.cli.progress import counting
    from shivacmb.models import find_bundle
    from shivacmb.simulate.detectability import CHIS, RADII, Grid, measure_detectability
    from shivacmb.simulate.detectability_plot import write_plots
    from shivacmb.simulate.implant_dataset import check_folders

    bundle = find_bundle(args.model)
    bundle.check_detects()
    bundle.check_channels(1)
    check_folders(args.bids_dir, args.out_dir)
    grid = Grid(
        tuple(args.radii or RADII), tuple(args.chi or CHIS), repeats=args.repeats, seed=args.seed
    )
    level = bundle.postprocess.threshold if args.threshold is None else args.threshold
    least = args.min_size or bundle.postprocess.min_voxels
    name = f'{bundle.name} {bundle.version} at {level:g}, {least} voxels'
    if args.min_parenchyma is not None:
        name += f', {args.min_parenchyma:g} of tissue around'

    def detector(
        image: nib.Nifti1Image, mask: nib.Nifti1Image, contrast: str
    ) -> list[tuple[float, float, float]]:
        from shivacmb.detection import detect

        found = detect(
            image,
            mask,
            bundle.path,
            threshold=level,
            min_voxels=least,
            min_parenchyma=args.min_parenchyma,
            contrast='swi' if contrast == 'swi' else 'T2starw',
            threads=args.nprocs or None,
        )
        return [(lesion.x, lesion.y, lesion.z) for lesion in found.lesions]

    with counting('scans', quiet=args.quiet) as report:
        rows, failures = measure_detectability(
            args.bids_dir,
            args.out_dir,
            grid,
            detector,
            detector_name=name,
            detector_key=_key(bundle),
            participants=args.participant_label,
            modality=args.modality or 'auto',
            derivatives=types.folders_by_name(args.derivatives),
            mask_pattern=args.brain_mask,
            fallback=fallback(args.field, args.echo_time, args.phase_sign),
            report=report,
            say=note,
        )
    if rows:
        plots = write_plots(Path(args.out_dir), rows, name)
        implanted, found = (sum(row[key] for row in rows) for key in ('implanted', 'found'))
        print(f'{found} of {implanted} simulated lesions found by {name}')
        print(f'Table: {args.out_dir / "detectability.tsv"}')
        for plot in plots:
            print(f'Plot: {plot}')
        print('For research use only.')
    return exit_code(failures, len(rows))
