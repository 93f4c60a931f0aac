from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shivacmb.exceptions import ModelError, OutputError
from shivacmb.models import find_bundle, load_ensemble, user_models_dir
from shivacmb.models.checksums import md5_of, sha256_of
from shivacmb.models.import_published import read_descriptor
from shivacmb.models.install import add_model, remove_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shivacmb.models import Bundle

    Make = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def _folds_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    # the folds of make_bundle are no networks; test_safety.py has the check itself
    monkeypatch.setattr('shivacmb.models.install.require_safe', lambda *_, **__: None)


def test_a_folder_is_installed_and_runs(make_bundle: Make) -> None:
    source = make_bundle(0.5, 0.25)
    (source.path / 'README.md').write_text('card')
    bundle = add_model(source.path, name='mine')
    assert bundle.path == user_models_dir() / 'mine'
    assert find_bundle('mine') == bundle
    bundle.verify()
    shutil.rmtree(source.path)
    result = load_ensemble(bundle).predict(np.ones((1, 6, 5, 4, 1), np.float32))
    assert result.mean(axis=(1, 2, 3, 4, 5)).tolist() == [0.5, 0.25]
    assert (bundle.path / 'README.md').read_text() == 'card'
    assert [item.name for item in bundle.path.parent.iterdir()] == ['mine']


def test_a_zip_is_installed(tmp_path: Path, make_bundle: Make) -> None:
    source = make_bundle(1.0)
    archive = shutil.make_archive(str(tmp_path / 'x'), 'zip', source.path.parent)
    bundle = add_model(archive, models_dir=tmp_path / 'there')
    assert bundle.path == tmp_path / 'there' / 'small'
    bundle.verify()


def test_a_name_is_taken_once(make_bundle: Make) -> None:
    source = make_bundle(1.0)
    add_model(source.path)
    with pytest.raises(OutputError, match=r'small> exists; remove it first'):
        add_model(source.path)
    assert add_model(source.path, overwrite=True).path.is_dir()
    with pytest.raises(ModelError, match=r"'a/b' cannot name a model"):
        add_model(source.path, name='a/b')


def test_an_altered_model_is_not_installed(make_bundle: Make) -> None:
    source = make_bundle(1.0)
    (source.path / 'fold-0.keras').write_bytes(b'changed')
    with pytest.raises(ModelError, match=r'is not the file that its model\.json describes'):
        add_model(source.path)
    assert not user_models_dir().exists()


def test_an_interrupted_installation_leaves_nothing(
    make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_bundle(1.0, 1.0)
    add_model(source.path)

    def fail(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('shivacmb.models.install.write_description', fail)
    with pytest.raises(OutputError, match='No space left on device'):
        add_model(source.path, overwrite=True)
    assert [item.name for item in user_models_dir().iterdir()] == ['small']
    find_bundle('small').verify()


def test_a_preset_replaces_the_recipe_but_not_the_grid(make_bundle: Make) -> None:
    source = make_bundle(1.0)
    with pytest.raises(ModelError, match=r"'shivai' has another grid .*6x5x4"):
        add_model(source.path, preset_name='shivai')


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda path: path / 'absent', 'does not exist'),
        (lambda path: path, 'must hold one model.json or one model_info'),
    ],
)
def test_things_that_are_no_model(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        add_model(make(tmp_path))
    file = tmp_path / 'weights.bin'
    file.write_bytes(b'')
    with pytest.raises(ModelError, match='is no model: give a folder'):
        add_model(file)


@pytest.mark.parametrize('name', ['default', 'synth-cmb'])
def test_names_of_shipped_models_stay_theirs(make_bundle: Make, name: str) -> None:
    with pytest.raises(OutputError, match=f"'{name}' belongs to a shipped model; .*--name"):
        add_model(make_bundle(1.0).path, name=name)


def test_removal(make_bundle: Make) -> None:
    bundle = add_model(make_bundle(1.0).path)
    assert remove_model('small') == bundle.path
    assert list(user_models_dir().iterdir()) == []
    with pytest.raises(ModelError, match="there is no model 'small'"):
        remove_model('small')
    with pytest.raises(ModelError, match=r"'\.\./small' cannot name"):
        remove_model('../small')


class TestPublishedDescriptors:
    """The layouts in which SHIVA_CMB and SHiVAi leave their files."""

    @pytest.fixture(autouse=True)
    def _no_networks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = 'shivacmb.models.import_published'
        monkeypatch.setattr(f'{module}.require_safe', lambda *_, **__: None)
        monkeypatch.setattr(f'{module}.own_shape', lambda *_: None)

    @staticmethod
    def _descriptor(file: Path, folds: dict[str, Path], **changes: Any) -> Path:
        content = {
            'version': 'v1',
            'target': 'CMB',
            'modalities': ['swi'],
            'files': [{'name': name, 'md5': md5_of(path)} for name, path in folds.items()],
            **changes,
        }
        file.write_text(json.dumps(content))
        return file

    @staticmethod
    def _fold(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
        return path

    @pytest.mark.parametrize(
        ('fold', 'descriptor'),
        [
            ('v1/a.h5', 'model_info_swi-cmb-v1.json'),
            ('v1/a.h5', 'v1/model_info_swi-cmb-v1.json'),
            ('a.h5', 'model_info_swi-cmb-v1.json'),
        ],
    )
    def test_the_folder_may_be_repeated(self, tmp_path: Path, fold: str, descriptor: str) -> None:
        path = self._fold(tmp_path / 'here' / fold)
        file = self._descriptor(tmp_path / 'here' / descriptor, {'v1/a.h5': path})
        metadata, folds = read_descriptor(file, name=None, preset_name=None, trust_model=False)
        assert folds == [path]
        assert metadata['name'] == 'swi-cmb-v1'
        assert metadata['grid']['shape'] == [160, 216, 176]
        assert metadata['inputs'] == [{'name': 'swi', 'contrasts': ['swi', 'T2starw']}]
        assert metadata['license'] == 'not stated'

    def test_the_preset_is_obeyed(self, tmp_path: Path) -> None:
        file = self._descriptor(
            tmp_path / 'model_info.json', {'a.h5': self._fold(tmp_path / 'a.h5')}
        )
        metadata, _ = read_descriptor(file, name='x', preset_name='shivai', trust_model=False)
        assert metadata['name'] == 'x'
        assert metadata['intensity']['clip'] == 1.3

    def test_only_the_model_s_own_files_are_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('shivacmb.models.install.has_tensorflow', lambda: False)
        path = self._fold(tmp_path / 'downloads' / 'v1' / 'a.h5')
        self._descriptor(path.with_name('model_info_x.json'), {'v1/a.h5': path})
        for folder in (tmp_path / 'downloads', path.parent):
            (folder / 'notes.md').write_text('not of the model')
        installed = add_model(path.parent)
        names = {item.name for item in installed.path.iterdir()}
        assert names == {'fold-0.h5', 'model.json'}

    def test_a_zip_of_macos_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('shivacmb.models.install.has_tensorflow', lambda: False)
        path = self._fold(tmp_path / 'in' / 'v1' / 'a.h5')
        self._descriptor(path.with_name('model_info_x.json'), {'v1/a.h5': path})
        attributes = tmp_path / 'in' / '__MACOSX' / 'v1' / '._model_info_x.json'
        attributes.parent.mkdir(parents=True)
        attributes.write_bytes(b'\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X')
        archive = shutil.make_archive(str(tmp_path / 'x'), 'zip', tmp_path / 'in')
        assert add_model(archive).name == 'x'

    def test_a_zip_gives_its_name_to_a_model_that_has_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('shivacmb.models.install.has_tensorflow', lambda: False)
        path = self._fold(tmp_path / 'in' / 'a.h5')
        self._descriptor(path.with_name('model_info.json'), {'a.h5': path})
        archive = shutil.make_archive(str(tmp_path / 'cohort'), 'zip', tmp_path / 'in')
        assert add_model(archive).name == 'cohort-v1'
        with pytest.raises(OutputError, match='cohort-v1> exists'):
            add_model(archive)
        beside = self._descriptor(
            tmp_path / 'model_info.json',
            {'a.h5': path},
            sha256_zip=sha256_of(tmp_path / 'cohort.zip'),
        )
        assert add_model(beside).name == f'{tmp_path.name}-v1'

    def test_its_folder_may_have_any_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('shivacmb.models.install.has_tensorflow', lambda: False)
        path = self._fold(tmp_path / '10:30' / 'a.h5')
        file = self._descriptor(path.with_name('model_info_x.json'), {'a.h5': path})
        assert add_model(file).name == 'x'

    def test_a_wrong_sum_is_refused(self, tmp_path: Path) -> None:
        path = self._fold(tmp_path / 'a.h5')
        file = self._descriptor(tmp_path / 'model_info.json', {'a.h5': path})
        path.write_bytes(b'other')
        with pytest.raises(ModelError, match=r'a.h5> is not the file that .*MD5 is not'):
            add_model(file)

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'target': 'WMH'}, "is a model for 'WMH'"),
            ({'modalities': ['ct']}, r'modalities must be a list'),
            ({'modalities': [['swi']]}, r'modalities must be a list'),
            ({'script': {'name': 'x.py'}}, 'wants a Python script to be run; that is never done'),
            ({'files': []}, 'names no files'),
            ({'files': [{'name': 'b.h5', 'md5': 'x'}]}, "names 'b.h5', which is not beside it"),
            ({'files': [{'name': '../b.h5', 'md5': 'x'}]}, 'needs a "name" inside its folder'),
        ],
    )
    def test_what_cannot_be_used(
        self, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        path = self._fold(tmp_path / 'a.h5')
        file = self._descriptor(tmp_path / 'model_info.json', {'a.h5': path}, **changes)
        with pytest.raises(ModelError, match=message):
            add_model(file)

    def test_a_fold_named_twice(self, tmp_path: Path) -> None:
        path = self._fold(tmp_path / 'v1' / 'a.h5')
        file = self._descriptor(tmp_path / 'model_info.json', {'v1/a.h5': path, './v1/a.h5': path})
        with pytest.raises(ModelError, match='names a file twice'):
            add_model(file)

    def test_the_zip_beside_it_is_known_by_its_sum(self, tmp_path: Path) -> None:
        from shivacmb.models.import_published import archive_of

        path = self._fold(tmp_path / 'in' / 'a.h5')
        archive = shutil.make_archive(str(tmp_path / 'x'), 'zip', tmp_path / 'in')
        sums = sha256_of(tmp_path / 'x.zip').upper()
        file = self._descriptor(tmp_path / 'model_info.json', {'a.h5': path}, sha256_zip=sums)
        assert archive_of(file) == tmp_path / 'x.zip'
        with open(archive, 'ab') as stream:  # noqa: PTH123
            stream.write(b'\0')
        assert archive_of(file) is None


def test_only_a_model_is_replaced(tmp_path: Path, make_bundle: Make) -> None:
    source = make_bundle(1.0)
    taken = tmp_path / 'models' / source.name
    taken.mkdir(parents=True)
    (taken / 'notes.txt').write_text('')
    with pytest.raises(OutputError, match=r'is not replaced, because it holds no model\.json'):
        add_model(source.path, models_dir=tmp_path / 'models', overwrite=True)
    assert (taken / 'notes.txt').exists()
    (taken / 'model.json').write_text('{}')
    add_model(source.path, models_dir=tmp_path / 'models', overwrite=True)
    assert not (taken / 'notes.txt').exists()
