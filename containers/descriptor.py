"""Write the Boutiques descriptor of ``shivacmb`` from its own parser.

    python containers/descriptor.py > containers/boutiques.json

A test compares the file with what this prints, so that an option cannot be missing there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

from shivacmb.cli import types
from shivacmb.cli.parser import LEVELS, Parser, build_parser

VERSION = '0.1.0'
FILES = (types.existing_file,)
NUMBERS: dict[Any, dict[str, Any]] = {
    types.positive_int: {'integer': True, 'minimum': 1},
    types.probability: {'minimum': 0, 'exclusive-minimum': True, 'maximum': 1},
    types.share: {'minimum': 0, 'maximum': 1},
    types.gigabytes: {'minimum': 0, 'exclusive-minimum': True},
}
# Folders that the run reads, which a container has to see; others are made by the run.
FOLDERS_READ = ('bids_dir', 'models_dir')
EXIT_CODES = re.compile(r'(\d+) ([^;.]+)')


def descriptor() -> dict[str, Any]:
    """Return the whole descriptor."""
    parser = build_parser(Parser)
    actions = [
        action
        for action in parser._actions
        if not isinstance(action, (argparse._HelpAction, argparse._VersionAction))
    ]
    inputs = [_input(action) for action in actions]
    codes = EXIT_CODES.findall((parser.epilog or '').partition(':')[2])
    return {
        'name': 'shivacmb',
        'description': ' '.join((parser.description or '').split()),
        'author': 'The shivacmb developers',
        'tool-version': VERSION,
        'schema-version': '0.5',
        'command-line': ' '.join(['shivacmb', *(entry['value-key'] for entry in inputs)]),
        'container-image': {'type': 'docker', 'image': f'shivacmb:{VERSION}'},
        'inputs': inputs,
        'output-files': _outputs(),
        'error-codes': [
            {'code': int(code), 'description': text.strip()} for code, text in codes if code != '0'
        ],
        'suggested-resources': {'cpu-cores': 2, 'ram': 3, 'walltime-estimate': 60},
        'tags': {
            'domain': ['neuroinformatics', 'bids-app'],
            'purpose': 'detection of cerebral microbleeds, for research use only',
        },
        'custom': {'BIDSApplicationVersion': VERSION},
    }


def _input(action: argparse.Action) -> dict[str, Any]:
    """Return one input of the descriptor, with the longest spelling of its option."""
    flag = next((text for text in action.option_strings if text.startswith('--')), '')
    # --mem and --mem-gb fill the same setting and are two inputs
    name = flag.lstrip('-').replace('-', '_') or action.dest
    entry: dict[str, Any] = {
        'id': name,
        'name': name.replace('_', ' '),
        'description': (action.help or '').replace('%%', '%'),
        'value-key': f'[{name.upper()}]',
        'optional': bool(flag),
        **_type(action, name),
    }
    if flag:
        entry['command-line-flag'] = flag
    if isinstance(action, argparse._AppendAction):
        # The option is repeated for each value
        entry |= {'list': True, 'list-separator': f' {flag} '}
    elif action.nargs == '+':
        entry['list'] = True
    return entry


def _type(action: argparse.Action, name: str) -> dict[str, Any]:
    if action.nargs == 0:
        return {'type': 'Flag'}
    if name == 'analysis_level':
        return {'type': 'String', 'value-choices': list(LEVELS)}
    if action.choices is not None:
        return {'type': 'String', 'value-choices': [str(choice) for choice in action.choices]}
    if action.type in NUMBERS:
        return {'type': 'Number', **NUMBERS[action.type]}
    if action.type in FILES or name in FOLDERS_READ:
        return {'type': 'File'}
    return {'type': 'String'}


def _outputs() -> list[dict[str, Any]]:
    return [
        {
            'id': 'results',
            'name': 'results',
            'description': 'BIDS derivatives: images, tables and reports',
            'path-template': '[OUT_DIR]',
        },
        {
            'id': 'counts',
            'name': 'counts of all scans',
            'description': 'one row per scan, from the level group',
            'path-template': '[OUT_DIR]/group_desc-CMB_counts.tsv',
            'optional': True,
        },
    ]


if __name__ == '__main__':
    json.dump(descriptor(), sys.stdout, indent=2)
    sys.stdout.write('\n')
