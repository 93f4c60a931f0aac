"""Nothing that is read is run: no pickles, no evaluation, no shell, no blind unpacking."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    'pickle', 'cPickle', 'marshal', 'shelve', 'dill', 'cloudpickle', 'joblib', 'jsonpickle', 'dbm',
    'tarfile', 'pty', 'code',
}  # fmt: skip
CALLS = {
    'eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen', 'subprocess.getoutput',
    'subprocess.getstatusoutput', 'yaml.load', 'yaml.unsafe_load', 'yaml.full_load',
    'shutil.unpack_archive', 'pd.read_pickle', 'pandas.read_pickle', 'torch.load',
}  # fmt: skip
#: Methods that unpack a whole archive as it says.
METHODS = {'extractall', 'extract'}
OPTIONS = {'shell', 'allow_pickle', 'unsafe_load', 'enable_unsafe_deserialization'}


def _findings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or '']
        else:
            names = []
        for name in names:
            if name.split('.')[0] in MODULES:
                yield node.lineno, f'import {name}'
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS or called.rpartition('.')[2] in METHODS:
                yield node.lineno, f'{called}()'
            for keyword in node.keywords:
                value = keyword.value
                harmless = isinstance(value, ast.Constant) and value.value is False
                if keyword.arg in OPTIONS and not harmless:
                    yield node.lineno, f'{called}({keyword.arg}=...)'


def test_package() -> None:
    found = [
        f'{path.relative_to(ROOT)}:{line} {what}'
        for path in sorted((ROOT / 'shivacmb').rglob('*.py'))
        for line, what in _findings(ast.parse(path.read_text('utf-8')))
    ]
    assert found == []


@pytest.mark.parametrize(
    'code',
    [
        'import pickle',
        'from marshal import loads',
        'eval(text)',
        'os.system(text)',
        'subprocess.run(text, shell=True)',
        'np.load(path, allow_pickle=True)',
        'archive.extractall(folder)',
        'yaml.load(text)',
    ],
)
def test_the_search_finds(code: str) -> None:
    assert len(list(_findings(ast.parse(code)))) == 1
