"""What a bundle's folder holds, and when it appears."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shivacmb.exceptions import OutputError
from shivacmb.models import write_bundle
from shivacmb.models.write import staged


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
    with (
        pytest.raises(OutputError, match='small> exists; remove it first'),
        staged(target, overwrite=False) as folder,
    ):
        (folder / 'model.json').write_text('late')
        target.mkdir()
        (target / 'model.json').write_text('first')
    assert (target / 'model.json').read_text() == 'first'
    assert [path.name for path in target.parent.iterdir()] == ['small']
