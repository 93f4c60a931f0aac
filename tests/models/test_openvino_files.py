"""What OpenVINO reads and writes, and how it is imported."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shivacmb.exceptions import OutputError, TemporaryError
from shivacmb.models import convert, openvino_runtime
from shivacmb.models.convert import network_shape, save_openvino

if TYPE_CHECKING:
    from collections.abc import Callable

    from shivacmb.models import Bundle


def test_a_full_disk_is_named(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(1.0)
    source = bundle.path / 'fold-0.xml'
    # OpenVINO removes what it could not write, so the disk itself has to be full
    full = Path('/dev/full')
    if not full.exists():
        pytest.skip('this system has no disk that is always full')
    (tmp_path / 'new.bin').symlink_to(full)
    with pytest.raises(OutputError, match=r'cannot write .*fold-0\.xml> to <.*new\.xml>; free'):
        save_openvino(source, network_shape(bundle), tmp_path / 'new', origin=source)


def test_a_conversion_that_is_killed_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, 'tensorflow', raising=False)
    monkeypatch.setattr(convert, 'has_tensorflow', lambda: True)
    killed = 'import os; print("W of a library", file=sys.stderr); os.kill(os.getpid(), 9)'
    monkeypatch.setattr(
        convert.sys, 'executable', _program(tmp_path / 'python', f'import sys; {killed}')
    )
    with pytest.raises(TemporaryError, match=r'x\.keras> .* signal 9, .* memory ran out'):
        convert.convert_apart(
            tmp_path / 'x.keras', 'keras', (1, 1, 1, 1), tmp_path / 'x', trust_model=False
        )


def _program(path: Path, text: str) -> str:
    path.write_text(f'#!{sys.executable}\n{text}\n')
    path.chmod(0o755)
    return str(path)


def test_two_threads_may_import_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=60)

    class Modules(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            found = super().__contains__(name)
            both.wait()
            return found

        def __setitem__(self, name: str, module: Any) -> None:
            super().__setitem__(name, module)
            both.wait()

    monkeypatch.setattr(openvino_runtime, 'sys', SimpleNamespace(modules=Modules(sys.modules)))
    results: list[object] = []

    def load() -> None:
        try:
            results.append(openvino_runtime.import_openvino())
        except KeyError as error:
            results.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [getattr(result, '__name__', result) for result in results] == ['openvino'] * 2
