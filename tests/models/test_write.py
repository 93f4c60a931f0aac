"""What a bundle's folder holds, and when it appears."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from shivacmb.exceptions import OutputError
from shivacmb.models import load_bundle, write_bundle
from shivacmb.models.checksums import sha256_of
from shivacmb.models.export import export_bundle
from shivacmb.models.write import copy_fold, staged


def test_extra_files_come_with_the_bundle_or_nothing_does(
    tmp_path: Path, description: dict[str, Any]
) -> None:
    fold, card = tmp_path / 'any.keras', tmp_path / 'README.md'
    fold.write_bytes(b'not opened without its OpenVINO form')
    target = tmp_path / 'models' / 'small'
    with pytest.raises(OutputError, match=r'cannot write <.*small>'):
        write_bundle(target, [fold], description, openvino=False, extra_files=[card])
    assert not target.parent.exists()
    card.write_text('# small')
    write_bundle(target, [fold], description, openvino=False, extra_files=[card])
    assert sorted(path.name for path in target.iterdir()) == [
        'README.md', 'fold-0.keras', 'model.json',
    ]  # fmt: skip


@pytest.mark.parametrize('marks', [('model.json',), ('model_info.json', 'fold-0.savedmodel')])
def test_a_folder_is_replaced_by_its_marks(tmp_path: Path, marks: tuple[str, ...]) -> None:
    for mark in (*marks, 'notes'):
        target = tmp_path / f'with-{mark}'
        (target / mark).mkdir(parents=True)
        if mark in marks:
            with staged(target, overwrite=True, marks=marks) as folder:
                (folder / 'new').touch()
            assert [path.name for path in target.iterdir()] == ['new']
            continue
        with (
            pytest.raises(OutputError, match='is not replaced, because it holds no'),
            staged(target, overwrite=True, marks=marks),
        ):
            pass
        assert [path.name for path in tmp_path.glob('.*')] == []


def test_what_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / 'models' / 'small'

    def another() -> None:
        target.mkdir()
        (target / 'model.json').write_text('first')

    with (
        pytest.raises(OutputError, match='small> exists; remove it first'),
        staged(target, overwrite=False),
    ):
        another()
    assert (target / 'model.json').read_text() == 'first'
    assert [path.name for path in target.parent.iterdir()] == ['small']


def test_the_old_model_comes_back_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / 'small'
    target.mkdir()
    (target / 'model.json').write_text('old')
    rename = Path.rename

    def interrupted(path: Path, new: Path) -> Path:
        if path.name == 'new':
            raise KeyboardInterrupt
        return rename(path, new)

    monkeypatch.setattr(Path, 'rename', interrupted)
    with pytest.raises(KeyboardInterrupt), staged(target, overwrite=True):
        pass
    assert (target / 'model.json').read_text() == 'old'


def test_an_export_does_not_replace_a_model(
    tmp_path: Path, description: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('shivacmb.models.export.require_safe', lambda *_, **__: None)
    fold = tmp_path / 'small' / 'fold-0.savedmodel'
    fold.mkdir(parents=True)
    (fold / 'saved_model.pb').touch()
    entry = {'file': fold.name, 'format': 'savedmodel', 'sha256': sha256_of(fold)}
    text = json.dumps({**description, 'folds': [entry]})
    (tmp_path / 'small' / 'model.json').write_text(text)
    bundle = load_bundle(tmp_path / 'small')
    with pytest.raises(OutputError, match='small> is a model and is not replaced by an export'):
        export_bundle(bundle, 'shivai', tmp_path, overwrite=True)
    assert (tmp_path / 'small' / 'model.json').read_text() == text
    for _ in range(2):
        export_bundle(bundle, 'shivai', tmp_path / 'out', overwrite=True)


def test_a_copy_of_a_read_only_network_can_be_removed(tmp_path: Path) -> None:
    source = tmp_path / 'published'
    (source / 'variables').mkdir(parents=True)
    for name in ('saved_model.pb', 'variables/index'):
        (source / name).touch(0o444)
    for folder in (source / 'variables', source):
        folder.chmod(0o555)
    try:
        copy, _ = copy_fold(source, tmp_path / 'fold-0')
    finally:
        for folder in (source, source / 'variables'):
            folder.chmod(0o755)
    assert [stat.S_IMODE(path.stat().st_mode) & 0o700 for path in (copy, copy / 'variables')] == [
        0o700, 0o700,
    ]  # fmt: skip
    assert sha256_of(copy) == sha256_of(source)
