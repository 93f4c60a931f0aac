"""Entry point of ``shivacmb-tools``: what one does around a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from shivacmb import __version__
from shivacmb.cli import evaluate, implant, models, scan, simulate, slurm, status, train
from shivacmb.cli.main import guarded
from shivacmb.cli.parser import NOTICE, Parser
from shivacmb.cli.passed import split


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``shivacmb-tools``; imports nothing heavy."""
    parser = Parser(
        prog='shivacmb-tools',
        description=f'Tools around shivacmb. {NOTICE}',
        allow_abbrev=False,
    )
    parser.add_argument('--version', action='version', version=f'shivacmb {__version__}')
    commands: Any = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    scan.register(commands)
    models.register(commands)
    simulate.register(commands)
    implant.register(commands)
    evaluate.register(commands)
    train.register(commands)
    slurm.register(commands)
    status.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``shivacmb-tools`` and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; ``sys.argv[1:]`` by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    passed: list[str] = []
    if words[:1] in (['slurm'], ['status']):
        words, passed = split(words)
    parser = build_parser()
    args, unknown = parser.parse_known_args(words)
    if unknown:
        hint = ''
        if words[0] in ('slurm', 'status'):
            hint = (
                f'; options of shivacmb go after --, such as: {words[0]} ... -- {unknown[0]} ...'
            )
        parser.error(f'unrecognized arguments: {" ".join(unknown)}{hint}')
    args.passed = passed
    return guarded(lambda: args.handler(args))


if __name__ == '__main__':
    sys.exit(main())
