"""``shivacmb-tools evaluate PREDICTIONS TRUTH -o DIR``: every published score side by side."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from shivacmb.cli import types

# written out here so that the parser imports nothing heavy; tests hold them against the package
RULES = ('shiva', 'deepmir', 'valdo', 'ko', 'optimal')
MATCHED = (
    'shiva',
    'shiva-mm3',
    'deepmir-mm',
    'deepmir-voxel',
    'valdo-mm',
    'valdo-voxel',
    'optimal',
)
KINDS = ('auto', 'instances', 'mask', 'probability', 'points', 'counts')
ZERO_RULES = ('shiva', 'drop', 'valdo')
CRITERIA = ('f1', 'f1-per-scan', 'sensitivity-at-2-fp', 'sensitivity-at-1-fp')


def register(commands: Any) -> None:
    """Add the subcommand to an ``argparse`` subparsers object."""
    parser = commands.add_parser(
        'evaluate',
        help='score predictions against a truth under every published rule',
        description='Score predictions against a truth under every published rule. Each side is '
        'a folder of BIDS derivatives, a folder with --pred-pattern or --truth-pattern, one '
        'image, or a table (points: x y z in scanner mm, n/a for a participant without lesions; '
        'counts: participant_id and count).',
        epilog='Example: shivacmb-tools evaluate OUT_DIR BIDS_DIR/derivatives/truth -o scores',
    )
    parser.add_argument('predictions', type=_existing, metavar='PREDICTIONS')
    parser.add_argument('truth', type=_existing, metavar='TRUTH')
    parser.add_argument('-o', '--out-dir', type=types.folder, required=True, metavar='DIR')
    _add_input(parser.add_argument_group('what to read'))
    _add_rules(parser.add_argument_group('rules'))
    _add_statistics(parser.add_argument_group('statistics'))
    _add_output(parser.add_argument_group('output'))
    parser.set_defaults(handler=run)


def _add_input(group: Any) -> None:
    group.add_argument(
        '--classes', nargs='+', type=_class, default=[('CMB', None)], metavar='NAME[=VALUE]',
        help='kinds of lesion; with VALUE those of one value of a shared label map (default: CMB)',
    )  # fmt: skip
    for side, name in (('pred', 'predictions'), ('truth', 'truth')):
        group.add_argument(
            f'--{side}-pattern', metavar='GLOB',
            help=f'files of the {name} below the folder; {{class}} stands for the class',
        )  # fmt: skip
        group.add_argument(
            f'--{side}-kind', choices=KINDS, default='auto',
            help='how to read them (default: by name and values)',
        )  # fmt: skip
    group.add_argument(
        '--participant-label', '--participant_label', nargs='+', metavar='LABEL',
        help='participants, or a text file of them',
    )  # fmt: skip
    group.add_argument('--count-column', metavar='NAME', help='of a table of counts')
    group.add_argument(
        '--threshold', type=types.probability, metavar='P',
        help='make the predictions from probability maps',
    )  # fmt: skip
    group.add_argument(
        '--min-size', type=types.positive_int, metavar='VOXELS',
        help='smallest cluster of these (default: 1; the rule shiva has its own limit)',
    )  # fmt: skip
    group.add_argument('--connectivity', type=int, choices=(6, 18, 26), default=26)
    group.add_argument(
        '--merge-touching', action='store_true',
        help='ignore the values of label maps: touching lesions become one',
    )  # fmt: skip
    group.add_argument(
        '--resample', choices=('none', 'truth', 'predictions'), default='none',
        help='side to bring to the other grid where they differ (default: refuse)',
    )  # fmt: skip
    group.add_argument(
        '--point-radius', type=_positive, metavar='MM', help='of points without a radius'
    )
    group.add_argument(
        '--missing-as-empty', action='store_true',
        help='a missing prediction counts as one without lesions',
    )  # fmt: skip
    group.add_argument('--strict', action='store_true', help='stop when a scan lacks its partner')
    group.add_argument(
        '--bids-dir', type=_existing, metavar='DIR',
        help='raw dataset, for strata and pictures (default: found from TRUTH in '
        'BIDS_DIR/derivatives)',
    )  # fmt: skip


def _add_rules(group: Any) -> None:
    group.add_argument('--rules', nargs='+', choices=RULES, default=list(RULES), metavar='RULE',
                       help=f'of {", ".join(RULES)} (default: all)')  # fmt: skip
    group.add_argument(
        '--shiva-min-voxels', type=types.positive_int, default=3, metavar='VOXELS',
        help='smaller lesions and predictions are left out by the rule shiva (default: 3)',
    )  # fmt: skip
    group.add_argument(
        '--shiva-over-mm3', type=_not_negative, default=2.0, metavar='MM3',
        help='those of this volume and less are left out by the rule shiva-mm3 (default: 2)',
    )  # fmt: skip
    group.add_argument('--tolerance-mm', type=_positive, metavar='MM',
                       help='of deepmir-mm (default: 3; iron 5)')  # fmt: skip
    group.add_argument('--tolerance-voxels', type=_positive, metavar='N',
                       help='of deepmir-voxel (default: 3; iron 5)')  # fmt: skip
    group.add_argument('--valdo-mm', type=_positive, default=5.0, metavar='MM',
                       help='of valdo-mm (default: 5)')  # fmt: skip
    group.add_argument('--valdo-voxels', type=_positive, default=5.0, metavar='N',
                       help='of valdo-voxel (default: 5)')  # fmt: skip
    group.add_argument('--optimal-mm', type=_positive, default=5.0, metavar='MM',
                       help='of optimal (default: 5)')  # fmt: skip
    group.add_argument(
        '--zero-rule', choices=ZERO_RULES,
        help='for scans without lesions or predictions, in every rule set (default: its own)',
    )  # fmt: skip
    group.add_argument(
        '--main-rule', choices=MATCHED, default='shiva-mm3',
        help='of sweep, sizes, strata and pictures (default: shiva-mm3)',
    )  # fmt: skip


def _add_statistics(group: Any) -> None:
    group.add_argument(
        '--bootstrap', type=_whole, default=2000, metavar='N',
        help='draws of participants for intervals; 0 gives none (default: 2000)',
    )  # fmt: skip
    group.add_argument('--seed', type=_whole, default=20240101, help='of the draws')
    group.add_argument('--interval', choices=('wilson', 'clopper-pearson'), default='wilson',
                       help='of the patient level (default: wilson)')  # fmt: skip
    group.add_argument(
        '--sweep', action='store_true',
        help='thresholds and smallest sizes, FROC and precision-recall from probability maps',
    )  # fmt: skip
    group.add_argument(
        '--choose-by', choices=CRITERIA, default='f1',
        help='criterion of the best point of the sweep (default: f1, pooled)',
    )  # fmt: skip
    group.add_argument(
        '--choose-on', nargs='+', default=[], metavar='LABEL',
        help='participants on which the point is chosen; the others report it',
    )  # fmt: skip
    group.add_argument('--compare', type=_existing, metavar='PREDICTIONS',
                       help='second prediction set, compared scan by scan')  # fmt: skip
    group.add_argument('--names', nargs=2, default=['first', 'second'], metavar='NAME',
                       help='of the two')  # fmt: skip
    group.add_argument(
        '--strata', nargs='+', default=[], metavar='NAME',
        help='further columns of participants.tsv or fields of the sidecars',
    )  # fmt: skip


def _add_output(group: Any) -> None:
    group.add_argument('--title', default='Evaluation', help='of the page')
    group.add_argument(
        '--table-by', metavar='STRATUM',
        help="rows of the paper's table (default: contrast, where there are several)",
    )  # fmt: skip
    group.add_argument('--no-gallery', action='store_true', help='no pictures of errors')
    group.add_argument(
        '--pdf', choices=('auto', 'plain', 'none'), default='auto',
        help='auto: print the page by a headless Chromium where there is one; plain: figures '
        'only, the same bytes each time',
    )  # fmt: skip
    group.add_argument(
        '--nprocs', type=types.positive_int, metavar='N', help='processes (default: all cores)'
    )


def _existing(value: str) -> Path:
    """Absolute path; whether something is there is said later, with an exit code of its own."""
    return types.folder(value)


def _class(value: str) -> tuple[str, int | None]:
    name, sign, number = value.partition('=')
    if not name.replace('-', '').isalnum() or (sign and not number.isdecimal()):
        raise argparse.ArgumentTypeError(f'expected NAME or NAME=VALUE, got {value!r}')
    if sign and not int(number):
        raise argparse.ArgumentTypeError(
            f'expected NAME=VALUE with a value from 1, got {value!r}: 0 is the background'
        )
    return name, int(number) if sign else None


def _positive(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float('inf'):
        raise argparse.ArgumentTypeError(f'expected a number above 0, got {value!r}')
    return number


def _not_negative(value: str) -> float:
    return 0.0 if value in ('0', '0.0') else _positive(value)


def _whole(value: str) -> int:
    if not value.isdigit():
        raise argparse.ArgumentTypeError(f'expected a whole number from 0, got {value!r}')
    return int(value)


def run(args: argparse.Namespace) -> int:
    """Score, write, and print a short summary; return the exit code."""
    from shivacmb.cli.main import check_writable, say
    from shivacmb.evaluate.report import summary_text, write_all
    from shivacmb.evaluate.session import run as run_session

    options = _options(args)
    check_writable(options.out_dir)
    parts = run_session(options, tell=_progress if sys.stderr.isatty() else None)
    page = write_all(parts, options, _command(args))
    for part in parts:
        for warning in part.warnings:
            say(warning)
    print(summary_text(parts, options))
    print(f'Page: {page}\nFor research use only.')
    return 0


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f'\r{done} of {total} scans' + ('\n' if done == total else ''))
    sys.stderr.flush()


def _options(args: argparse.Namespace) -> Any:
    from shivacmb.bids import parse_labels
    from shivacmb.evaluate.lists import WIDEST_MM
    from shivacmb.evaluate.session import Options
    from shivacmb.exceptions import NoInputError, UsageError

    for path in (args.predictions, args.truth, args.compare, args.bids_dir):
        if path is not None and not path.exists():
            raise NoInputError(f'There is no <{path}>; check the path')
    names = [name for name, _ in args.classes]
    if len(set(names)) < len(names):
        raise UsageError('--classes names a class twice')
    if args.min_size is not None and args.threshold is None and args.pred_kind != 'probability':
        raise UsageError('--min-size goes with --threshold; it has no effect on label maps')
    if args.point_radius is not None and args.point_radius > WIDEST_MM:
        raise UsageError(f'--point-radius is at most {WIDEST_MM} mm, got {args.point_radius:g}')
    if args.choose_on and not args.sweep:
        raise UsageError('--choose-on goes with --sweep')
    for side in (args.predictions, args.truth):
        if args.out_dir == side:
            raise UsageError(f'the output folder <{side}> is one of the inputs; choose another')
    return Options(
        predictions=args.predictions, truth=args.truth, out_dir=args.out_dir,
        classes=tuple(args.classes), rules=tuple(args.rules), pred_kind=args.pred_kind,
        truth_kind=args.truth_kind, pred_pattern=args.pred_pattern,
        truth_pattern=args.truth_pattern,
        participants=parse_labels(args.participant_label) or (), count_column=args.count_column,
        threshold=args.threshold, min_size=args.min_size, connectivity=args.connectivity,
        merge=args.merge_touching, resample=args.resample, point_radius_mm=args.point_radius,
        shiva_min_voxels=args.shiva_min_voxels, shiva_over_mm3=args.shiva_over_mm3,
        tolerance_mm=args.tolerance_mm, tolerance_voxels=args.tolerance_voxels,
        valdo_mm=args.valdo_mm, valdo_voxels=args.valdo_voxels, optimal_mm=args.optimal_mm,
        zero_rule=args.zero_rule,
        main_rule=args.main_rule, interval=args.interval, draws=args.bootstrap, seed=args.seed,
        sweep=args.sweep, criterion=args.choose_by,
        choose_on=parse_labels(args.choose_on) or (), compare=args.compare,
        names=(args.names[0], args.names[1]), bids_dir=args.bids_dir, strata=tuple(args.strata),
        table_by=args.table_by, missing_as_empty=args.missing_as_empty, strict=args.strict,
        gallery=not args.no_gallery, pdf=args.pdf, title=args.title,
        processes=args.nprocs or len(os.sched_getaffinity(0)),
    )  # fmt: skip


def _command(args: argparse.Namespace) -> str:
    """The command line as it was typed, when it was typed."""
    if sys.argv and Path(sys.argv[0]).name.startswith('shivacmb-tools'):
        return shlex.join(['shivacmb-tools', *sys.argv[1:]])
    return f'shivacmb-tools evaluate {args.predictions} {args.truth} -o {args.out_dir}'
