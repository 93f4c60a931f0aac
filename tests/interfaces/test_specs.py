"""Specs of nodes: nipype keeps keywords that it does not know, in silence."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from nipype.interfaces.base import BaseInterface, CommandLine, File, TraitedSpec

import shivacmb.interfaces

#: Metadata that nipype 1.9 to 1.11 acts on (nipype/interfaces/base/specs.py and core.py).
KNOWN = {
    'argstr', 'copyfile', 'deprecated', 'desc', 'extensions', 'genfile', 'hash_files',
    'keep_extension', 'mandatory', 'max_ver', 'min_ver', 'name_source', 'name_template',
    'new_name', 'nohash', 'output_name', 'position', 'requires', 'sep', 'usedefault', 'xor',
}  # fmt: skip
#: What traits itself puts there.
OF_TRAITS = {'array', 'default', 'default_value', 'parent', 'rich_compare', 'type', 'editor'}
OF_TRAITS |= {'comparison_mode', 'copy', 'transient', 'info_text'}


def modules() -> list[Any]:
    package = shivacmb.interfaces
    return [
        importlib.import_module(f'{package.__name__}.{item.name}')
        for item in pkgutil.iter_modules(package.__path__)
    ]


INTERFACES = [
    kind
    for module in modules()
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, BaseInterface)
    and kind.__module__ == module.__name__
    and kind.input_spec is not None
    and not kind.__name__.startswith('_')
]
SPECS = sorted(
    {spec for kind in INTERFACES for spec in (kind.input_spec, kind.output_spec) if spec},
    key=lambda spec: spec.__qualname__,
)
TRAITS = [
    pytest.param(spec, name, id=f'{spec.__name__}.{name}')
    for spec in SPECS
    for name in spec().copyable_trait_names()
    if name in spec.__dict__.get('__class_traits__', spec.class_traits())
    and spec.__module__.startswith('shivacmb')
]
INHERITED = {'args', 'environ'}
#: Files that may be absent: an empty default would be taken for the folder '.'
ABSENT = {'zones_file'}


def unknown_keywords(spec: type[TraitedSpec], name: str) -> set[str]:
    trait = spec().traits()[name]
    return set(trait.__dict__ or {}) - KNOWN - OF_TRAITS


def test_specs_are_found() -> None:
    assert len(INTERFACES) >= 12
    assert len(TRAITS) > 60


@pytest.mark.parametrize(('spec', 'name'), TRAITS)
def test_trait(spec: type[TraitedSpec], name: str) -> None:
    trait = spec().traits()[name]
    assert unknown_keywords(spec, name) == set()
    assert trait.desc, 'every trait says what it is'
    if spec.__name__.endswith('InputSpec') and name not in INHERITED | ABSENT:
        assert trait.mandatory or trait.usedefault, 'neither mandatory nor with a default'


@pytest.mark.parametrize('slip', ['exist', 'dec', 'use_default', 'manditory'])
def test_slips_are_caught(slip: str) -> None:
    class _Spec(TraitedSpec):
        in_file = File(desc='an image', **{slip: True})

    assert unknown_keywords(_Spec, 'in_file') == {slip}


@pytest.mark.parametrize('kind', INTERFACES, ids=lambda kind: kind.__name__)
def test_interface_is_thin_and_documented(kind: type[BaseInterface]) -> None:
    assert kind.__doc__
    if not issubclass(kind, CommandLine) and kind.__name__ != 'ScanInterface':
        assert '_run' in vars(kind)
        assert '_run_interface' not in vars(kind)


def test_what_only_says_where_to_compute_does_not_change_the_hash() -> None:
    for spec in SPECS:
        for name in ('threads', 'device', 'service', 'trust_model'):
            trait = spec().traits().get(name)
            if trait is not None and name != 'device':
                assert trait.nohash, f'{spec.__name__}.{name}'
