"""``shivacmb-tools status OUT_DIR``: what is done, and the list to submit again."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shivacmb.cli import types
from shivacmb.cli.main import say
from shivacmb.exceptions import NoInputError, TemporaryError

if TYPE_CHECKING:
    from shivacmb.bids import Found
    from shivacmb.cli.states import ScanState

EXIT_FAILED = 1
#: Rows of each state that the table shows.
SHOWN = 20
FORMATS = ('table', 'tsv', 'json', 'list')
STATES = ('done', 'running', 'failed', 'stopped', 'not-started')
#: What a new submission would take on.
TO_RESUBMIT = ('failed', 'stopped', 'not-started')


#: Options of the app that select scans, and what comes with every command line.
_SELECT = frozenset({
    'bids_dir', 'out_dir', 'analysis_level', 'participant_label', 'exclude_participant_label',
    'session_label', 'modality', 'bids_filter_file', 'skip_bids_validation', 'config_file',
})  # fmt: skip


def register(commands: Any) -> None:
    """Add the subcommand to an ``argparse`` subparsers object."""
    parser = commands.add_parser(
        'status',
        help='say which scans are done, running, failed or not started',
        usage='shivacmb-tools status OUT_DIR [--bids-dir BIDS_DIR] [options] '
        '[-- SHIVACMB_OPTIONS]',
        description='Say how far each scan of OUT_DIR is, and print the participants to submit '
        'again. It only reads, and may be called while tasks run.',
        epilog='Exit codes: 0 every scan is done; 1 some failed or stopped; 66 nothing to tell '
        'of; 75 none failed, but some run, have not started or cannot be read.',
    )
    parser.add_argument('out_dir', type=types.folder, metavar='OUT_DIR', help='the derivatives')
    parser.add_argument(
        '--bids-dir',
        type=types.folder,
        metavar='DIR',
        help='the dataset: tells also of scans that no run has taken on; options that select '
        'scans (--session-label, --modality, ...) go after --, as they were given to shivacmb',
    )
    parser.add_argument(
        '--log-dir',
        type=types.folder,
        metavar='DIR',
        help='where the output of SLURM tasks went, if the script was made with --log-dir '
        '(default: OUT_DIR/logs/slurm)',
    )
    parser.add_argument(
        '--format',
        choices=FORMATS,
        default='table',
        help='table (default): counts and what needs attention; tsv, json: every scan; list: the '
        'participants to submit again, a file for --participant-label',
    )
    parser.add_argument(
        '--state',
        nargs='+',
        choices=STATES,
        metavar='STATE',
        help=f'only scans in these states: {", ".join(STATES)} (list: all that a new submission '
        'would take on)',
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Print the state of each scan; return the exit code."""
    from shivacmb.cli.slurm_logs import arrays_seen
    from shivacmb.cli.states import queued_tasks, scan_states

    if not args.out_dir.is_dir():
        raise NoInputError(f'no such folder: <{args.out_dir}>; give the OUT_DIR of shivacmb')
    if args.log_dir is not None and not args.log_dir.is_dir():
        raise NoInputError(f'no such folder: <{args.log_dir}>; give the --log-dir of the script')
    found = _search(args)
    unread: list[str] = []
    states = scan_states(args.out_dir, found, unread, args.log_dir)
    for sentence in unread:
        say(sentence)
    if not states and unread:
        return TemporaryError.exit_code
    if not states and args.bids_dir is not None:
        raise NoInputError(
            f'no scan in the dataset <{args.bids_dir}>; give the BIDS_DIR that was processed with '
            '--bids-dir, or leave it out'
        )
    if not states:
        tasks = args.log_dir or args.out_dir / 'logs' / 'slurm'
        if arrays_seen(tasks):
            raise NoInputError(
                f'none of the SLURM tasks for <{args.out_dir}> got as far as a scan; their logs '
                f'are in <{tasks}>. Add --bids-dir to see what became of each scan'
            )
        raise NoInputError(
            f'no scan in <{args.out_dir}>; give the OUT_DIR of shivacmb, and --bids-dir to see '
            'what has not started'
        )
    printers = {'table': _table, 'tsv': _tsv, 'json': _json, 'list': _list}
    default = TO_RESUBMIT if args.format == 'list' else STATES
    wanted = args.state or default
    printers[args.format](states, [item for item in states if item.state in wanted], args)
    if args.format == 'table' and found is not None and found.missing:
        print(f'{len(found.missing)} participant(s) without a usable scan')
    if any(item.state in TO_RESUBMIT for item in states):
        for array, number in queued_tasks(states).items():
            say(
                f'{number} task(s) of SLURM job {array} still wait; submit again when it has ended'
            )
    return exit_code(states) or (TemporaryError.exit_code if unread else 0)


def _search(args: argparse.Namespace) -> Found | None:
    """Find the scans of the dataset as a run would."""
    from shivacmb.cli.passed import parse_passed, settings_of

    if args.bids_dir is None:
        if args.passed:
            from shivacmb.exceptions import UsageError

            raise UsageError('options after -- need --bids-dir')
        return None
    from shivacmb.cli.run import search

    typed = parse_passed(args.bids_dir, args.out_dir, args.passed)
    if others := sorted(set(vars(typed)) - _SELECT):
        names = ', '.join('--' + name.replace('_', '-') for name in others)
        say(f'note: a finished scan counts as done with any settings ({names} not looked at)')
    return search(settings_of(typed))


def exit_code(states: Sequence[ScanState]) -> int:
    """Choose the exit code: 0 all done, 1 some failed or stopped, 75 some still to come."""
    present = {item.state for item in states}
    if present & {'failed', 'stopped'}:
        return EXIT_FAILED
    return TemporaryError.exit_code if present - {'done'} else 0


def counts(states: Sequence[ScanState]) -> dict[str, int]:
    """Count scans by state."""
    found = Counter(item.state for item in states)
    return {state: found[state] for state in STATES}


def _table(states: Sequence[ScanState], wanted: Sequence[ScanState], args: Any) -> None:
    for state, number in counts(states).items():
        print(f'{number:>8} {state}')
    print(f'{len(states):>8} scans in all')
    for state in STATES:
        # What is done needs no words unless asked for
        if state != 'done' or args.state:
            _section(state, [item for item in wanted if item.state == state])
    left = [item for item in states if item.state in TO_RESUBMIT]
    if left:
        print(f'\nTo submit again: {len(_participants(left))} participant(s) (--format list)')


def _section(state: str, rows: Sequence[ScanState]) -> None:
    if not rows:
        return
    print(f'\n{state}:')
    for row in rows[:SHOWN]:
        print(f'  {row.scan}' + (f': {row.reason}' if row.reason else ''))
    if len(rows) > SHOWN:
        print(f'  and {len(rows) - SHOWN} more (--format tsv --state {state})')


def _tsv(_states: Sequence[ScanState], wanted: Sequence[ScanState], _args: Any) -> None:
    names = [item.name for item in dataclasses.fields(_kind())]
    writer = csv.writer(sys.stdout, delimiter='\t', lineterminator='\n')
    writer.writerow(names)
    for item in wanted:
        values = [getattr(item, name) for name in names]
        writer.writerow('n/a' if value in (None, '') else value for value in values)


def _json(states: Sequence[ScanState], wanted: Sequence[ScanState], args: Any) -> None:
    content = {
        'out_dir': str(args.out_dir),
        'counts': counts(states),
        'to_resubmit': _participants([i for i in states if i.state in TO_RESUBMIT]),
        'scans': [dataclasses.asdict(item) for item in wanted],
    }
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _list(_states: Sequence[ScanState], wanted: Sequence[ScanState], _args: Any) -> None:
    for participant in _participants(wanted):
        print(participant)


def _participants(states: Sequence[ScanState]) -> list[str]:
    return list(dict.fromkeys(item.participant for item in states))


def _kind() -> Any:
    from shivacmb.cli.states import ScanState

    return ScanState
