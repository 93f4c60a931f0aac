"""The settings of one run: read once, frozen, saved beside the results as TOML."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from shivacmb.cli import types
from shivacmb.cli.parser import Parser, build_parser
from shivacmb.exceptions import UsageError

if TYPE_CHECKING:
    import argparse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_THREADS_PER_STEP = 8


def usable_cpus() -> int:
    """Processors this process may use (a cluster job often owns fewer than the machine has)."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Settings:
    """What one run of ``shivacmb`` was asked to do; the fields are the options of its help."""

    bids_dir: Path
    out_dir: Path
    analysis_level: str
    participant_label: tuple[str, ...] = ()
    exclude_participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    modality: Literal['auto', 'swi', 't2s'] = 'auto'
    skip_bids_validation: bool = False
    model: str = 'default'
    models_dir: Path | None = None
    trust_model: bool = False
    engine: str = 'auto'
    device: str = 'auto'
    threshold: float | None = None
    min_size: int | None = None
    min_parenchyma: float | None = None
    toolkit: str = 'auto'
    mask: str = 'auto'
    no_zones: bool = False
    brain_mask: str | None = None
    derivatives: dict[str, Path] = field(default_factory=dict)
    nprocs: int = 0
    omp_nthreads: int = 0
    mem_mb: float | None = None
    use_plugin: Path | None = None
    work_dir: Path | None = None
    keep_work: bool = False
    dry_run: bool = False
    overwrite: bool = False
    stop_on_first_crash: bool = False
    reports_only: bool = False
    boilerplate_only: bool = False
    write_graph: bool = False
    verbose: int = 0
    quiet: bool = False

    def __post_init__(self) -> None:
        """Fill in the processor counts that depend on the machine."""
        nprocs = self.nprocs or usable_cpus()
        object.__setattr__(self, 'nprocs', nprocs)
        threads = self.omp_nthreads or min(nprocs, MAX_THREADS_PER_STEP)
        object.__setattr__(self, 'omp_nthreads', threads)

    @property
    def gives_masks(self) -> bool:
        """Whether brain masks come from the user."""
        return self.brain_mask is not None or bool(self.derivatives)

    def to_toml(self) -> str:
        """Return the settings as TOML that :func:`read_config` accepts."""
        import tomli_w

        return tomli_w.dumps({'settings': _plain(dataclasses.asdict(self))})


# Not taken back from a saved file: they say where and how much, not what
_OF_THIS_RUN = frozenset(
    {'bids_dir', 'out_dir', 'analysis_level', 'dry_run', 'overwrite', 'reports_only'}
    | {'boilerplate_only', 'write_graph', 'verbose', 'quiet', 'nprocs', 'omp_nthreads'}
)
_LISTS = frozenset({'participant_label', 'exclude_participant_label', 'session_label'})
_NUMBERS = frozenset({'threshold', 'min_size', 'min_parenchyma', 'mem_mb'})
_FLAGS = frozenset(
    {'skip_bids_validation', 'trust_model', 'no_zones', 'keep_work', 'stop_on_first_crash'}
)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file."""
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding='utf-8'))
    return content


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings that an earlier run saved, or that a user wrote.

    Parameters
    ----------
    path : Path
        TOML with a table ``[settings]``; its keys are the long options with underscores.

    Returns
    -------
    dict
        Values by field of :class:`Settings`, without those that belong to a single run.

    Raises
    ------
    UsageError
        If the file is not TOML, has no such table, names an option that does not exist, or has a
        value that the command line would refuse.
    """
    try:
        content = read_toml(path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f'--config-file <{path}> is not valid TOML: {error}') from error
    table = content.get('settings')
    if not isinstance(table, dict):
        raise UsageError(f'--config-file <{path}> has no [settings] table')
    known = {item.name for item in dataclasses.fields(Settings)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise UsageError(
            f'--config-file <{path}> has settings that do not exist: {", ".join(unknown)}'
        )
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in _OF_THIS_RUN:
            continue
        try:
            values |= _as_typed(key, value)
        except UsageError as error:
            raise UsageError(f'--config-file <{path}> {key}: {error}') from error
    return _joined(values)


class _FileParser(Parser):
    """The command line's own checks, for values that come from a file."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(re.sub(r'^argument [^:]*: ', '', message))


def _as_typed(key: str, value: Any) -> dict[str, Any]:
    """Have a value of a file checked as if it had been typed."""
    option = '--' + key.replace('_', '-')
    if key in _FLAGS:
        if not isinstance(value, bool):
            raise UsageError(f'expected true or false, got {value!r}')
        words = [option] if value else []
    elif key == 'derivatives':
        if not isinstance(value, dict):
            raise UsageError(f'expected a table of NAME = "PATH", got {value!r}')
        words = [f'{option}={name}={folder}' for name, folder in value.items()]
    elif key in _LISTS:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f'expected a list of texts, got {value!r}')
        words = [option, *value] if value else []
    else:
        kinds = (int, float) if key in _NUMBERS else (str,)
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = 'a number' if key in _NUMBERS else 'a text'
            raise UsageError(f'expected {wanted}, got {value!r}')
        words = [f'{option}={value}']
    typed = vars(build_parser(_FileParser).parse_args(['.', '.', 'participant', *words]))
    return {name: item for name, item in typed.items() if name == key}


def _joined(typed: dict[str, Any]) -> dict[str, Any]:
    """Turn lists of the parser into what :class:`Settings` holds."""
    values = dict(typed)
    for name in _LISTS & set(values):
        values[name] = tuple(types.anchored(name, text) for text in values[name])
    if 'derivatives' in values:
        values['derivatives'] = types.folders_by_name(values['derivatives'])
    return values


def settings_from(args: argparse.Namespace) -> Settings:
    """Join what was typed with ``--config-file`` and the defaults, in that order of strength.

    Parameters
    ----------
    args : argparse.Namespace
        Of ``shivacmb.cli.parser.parse_args``.

    Returns
    -------
    Settings
        Frozen.
    """
    typed = dict(vars(args))
    config_file = typed.pop('config_file', None)
    saved = read_config(config_file) if config_file is not None else {}
    values = {**saved, **_joined(typed)}
    for name in {'brain_mask', 'model'} & set(values):
        values[name] = types.anchored(name, values[name], values.get('models_dir'))
    return Settings(**values)
