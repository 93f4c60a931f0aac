"""``shivacmb-tools train BIDS_DIR LABELS_DIR -o BUNDLE_DIR``: a model from labelled scans."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shivacmb.cli import interrupts, types
from shivacmb.cli.train_folders import check_folders, work_folder

if TYPE_CHECKING:
    from pathlib import Path

    from shivacmb.models import Bundle, Grid, Input, Intensity
    from shivacmb.train.dataset import LabelClass
    from shivacmb.train.plan import Plan
    from shivacmb.train.run import Task

INTENDED_USE = (
    'Research use only. Not validated beyond the scans it was trained on; check it on labelled '
    'scans of your own before counting with it.'
)
_EPILOG = (
    'Everything that takes long is kept in the work folder, so that the same command goes on '
    'after a kill, after --max-minutes, or on another machine with a copy of that folder. '
    'KERAS_BACKEND chooses tensorflow (default), jax or torch. docs/train.md tells more.'
)


def register(commands: Any) -> None:
    """Add the subcommand to an ``argparse`` subparsers object."""
    parser = commands.add_parser(
        'train',
        help='train a model on labelled scans',
        description='Train the networks of a model on a BIDS dataset with label maps, by default '
        'with the recipe of the SHIVA-CMB paper.',
        epilog=_EPILOG,
    )
    parser.add_argument('bids_dir', type=types.folder, metavar='BIDS_DIR', help='dataset')
    parser.add_argument(
        'labels_dir', type=types.folder, metavar='LABELS_DIR',
        help='derivatives with *_desc-CMB_dseg.nii.gz or *_label-CMB_mask.nii.gz',
    )  # fmt: skip
    parser.add_argument(
        '-o', '--output', type=types.folder, required=True, metavar='BUNDLE_DIR',
        help='folder of the model; its name is the name of the model',
    )  # fmt: skip
    _add_data(parser.add_argument_group('data'))
    _add_network(parser.add_argument_group('network'))
    _add_recipe(parser.add_argument_group('recipe'))
    _add_running(parser.add_argument_group('running'))
    _add_card(parser.add_argument_group('model card'))
    parser.set_defaults(handler=run)


def _add_data(group: Any) -> None:
    group.add_argument(
        '--also', nargs=2, type=types.folder, action='append', default=[],
        metavar=('BIDS_DIR', 'LABELS_DIR'), help='one more dataset; may be repeated',
    )  # fmt: skip
    group.add_argument(
        '--input', action='append', metavar='NAME=CONTRAST[,...]',
        help='a channel and the contrasts that fill it; repeat for more channels, aligned with '
        'the first (default: swi=T2starw,swi)',
    )  # fmt: skip
    group.add_argument(
        '--class', dest='classes', action='append', metavar='NAME[=VALUE,...]',
        help='a class to learn, and its values in the label map (default: CMB, every value '
        'above 0); repeat for more',
    )  # fmt: skip
    group.add_argument(
        '--ignore', type=types.positive_int, nargs='+', default=[], metavar='VALUE',
        help='values of label maps that count neither as a lesion nor as background',
    )  # fmt: skip
    group.add_argument(
        '--labels', metavar='PATTERN',
        help='path of label maps with {participant}, {session}, {stem}, {label}; a relative one '
        'starts in LABELS_DIR',
    )  # fmt: skip
    group.add_argument(
        '-d', '--derivatives', action='extend', nargs='+', default=[], metavar='NAME=PATH',
        help='derivatives with *_desc-brain_mask.nii.gz; with --also, a NAME that is that of a '
        'dataset is for this one alone',
    )  # fmt: skip
    group.add_argument(
        '--brain-mask', metavar='PATTERN',
        help="path of brain masks with {participant} (without 'sub-'), {session}, {stem}; with "
        '--also also {dataset}',
    )  # fmt: skip
    group.add_argument('--participant-label', nargs='+', metavar='LABEL')
    group.add_argument('--exclude-participant-label', nargs='+', default=[], metavar='LABEL')
    group.add_argument('--bids-filter-file', type=types.existing_file, metavar='FILE')


def _add_network(group: Any) -> None:
    group.add_argument(
        '--init-from', metavar='MODEL',
        help='begin with the weights of a model (name or folder), with its channels, classes, '
        'grid and architecture',
    )  # fmt: skip
    group.add_argument('--models-dir', type=types.folder, metavar='DIR', help='installed models')
    group.add_argument(
        '--preset', choices=('shiva-paper', 'shivai'),
        help='grid and intensities (default: shiva-paper)',
    )  # fmt: skip
    group.add_argument(
        '--shape', type=types.positive_int, nargs=3, metavar='N',
        help='box in voxels (default: that of the preset)',
    )  # fmt: skip
    group.add_argument(
        '--network', choices=('shiva-paper', 'small'),
        help='12.3 million parameters, or 713 000 for machines without a GPU (default: '
        'shiva-paper)',
    )  # fmt: skip
    group.add_argument(
        '--filters', type=types.positive_int, metavar='N', help='of the first stage'
    )
    group.add_argument('--stages', type=types.positive_int, metavar='N', help='resolutions')
    group.add_argument('--convolutions', type=types.positive_int, metavar='N', help='per stage')
    group.add_argument(
        '--growth', type=types.above_zero, metavar='F', help='of the filters, by stage'
    )


def _add_recipe(group: Any) -> None:
    group.add_argument('--folds', type=types.positive_int, default=3, metavar='N')
    group.add_argument(
        '--seed', type=types.seed, default=0, metavar='N', help='decides every draw'
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        '--epochs', type=types.positive_int, default=200, metavar='N',
        help='times that each scan, or eight patches of it, is seen (default: 200)',
    )  # fmt: skip
    length.add_argument('--steps', type=types.positive_int, metavar='N', help='batches per fold')
    group.add_argument('--batch', type=types.positive_int, default=1, metavar='N')
    group.add_argument(
        '--patch-size', type=types.positive_int, metavar='N',
        help='train on cubes of N voxels instead of whole boxes',
    )  # fmt: skip
    group.add_argument(
        '--loss', choices=('dice', 'balanced'), default='dice',
        help='Dice as in the paper, or with a balanced cross-entropy, which starts faster',
    )  # fmt: skip
    group.add_argument(
        '--min-rate', type=types.above_zero, default=1e-6, metavar='R', help='default: 1e-6'
    )
    group.add_argument(
        '--max-rate', type=types.above_zero, default=1e-3, metavar='R', help='default: 1e-3'
    )
    group.add_argument(
        '--cycle-steps', type=types.positive_int, metavar='N',
        help='steps of a cycle of the learning rate (default: eight epochs)',
    )  # fmt: skip
    group.add_argument(
        '--decay', type=types.probability, metavar='F',
        help='factor of the cycles per step (default: 1 %% of the height is left at the end)',
    )  # fmt: skip
    group.add_argument('--no-flip', action='store_true', help='do not mirror left and right')
    group.add_argument(
        '--max-shift', type=types.seed, default=10, metavar='VOXELS', help='default: 10'
    )
    group.add_argument(
        '--max-rotation', type=types.degrees, default=10.0, metavar='DEGREES', help='default: 10'
    )
    group.add_argument(
        '--curves', choices=('sorted', 'free', 'none'), default='sorted',
        help='random intensity curves, their control points sorted (default) or free',
    )  # fmt: skip
    group.add_argument(
        '--precision', choices=('float32', 'mixed_bfloat16', 'mixed_float16'), default='float32',
        help='arithmetic; weights stay in float32 (default: float32, which also stands in for '
        'bfloat16 where the processor has none)',
    )  # fmt: skip
    group.add_argument(
        '--no-determinism', action='store_true',
        help='faster on some machines; the same seed then gives slightly other weights',
    )  # fmt: skip


def _add_running(group: Any) -> None:
    group.add_argument(
        '--work', type=types.folder, metavar='DIR',
        help='prepared scans and checkpoints (default: BUNDLE_DIR.work)',
    )  # fmt: skip
    group.add_argument(
        '--max-minutes', type=types.above_zero, metavar='M',
        help='stop at a checkpoint after M minutes; exit code 75 says: run it again',
    )  # fmt: skip
    group.add_argument(
        '--nprocs', type=types.positive_int, default=1, metavar='N',
        help='processes that prepare scans, threads that draw batches (default: 1)',
    )  # fmt: skip
    group.add_argument(
        '--only-fold', type=types.seed, metavar='K',
        help='train fold K alone (from 0); the run that finds all trained writes the model',
    )  # fmt: skip
    group.add_argument(
        '--fold-table', type=types.existing_file, metavar='FILE',
        help='folds.tsv of an earlier training: its people keep their folds',
    )  # fmt: skip
    group.add_argument(
        '--from-pool', action='store_true',
        help='take the scans prepared in the work folder, without a look at the datasets',
    )  # fmt: skip
    group.add_argument('--overwrite', action='store_true', help='replace BUNDLE_DIR')
    group.add_argument('-q', '--quiet', action='store_true', help='no progress, warnings only')


def _add_card(group: Any) -> None:
    group.add_argument('--bundle-version', default='0.1.0', metavar='TEXT')
    group.add_argument('--license', default='', metavar='TEXT', help='of the weights')
    group.add_argument('--description', default='', metavar='TEXT')
    group.add_argument('--citation', default='', metavar='TEXT')
    group.add_argument('--intended-use', default=INTENDED_USE, metavar='TEXT')


class _Stop:
    """Says when to stop: at a signal, or when the time is over."""

    def __init__(self, minutes: float | None) -> None:
        self.end = None if minutes is None else time.monotonic() + 60 * minutes
        self.signal: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._received)

    def _received(self, number: int, _frame: Any) -> None:
        self.signal = number
        # the second one does not wait for the step to end
        interrupts.listen()

    def __call__(self) -> bool:
        return self.signal is not None or (self.end is not None and time.monotonic() >= self.end)

    def raise_signal(self) -> None:
        """Leave as the signal would have made the command leave."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is not None:
            raise interrupts.Terminated


class _Tell:
    """Prints progress, steps not more often than every few seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.last = -10.0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        step = ', step ' in text
        wanted = not self.quiet or text.startswith('warning: ')
        if not wanted or (step and now - self.last < 5):
            return
        if step:
            self.last = now
        print(text, file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    """Train and write the model; return the exit code."""
    from shivacmb.exceptions import OutputError, ShivaCMBError, TemporaryError
    from shivacmb.models.descriptor import check_name
    from shivacmb.models.write import require_replaceable

    name = check_name(args.output.name)
    check_folders(args)
    if args.output.exists() and not args.overwrite:
        raise OutputError(
            f'<{args.output}> exists; give another folder, or --overwrite to replace it'
        )
    require_replaceable(args.output)
    task = task_from(args)
    check_backend()
    from shivacmb.train.backend import out_of_memory
    from shivacmb.train.finish import finish
    from shivacmb.train.lock import locked
    from shivacmb.train.run import train_folds

    stop, tell = _Stop(args.max_minutes), _Tell(quiet=args.quiet)
    described = {
        'name': name, 'version': args.bundle_version, 'license': args.license,
        'citation': args.citation, 'url': '', 'intended_use': args.intended_use,
        'description': args.description or 'Trained by shivacmb-tools train; see README.md.',
    }  # fmt: skip
    try:
        trained = train_folds(task, stop=stop, tell=tell)
        if trained is None:
            tell('this fold is trained; run the others, the last one writes the model')
            return 0
        with locked(task.work):
            bundle = finish(
                task, trained, args.output, described, overwrite=args.overwrite, stop=stop,
                tell=tell,
            )  # fmt: skip
    except TemporaryError:
        # also what a signal to the whole job, or an end of waiting for a lock, looks like
        stop.raise_signal()
        raise
    except ShivaCMBError:
        raise
    except Exception as error:
        if (told := out_of_memory(error)) is not None:
            raise told from error
        raise
    point, own = bundle.postprocess, bundle.metrics['unseen']
    print(
        f'wrote <{bundle.path}>: threshold {point.threshold:g}, at least {point.min_voxels} '
        f'voxels; on unseen scans F1 {own["f1"]:g}, {own["found"]} of {own["lesions"]} lesions, '
        f'{own["false_positives_per_scan"]:g} false positives per scan'
    )
    return 0


def check_backend() -> None:
    """Refuse a backend that is not installed, before scans are prepared for it.

    Nothing is imported: a library that is there and does not start is found out when it does.

    Raises
    ------
    UsageError
        The library that KERAS_BACKEND names, or Keras, is not installed.
    """
    from shivacmb.exceptions import UsageError
    from shivacmb.train.backend import BACKENDS

    wanted = os.environ.get('KERAS_BACKEND') or 'tensorflow'
    if wanted not in BACKENDS:
        raise UsageError(
            f'KERAS_BACKEND is {wanted!r}; training runs on {", ".join(BACKENDS)}: set it to one'
        )
    for name in (wanted, 'keras'):
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f'training on the backend {wanted!r} needs {name}, which is not installed: '
                f"`pip install '.[{wanted}]'`, or set KERAS_BACKEND to another of "
                f'{", ".join(BACKENDS)}'
            )


def task_from(args: argparse.Namespace) -> Task:
    """Turn the arguments into a task.

    Raises
    ------
    UsageError
        They contradict each other, or the model that is given to begin with.
    ModelError
        That model is none that the app runs.
    """
    from shivacmb.bids import parse_labels
    from shivacmb.exceptions import UsageError
    from shivacmb.models import find_bundle
    from shivacmb.train.dataset import Query
    from shivacmb.train.run import Task

    start = find_bundle(args.init_from, args.models_dir) if args.init_from else None
    if start is not None:
        # what is trained keeps its grid, and the app would refuse it
        start.check_detects()
    plan = _plan(args, start)
    if args.only_fold is not None and not 0 <= args.only_fold < plan.folds:
        raise UsageError(f'--only-fold must lie between 0 and {plan.folds - 1}')
    query = Query(
        inputs=plan.inputs, classes=plan.classes, pattern=args.labels,
        derivatives=_derivatives(args), mask_pattern=args.brain_mask,
        participants=parse_labels(args.participant_label),
        exclude=parse_labels(args.exclude_participant_label) or (),
        filters=args.bids_filter_file,
    )  # fmt: skip
    return Task(
        plan=plan, query=query,
        sets=((args.bids_dir, args.labels_dir), *((bids, labels) for bids, labels in args.also)),
        work=work_folder(args), start=start,
        fold_table=args.fold_table, from_pool=args.from_pool, workers=args.nprocs,
        only_fold=args.only_fold,
    )  # fmt: skip


def _derivatives(args: argparse.Namespace) -> dict[str, Path]:
    """Folders of masks, which must exist, unless the scans are prepared already."""
    from shivacmb.exceptions import UsageError

    if args.from_pool:
        return {}
    try:
        return types.folders_by_name(map(types.named_folder, args.derivatives))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f'argument -d/--derivatives: {error}') from error


def _plan(args: argparse.Namespace, start: Bundle | None) -> Plan:
    from shivacmb.train.augment import Augmentation
    from shivacmb.train.plan import Plan

    grid, intensity = _frame(args, start)
    return Plan(
        inputs=_inputs(args.input, start), classes=_classes(args.classes, start), grid=grid,
        intensity=intensity, ignore=tuple(sorted(set(args.ignore))),
        architecture=_architecture(args, start),
        folds=args.folds, seed=args.seed, epochs=args.epochs, steps=args.steps, batch=args.batch,
        patch=args.patch_size, loss=args.loss, low=args.min_rate, high=args.max_rate,
        cycle=args.cycle_steps, decay=args.decay,
        augmentation=Augmentation(
            flip=not args.no_flip, shift_voxels=args.max_shift,
            rotation_degrees=args.max_rotation, curves=args.curves,
        ),
        precision=args.precision, deterministic=not args.no_determinism,
    )  # fmt: skip


def _frame(args: argparse.Namespace, start: Bundle | None) -> tuple[Grid, Intensity]:
    """Grid and intensities: of the bundle to begin with, else of the preset."""
    from shivacmb.exceptions import UsageError
    from shivacmb.models import Grid, Intensity, preset

    if start is not None:
        if args.preset or (args.shape and tuple(args.shape) != start.grid.shape):
            raise UsageError(
                f'--init-from keeps the grid and the intensities of {start.name}; leave --preset '
                'and --shape out'
            )
        return start.grid, start.intensity
    recipe = preset(args.preset or 'shiva-paper')
    x, y, z = args.shape or recipe['grid']['shape']
    return Grid((x, y, z)), Intensity(**recipe['intensity'])


def _inputs(given: Sequence[str] | None, start: Bundle | None) -> tuple[Input, ...]:
    from shivacmb.exceptions import UsageError
    from shivacmb.train.dataset import parse_input
    from shivacmb.train.plan import Plan

    usual = start.inputs if start is not None else Plan().inputs
    inputs = tuple(parse_input(text) for text in given) if given else usual
    names = [item.name for item in inputs]
    if len(set(names)) != len(names):
        raise UsageError(f'--input: {", ".join(names)} must have different names')
    if start is not None and names != [item.name for item in usual]:
        raise UsageError(
            f'--input {", ".join(names)} does not match the channels of {start.name}: '
            f'{", ".join(item.name for item in usual)}'
        )
    return inputs


def _classes(given: Sequence[str] | None, start: Bundle | None) -> tuple[LabelClass, ...]:
    from shivacmb.exceptions import UsageError
    from shivacmb.train.dataset import LabelClass, parse_class
    from shivacmb.train.plan import Plan

    usual = tuple(LabelClass(item.name) for item in start.classes) if start else Plan().classes
    classes = tuple(parse_class(text) for text in given) if given else usual
    names = [item.name for item in classes]
    if start is not None and names != [item.name for item in usual]:
        raise UsageError(
            f'the class list does not match: --class {", ".join(names)}, but {start.name} has '
            f'{", ".join(item.name for item in usual)}'
        )
    return classes


def _architecture(args: argparse.Namespace, start: Bundle | None) -> dict[str, Any]:
    from shivacmb.exceptions import UsageError
    from shivacmb.train.plan import NETWORKS

    keys = ('filters', 'stages', 'convolutions', 'growth')
    own = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    if start is None:
        return {**NETWORKS[args.network or 'shiva-paper'], **own}
    if own or args.network:
        raise UsageError(
            f'--init-from keeps the network of {start.name}; leave --network and its sizes out'
        )
    if start.architecture.get('family') != 'unet3d':
        raise UsageError(
            f'{start.name} does not describe a network of the family unet3d, which is what is '
            'trained here; give a model that this command made'
        )
    known = (*keys, 'stem')
    return {key: start.architecture[key] for key in known if key in start.architecture}
