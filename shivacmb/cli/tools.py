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

#: After ``--``.
TAKE_OPTIONS_OF_THE_APP = ('slurm', 'status')


class _Command(Parser):
    """The parser of a command, which says itself what it does not know."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the words after the command's name, and refuse what is left of them."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = ''
            name = self.prog.rpartition(' ')[2]
            if name in TAKE_OPTIONS_OF_THE_APP:
                hint = (
                    f'; options of shivacmb go after --, such as: {name} ... -- {unknown[0]} ...'
                )
            self.error(f'unrecognized arguments: {" ".join(unknown)}{hint}')
        return parsed, []


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``shivacmb-tools``; imports nothing heavy."""
    parser = Parser(
        prog='shivacmb-tools',
        description=f'Tools around shivacmb. {NOTICE}',
    )
    parser.add_argument('--version', action='version', version=f'shivacmb {__version__}')
    commands: Any = parser.add_subparsers(
        title='commands', metavar='COMMAND', required=True, parser_class=_Command
    )
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
    if words and words[0] in TAKE_OPTIONS_OF_THE_APP:
        words, passed = split(words)
    args = build_parser().parse_args(words)
    args.passed = passed
    return guarded(lambda: args.handler(args))


if __name__ == '__main__':
    sys.exit(main())
