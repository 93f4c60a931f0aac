from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shivacmb.exceptions import ModelError, UsageError
from shivacmb.models import find_bundle, list_bundles, user_models_dir
from shivacmb.models.export import export_bundle
from shivacmb.models.install import add_model
from shivacmb.models.locate import user_cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from shivacmb.models import Bundle


def test_places_are_searched_in_order(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> None:
    made = make_bundle(1.0)
    first, second = tmp_path / 'first', user_models_dir()
    for place in (first, second):
        shutil.copytree(made.path, place / 'same')
    shutil.copytree(made.path, second / 'other')
    assert find_bundle('same', first).path == first / 'same'
    assert find_bundle('same').path == second / 'same'
    assert find_bundle('other', first).path == second / 'other'
    assert {bundle.path for bundle in list_bundles(first)} >= {first / 'same', second / 'other'}
    assert find_bundle(str(made.path)) == made
    assert find_bundle(made.path) == made


def test_an_unknown_name_lists_the_known(make_bundle: Callable[..., Bundle]) -> None:
    shutil.copytree(make_bundle(1.0).path, user_models_dir() / 'known')
    with pytest.raises(ModelError, match=r"there is no model 'nosuch'.*known.*models add\"$"):
        find_bundle('nosuch')


def test_a_folder_of_models_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for name in ('typo', 'file'):
        expected = rf'<{tmp_path / name}> \(--models-dir\) is no folder; mend the path'
        with pytest.raises(UsageError, match=expected):
            find_bundle('default', tmp_path / name)
        with pytest.raises(UsageError, match=expected):
            list_bundles(tmp_path / name)


def test_interrupted_installations_are_not_listed(make_bundle: Callable[..., Bundle]) -> None:
    shutil.copytree(make_bundle(1.0).path, user_models_dir() / '.half-xyz')
    assert all(not bundle.path.name.startswith('.') for bundle in list_bundles())


def test_user_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sys.platform', 'linux')
    monkeypatch.setenv('XDG_CACHE_HOME', '/caches')
    monkeypatch.setenv('XDG_DATA_HOME', '/data')
    assert user_cache_dir() == Path('/caches/shivacmb/openvino')
    monkeypatch.delenv('SHIVACMB_MODELS')
    assert user_models_dir() == Path('/data/shivacmb/models')
    monkeypatch.setenv('XDG_DATA_HOME', 'relative')
    assert user_models_dir() == Path.home() / '.local/share/shivacmb/models'


def test_a_relative_path_becomes_absolute(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bundle(1.0).path
    monkeypatch.chdir(folder.parent)
    assert find_bundle(f'./{folder.name}').path == folder


def test_a_home_folder_is_meant_alike_by_all(
    tmp_path: Path, make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('shivacmb.models.install.require_safe', lambda *_, **__: None)
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path)
    made = make_bundle(1.0)
    # as the shell leaves it in --models-dir=~/models
    added = add_model(made.path, models_dir='~/models')
    assert added.path == tmp_path / 'home/models/small'
    assert find_bundle('small', '~/models') == added


def test_a_home_folder_of_nobody_is_named(
    make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = make_bundle(1.0)
    for use in (find_bundle, add_model, lambda path: export_bundle(mine, 'shivai', path)):
        with pytest.raises(UsageError, match=r'<~nobody-here/x> begins with a home folder that'):
            use('~nobody-here/x')
    monkeypatch.delenv('XDG_CACHE_HOME')

    def unknown() -> None:
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr('pathlib.Path.home', unknown)
    with pytest.raises(ModelError, match='not known here; set HOME or XDG_CACHE_HOME'):
        user_cache_dir()
