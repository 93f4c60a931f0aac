"""Runs the command again and again in children of one process that has imported everything.

A run with a fault takes a second this way instead of three. What is run is ``main`` of the
installed command, and the process that holds the networks is started as always. Reads one JSON
object per line, answers with the exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile

IMPORTS = (
    'bids.layout',
    'matplotlib.backends.backend_agg',
    'matplotlib.figure',
    'nipype.pipeline.plugins',
    'shivacmb.cli.engine',
    'shivacmb.cli.main',
    'shivacmb.cli.pages',
    'shivacmb.cli.progress',
    'shivacmb.cli.provenance',
    'shivacmb.cli.run',
    'shivacmb.cli.summary',
    'shivacmb.interfaces.figures',
    'shivacmb.models.service',
    'shivacmb.workflows.base',
)


def child(task: dict[str, str | list[str]]) -> int:
    """Run one command as if it had been started anew."""
    os.setsid()
    for number, name in ((1, 'stdout'), (2, 'stderr')):
        target = os.open(str(task[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, number)
        os.close(target)
    os.environ['TMPDIR'] = str(task['tmp'])
    os.environ['SHIVACMB_TEST_TOKEN'] = str(task['token'])
    tempfile.tempdir = None
    sys.argv = ['shivacmb', *task['argv']]
    from shivacmb.cli.main import main

    try:
        return main(list(task['argv']))
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve() -> None:
    """Answer until there is nothing more to read."""
    for name in IMPORTS:
        importlib.import_module(name)
    for line in sys.stdin:
        task = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(child(task))
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f'{os.waitstatus_to_exitcode(status)}\n')
        sys.stdout.flush()


if __name__ == '__main__':
    serve()
