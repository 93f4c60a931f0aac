"""The ``shivacmb`` command line."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from shivacmb import __version__
from shivacmb.cli import types

if TYPE_CHECKING:
    from collections.abc import Sequence

LEVELS = ('participant', 'group')
EXIT_USAGE = 64

NOTICE = 'For research use only: not a medical device, not for diagnosis.'


class Parser(argparse.ArgumentParser):
    """An argument parser that exits with 64 (``EX_USAGE``) instead of 2, and takes whole names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # an option added later would make the beginning of a name in someone's script ambiguous
        super().__init__(*args, **{'allow_abbrev': False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, then exit with 64."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f'{self.prog}: {message}\nSee {self.prog} --help.\n')


def _spellings(name: str) -> tuple[str, ...]:
    """Both the hyphen and the underscore spelling, as BIDS-Apps accept them."""
    return (name, '--' + name[2:].replace('-', '_'))


def build_parser(kind: type[Parser] = Parser) -> argparse.ArgumentParser:
    """Build the parser of ``shivacmb``; imports nothing heavy.

    Parameters
    ----------
    kind : type
        ``Parser``, or a subclass that treats errors in another way.

    Returns
    -------
    argparse.ArgumentParser
        Destinations match the fields of ``shivacmb.cli.settings.Settings``. Every option defaults
        to ``argparse.SUPPRESS`` so that a value typed by the user can be told from a default when
        ``--config-file`` is read.
    """
    parser = kind(
        prog='shivacmb',
        description='Find, count and place cerebral microbleeds on T2*-GRE and SWI scans of a '
        f'BIDS dataset. {NOTICE}',
        epilog='Exit codes: 0 all done; 1 some scans failed; 16 dataset unusable; 17 unknown '
        'level; 18 filters select nothing; 64 usage; 65 data error; 66 participant without a '
        'usable scan; 73 cannot write the output; 74 disk error; 75 try again; 130 interrupted; '
        '143 terminated.',
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        'bids_dir', type=types.folder, help='the BIDS dataset (with dataset_description.json)'
    )
    parser.add_argument('out_dir', type=types.folder, help='where the derivatives go')
    parser.add_argument(
        'analysis_level',
        metavar='{participant,group}',
        help='participant: process scans; group: gather the results of OUT_DIR into tables',
    )
    parser.add_argument('--version', action='version', version=f'shivacmb {__version__}')
    _add_selection(parser)
    _add_detection(parser)
    _add_performance(parser)
    _add_run(parser)
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('which scans')
    group.add_argument(
        *_spellings('--participant-label'),
        nargs='+',
        metavar='LABEL',
        help="participants, with or without 'sub-', or one text file with a label per line",
    )
    group.add_argument(
        *_spellings('--exclude-participant-label'),
        nargs='+',
        metavar='LABEL',
        help='participants to leave out (labels or a text file)',
    )
    group.add_argument(
        *_spellings('--session-label'),
        nargs='+',
        metavar='LABEL',
        help="sessions, with or without 'ses-'",
    )
    group.add_argument(
        *_spellings('--bids-filter-file'),
        type=types.existing_file,
        metavar='FILE',
        help='JSON of entities that a scan must have, e.g. {"scan": {"acquisition": "swi"}}',
    )
    group.add_argument(
        '--modality',
        choices=('auto', 'swi', 't2s'),
        help='take only SWI or only T2* scans; auto (default) prefers SWI where both exist',
    )
    group.add_argument(
        *_spellings('--skip-bids-validation'),
        action='store_true',
        help='go on without dataset_description.json',
    )


def _add_detection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('how to detect')
    group.add_argument(
        '--model',
        metavar='NAME|PATH',
        help="model bundle (default: the shipped one; list with 'shivacmb-tools models list')",
    )
    group.add_argument(
        *_spellings('--models-dir'),
        type=types.folder,
        metavar='DIR',
        help='where installed bundles are (also $SHIVACMB_MODELS)',
    )
    group.add_argument(
        *_spellings('--trust-model'),
        action='store_true',
        help='load a network that carries Python code; only for files whose author you trust',
    )
    group.add_argument(
        '--engine',
        choices=('auto', 'openvino', 'tensorflow'),
        help='auto (default): OpenVINO on CPU, TensorFlow on GPU',
    )
    group.add_argument(
        '--device', choices=('auto', 'cpu', 'gpu'), help='auto (default): GPU where one is usable'
    )
    group.add_argument(
        '--threshold',
        type=types.probability,
        metavar='P',
        help="probability from which a voxel counts (default: the bundle's)",
    )
    group.add_argument(
        *_spellings('--min-size'),
        type=types.positive_int,
        metavar='VOXELS',
        help="smallest cluster that is kept, in voxels of the network's grid (default: the "
        "bundle's)",
    )
    group.add_argument(
        *_spellings('--min-parenchyma'),
        type=types.share,
        metavar='SHARE',
        help='count a cluster where at least this share of what lies within 2 mm of it, and half '
        'as much of itself, is brain tissue by the zones; the pineal gland is none. 0 to 1; 0 '
        "counts all (default: the bundle's)",
    )
    group.add_argument(
        '--toolkit',
        choices=('auto', 'fsl', 'native'),
        help='reorient and resample with FSL or with the built-in equivalent, which gives the '
        'same voxels; auto (default) takes FSL where $FSLDIR is usable',
    )
    group.add_argument(
        '--mask',
        choices=('auto', 'builtin', 'bet', 'synthstrip', 'hd-bet', 'background'),
        help='brain mask when none is given: auto (default) uses the background of skull-stripped '
        'scans, else the built-in network',
    )
    group.add_argument(
        *_spellings('--no-zones'),
        action='store_true',
        help='leave out the zones of the brain, and with them the region of each lesion and the '
        'counts by zone; saves a second per scan, two where the mask is not the built-in one',
    )
    group.add_argument(
        *_spellings('--brain-mask'),
        metavar='PATTERN',
        help="precomputed masks: a path with {participant} (without 'sub-'), {session} (without "
        "'ses-') or {stem}, e.g. '/masks/sub-{participant}_mask.nii.gz'",
    )
    group.add_argument(
        '-d',
        '--derivatives',
        type=types.named_folder,
        action='append',
        metavar='NAME=PATH',
        help='BIDS derivatives that hold desc-brain_mask files for the scans; may be repeated',
    )


def _add_performance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('performance')
    group.add_argument(
        '--nprocs',
        '--nthreads',
        '--n-cpus',
        '--n_cpus',
        dest='nprocs',
        type=types.positive_int,
        metavar='N',
        help='processors to use altogether (default: all that this process may use)',
    )
    group.add_argument(
        *_spellings('--omp-nthreads'),
        type=types.positive_int,
        metavar='N',
        help='threads of one step (default: as --nprocs, at most 8)',
    )
    group.add_argument(
        '--mem',
        *_spellings('--mem-mb'),
        dest='mem_mb',
        type=types.megabytes,
        metavar='MB',
        help='memory that steps side by side may share, in megabytes or as 8G; the process '
        'that holds the networks (1.5 GB) comes on top (default: what the limit of the job or the '
        'container leaves, else 90 %% of the machine)',
    )
    group.add_argument(
        *_spellings('--mem-gb'),
        dest='mem_mb',
        type=types.gigabytes,
        metavar='GB',
        help='the same in gigabytes',
    )
    group.add_argument(
        *_spellings('--use-plugin'),
        type=types.existing_file,
        metavar='FILE',
        help='nipype plugin settings (JSON, YAML or TOML with plugin and plugin_args)',
    )
    group.add_argument(
        '-w',
        *_spellings('--work-dir'),
        type=types.folder,
        metavar='DIR',
        help='where intermediate files go (default: a temporary folder)',
    )
    group.add_argument(
        *_spellings('--keep-work'),
        action='store_true',
        help='keep the intermediate files also after success (needs -w)',
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('this run')
    group.add_argument(
        *_spellings('--dry-run'),
        action='store_true',
        help='list what would be processed, and what was passed over and why; write nothing',
    )
    group.add_argument(
        '--overwrite',
        action='store_true',
        help='redo scans that are already finished with the same settings',
    )
    group.add_argument(
        *_spellings('--config-file'),
        type=types.existing_file,
        metavar='FILE',
        help='settings.toml of an earlier run; what is typed here comes first',
    )
    group.add_argument(
        *_spellings('--stop-on-first-crash'),
        action='store_true',
        help='stop at the first scan that fails instead of finishing the others',
    )
    group.add_argument(
        *_spellings('--reports-only'),
        action='store_true',
        help='rebuild tables and pages from what OUT_DIR holds',
    )
    group.add_argument(
        *_spellings('--boilerplate-only'),
        action='store_true',
        help='print the methods text for these settings and stop',
    )
    group.add_argument(
        *_spellings('--write-graph'),
        action='store_true',
        help="write the workflow's graph into OUT_DIR/logs",
    )
    group.add_argument(
        '-v', '--verbose', action='count', help='say more on the terminal; twice for nipype too'
    )
    group.add_argument('-q', '--quiet', action='store_true', help='print only errors')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``shivacmb``.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` by default.

    Returns
    -------
    argparse.Namespace
        Only what the user typed (see :func:`build_parser`).
    """
    return build_parser().parse_args(argv)
