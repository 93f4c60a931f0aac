"""``shivacmb-tools``: which parser refuses what."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import pytest

from shivacmb.cli.parser import build_parser as build_app_parser
from shivacmb.cli.tools import build_parser


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


@pytest.mark.parametrize(
    ('words', 'named', 'unknown'),
    [
        (['train', 'a', 'b', '-o', 'c', '--stepss', '4'], 'train', '--stepss 4'),
        (['scan', __file__, '-o', 'c', 'more'], 'scan', 'more'),
        (['models', 'show', 'x', '--foo'], 'models show', '--foo'),
        # the beginning of a name, which a later option could have, too
        (['train', 'a', 'b', '-o', 'c', '--epoch', '3'], 'train', '--epoch 3'),
    ],
)
def test_a_command_names_itself(
    tools_main: Any, words: list[str], named: str, unknown: str
) -> None:
    done = tools_main(*words)
    assert done.returncode == 64
    assert done.stderr.startswith(f'usage: shivacmb-tools {named} ')
    assert done.stderr.endswith(
        f'shivacmb-tools {named}: unrecognized arguments: {unknown}\n'
        f'See shivacmb-tools {named} --help.\n'
    )


def test_names_of_options_are_not_cut() -> None:
    every = [*parsers(build_app_parser()), *parsers(build_parser())]
    assert len(every) > 10
    assert [parser.prog for parser in every if parser.allow_abbrev] == []
