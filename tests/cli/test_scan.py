"""``shivacmb-tools scan`` when its image fails."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shivacmb.exceptions import DataError, ShivaCMBError, TemporaryError


@pytest.mark.parametrize(
    ('kind', 'text', 'kept'),
    [
        (ShivaCMBError, 'mask failed: KeyError; see <{run_dir}/crash-1.txt>', True),
        (ShivaCMBError, 'unexpected KeyError: 1; see the crash file under logs', True),
        (DataError, 'the image is constant', False),
        (TemporaryError, 'memory ran out', False),
    ],
)
def test_the_crash_file_that_a_message_names_is_there(
    tmp_path: Path,
    spot_bundle: Path,
    tools_main: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[ShivaCMBError],
    text: str,
    kept: bool,
) -> None:
    def fails(_settings: Any, todo: Any, *_: Any, run_dir: Path) -> dict[str, ShivaCMBError]:
        (run_dir / 'crash-1.txt').write_text('Node: mask')
        return {todo[0].stem: kind(text.replace('{run_dir}', str(run_dir)))}

    temporary = tmp_path / 'tmp'
    temporary.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
    monkeypatch.setattr('shivacmb.cli.run.run_plans', fails)
    image = tmp_path / 'scan.nii'
    image.write_bytes(b'not looked at')
    done = tools_main('scan', image, '-o', tmp_path / 'out', '--model', spot_bundle)
    assert done.returncode == kind.exit_code
    assert text.partition('{')[0] in done.stderr
    assert (f'<{image}>: ' in done.stderr) == (kind is DataError)
    left = list(temporary.iterdir())
    assert len(left) == kept
    if kept:
        [named] = re.findall('<(.*?)>', done.stderr)
        assert Path(named) in (left[0], left[0] / 'crash-1.txt')
        assert Path(named).exists()
