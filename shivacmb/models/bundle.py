"""Model bundles: a folder with ``model.json`` and the folds of an ensemble.

The file says all that a run needs to know about the networks in it: which scans they take, on
which grid, in which contrast, what their channels mean, which threshold belongs to them, and the
checksum of every file. ``docs/decisions/0020-model-bundles.md`` has the format.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shivacmb.exceptions import ModelError
from shivacmb.models.checksums import md5_of, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

MODEL_FILE = 'model.json'
FORMATS = ('keras', 'savedmodel', 'h5')
TARGETS = ('CMB', 'brain')
MICROBLEED = 'CMB'


@dataclass(frozen=True)
class Input:
    """One input channel: its name and the BIDS contrasts that may fill it, best first."""

    name: str
    contrasts: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """The network's box: voxels, voxel size in mm, axis codes."""

    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    orientation: str = 'RAS'


@dataclass(frozen=True)
class Intensity:
    """How the scan is scaled: ``min(image / percentile, clip) / divide``, masked or not."""

    percentile: float = 99.0
    clip: float = 1.0
    divide: float = 1.0
    masked: bool = False


@dataclass(frozen=True)
class ClassLabel:
    """What one output map shows, and its value in a label image."""

    value: int
    name: str


@dataclass(frozen=True)
class Postprocess:
    """Binarise at ``probability >= threshold``, keep clusters of at least ``min_voxels``.

    ``min_parenchyma`` says by contrast which share of a cluster and its surroundings must be brain
    tissue for it to count, see :func:`shivacmb.lesions.parenchyma_fractions`; a contrast that is
    not named has no such rule. ``outline_threshold``: clusters then grow down to this probability,
    see :func:`shivacmb.lesions.grow_clusters`; None: they do not.
    """

    threshold: float = 0.4
    min_voxels: int = 3
    connectivity: int = 26
    min_parenchyma: dict[str, float] = field(default_factory=dict)
    outline_threshold: float | None = None

    def parenchyma_for(self, contrast: str) -> float:
        """Return the least share of brain tissue for a contrast; 0 without a rule."""
        return self.min_parenchyma.get(contrast, 0.0)


@dataclass(frozen=True)
class IntermediateForm:
    """A fold as OpenVINO reads it: ``file`` (.xml), beside it the weights of the same stem."""

    file: str
    sha256: str
    weights_sha256: str

    @property
    def weights_file(self) -> str:
        """Name of the weights beside ``file``."""
        return str(Path(self.file).with_suffix('.bin').as_posix())


@dataclass(frozen=True)
class Fold:
    """One trained network: file or folder in the bundle, format, checksums."""

    file: str
    format: str
    sha256: str
    md5: str | None = None
    openvino: IntermediateForm | None = None


@dataclass(frozen=True)
class Bundle:
    """A model as ``model.json`` describes it.

    ``classes`` are the foreground classes. A network may return one map for each (sigmoid), or one
    more, whose first map is the background (softmax); see :meth:`foreground`.
    """

    name: str
    version: str
    path: Path
    inputs: tuple[Input, ...]
    grid: Grid
    folds: tuple[Fold, ...]
    description: str = ''
    license: str = ''
    citation: str = ''
    url: str = ''
    intended_use: str = ''
    target: str = 'CMB'
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    architecture: Mapping[str, Any] = field(default_factory=dict)
    intensity: Intensity = field(default_factory=Intensity)
    classes: tuple[ClassLabel, ...] = (ClassLabel(1, 'CMB'),)
    postprocess: Postprocess = field(default_factory=Postprocess)

    def fold_path(self, fold: Fold) -> Path:
        """Return where a fold's file or folder is."""
        return self.path / fold.file

    @property
    def atlas(self) -> tuple[Path, str] | None:
        """Path and SHA-256 of the atlas of the zones; None where the architecture names none.

        Raises
        ------
        ModelError
            The entry is not complete.
        """
        entry = self.architecture.get('atlas')
        if entry is None:
            return None
        try:
            return self.path / Path(entry['file']).name, str(entry['sha256']).lower()
        except (KeyError, TypeError) as error:
            msg = (
                f'architecture.atlas in <{self.path / MODEL_FILE}> needs file and sha256; take'
                ' both from the bundle it comes from'
            )
            raise ModelError(msg) from error

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``model.json``."""
        content = {key: value for key, value in asdict(self).items() if key != 'path'}
        # tuples become lists, as they are when the file is read back
        content = json.loads(json.dumps(content))
        for fold in content['folds']:
            for name in ('md5', 'openvino'):
                if fold[name] is None:
                    del fold[name]
        folds = content.pop('folds')
        return {**content, 'folds': folds}

    def verify_fold(self, fold: Fold) -> None:
        """Check that a fold's source is there and is the one described.

        Raises
        ------
        ModelError
            It is missing, or its SHA-256 or MD5 differs.
        """
        path = self.fold_path(fold)
        _check_file(path, fold.sha256, self, folder=fold.format == 'savedmodel')
        if fold.md5 is not None and _sum(md5_of, path, self) != fold.md5.lower():
            raise ModelError(_altered(path, 'MD5', fold.md5, self))

    def verify_openvino(self, fold: Fold) -> None:
        """Check the OpenVINO form that the bundle keeps of a fold.

        Raises
        ------
        ModelError
            A file of it is missing or its SHA-256 differs.
        """
        if fold.openvino is not None:
            _check_file(self.path / fold.openvino.file, fold.openvino.sha256, self)
            _check_file(self.path / fold.openvino.weights_file, fold.openvino.weights_sha256, self)

    def verify(self) -> None:
        """Check every file of the bundle against its checksums.

        Raises
        ------
        ModelError
            A file is missing or altered.
        """
        for fold in self.folds:
            self.verify_fold(fold)
            self.verify_openvino(fold)
        if self.atlas is not None:
            _check_file(*self.atlas, self)

    def foreground(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Drop the background map of a softmax network.

        Parameters
        ----------
        probabilities : (..., K) ndarray
            What :meth:`shivacmb.models.Ensemble.predict` returns.

        Returns
        -------
        (..., C) ndarray
            One map per entry of ``classes``, in their order; a view.

        Raises
        ------
        ModelError
            K is neither C nor C + 1.
        """
        maps, wanted = probabilities.shape[-1], len(self.classes)
        self.check_maps(maps)
        return probabilities[..., maps - wanted :]

    def check_detects(self) -> None:
        """Refuse a bundle that does not find microbleeds on an isotropic RAS grid.

        Raises
        ------
        ModelError
            Naming what does not fit.
        """
        advice = 'choose another model (shivacmb-tools models list)'
        if self.target != 'CMB' or MICROBLEED not in [item.name for item in self.classes]:
            raise ModelError(
                f'model {self.name} does not find microbleeds (target {self.target}); {advice}'
            )
        if self.grid.orientation != 'RAS' or len(set(self.grid.voxel_mm)) != 1:
            raise ModelError(
                f'model {self.name} wants voxels of {self.grid.voxel_mm} mm in the order '
                f'{self.grid.orientation}; only isotropic RAS grids are supported; {advice}'
            )

    def check_contrast(self, contrast: str, image: str) -> None:
        """Refuse an image of a contrast that the model was not made for.

        Parameters
        ----------
        contrast : str
            Such as ``T2starw``.
        image : str
            What to call the image in the message.

        Raises
        ------
        ModelError
            Naming both.
        """
        accepted = self.inputs[0].contrasts
        if contrast not in accepted:
            raise ModelError(
                f'model {self.name} takes {", ".join(accepted)} and {image} is {contrast}; choose '
                'another model (shivacmb-tools models list)'
            )

    def check_channels(self, given: int) -> None:
        """Refuse a number of images that is not the number of channels.

        Parameters
        ----------
        given : int
            Images, the scan itself included.

        Raises
        ------
        ModelError
            Naming the channels.
        """
        if given != len(self.inputs):
            names = ', '.join(item.name for item in self.inputs)
            raise ModelError(
                f'model {self.name} needs {len(self.inputs)} image(s) ({names}) and was given '
                f'{given}; name each, or choose another model (shivacmb-tools models list)'
            )

    def microbleeds(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the map of microbleeds.

        Parameters
        ----------
        probabilities : (..., K) ndarray
            What :meth:`shivacmb.models.Ensemble.predict` returns.

        Returns
        -------
        (...) ndarray
            A copy without the last axis.
        """
        index = [item.name for item in self.classes].index(MICROBLEED)
        return np.ascontiguousarray(self.foreground(probabilities)[..., index])

    def target_map(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the bundle is for: the map of microbleeds, or all maps of the brain.

        Parameters
        ----------
        probabilities : (..., K) ndarray
            What :meth:`shivacmb.models.Ensemble.predict` returns.

        Returns
        -------
        ndarray
            A copy: (...) for microbleeds, (..., K) for the brain.
        """
        if self.target == 'CMB':
            return self.microbleeds(probabilities)
        return np.ascontiguousarray(probabilities)

    def check_maps(self, maps: int) -> None:
        """Raise a ModelError unless ``maps`` output maps fit ``classes``."""
        wanted = len(self.classes)
        if maps not in (wanted, wanted + 1):
            msg = (
                f'the network of <{self.path}> returns {maps} maps, but its {MODEL_FILE} names '
                f'{wanted} classes (expected {wanted}, or {wanted + 1} with the background first)'
            )
            raise ModelError(msg)


def _check_file(path: Path, expected: str, bundle: Bundle, *, folder: bool = False) -> None:
    if not (path.is_dir() if folder else path.is_file()):
        kind = 'folder' if folder else 'file'
        msg = (
            f'model {bundle.name!r} is incomplete: the {kind} <{path}> is missing; install it '
            'again with `shivacmb-tools models add`'
        )
        raise ModelError(msg)
    # the sum covers no linked folder, whose files the engines would read all the same
    if folder and any(item.is_symlink() and item.is_dir() for item in path.rglob('*')):
        msg = (
            f'<{path}> of model {bundle.name!r} holds links to folders, whose files no checksum '
            'covers; copy what they lead to into it (`cp -rL`)'
        )
        raise ModelError(msg)
    if _sum(sha256_of, path, bundle) != expected.lower():
        raise ModelError(_altered(path, 'SHA-256', expected, bundle))


def _sum(compute: Callable[[Path], str], path: Path, bundle: Bundle) -> str:
    try:
        return compute(path)
    except OSError as error:
        msg = (
            f'cannot read <{error.filename or path}> of model {bundle.name!r}: '
            f'{error.strerror or error}; check its rights and the disk'
        )
        raise ModelError(msg) from error


def _altered(path: Path, kind: str, expected: str, bundle: Bundle) -> str:
    return (
        f'<{path}> of model {bundle.name!r} is not the file that its {MODEL_FILE} describes '
        f'({kind} is not {expected}); it was altered or not completely copied: install the model '
        'again with `shivacmb-tools models add`'
    )
