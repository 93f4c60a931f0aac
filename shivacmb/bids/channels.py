"""Further images of an acquisition: what a network looks at beside the scan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from shivacmb.bids.find import find_scans
from shivacmb.bids.names import session_dir
from shivacmb.bids.rules import refusal_by_name
from shivacmb.bids.scan import Scan
from shivacmb.bids.sidecars import split_name
from shivacmb.exceptions import FilterError, NoInputError

#: Contrasts that the app itself looks for; any other is the suffix of a file.
SCAN_CONTRASTS = ('T2starw', 'swi')
_DATATYPES = ('anat', 'swi')


class Channel(Protocol):
    """An input of a network: its name and the contrasts that may fill it, best first."""

    @property
    def name(self) -> str:
        """As the bundle calls it."""

    @property
    def contrasts(self) -> tuple[str, ...]:
        """T2starw, swi, or the suffix of a file."""


class ChannelFinder:
    """Finds the images that fill the channels after the first, which is the scan itself.

    T2*-GRE and SWI are found as the app finds scans: magnitude images, one echo of several. Other
    contrasts are the files of the session with that suffix that are no phase, real or imaginary
    part. The one with the entities of the scan is taken, else the only one that has no other value
    of an entity of the scan, such as another run.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    channels : sequence of Channel
        All of the network's, the first included.
    participants, exclude, filters
        See :func:`shivacmb.bids.find_scans`.
    """

    def __init__(
        self,
        bids_dir: Path,
        channels: Sequence[Channel],
        *,
        participants: Collection[str] | None = None,
        exclude: Collection[str] = (),
        filters: Mapping[str, Any] | str | Path | None = None,
    ) -> None:
        self._further = tuple(channels[1:])
        self._scans: dict[str, tuple[Scan, ...]] = {}
        for contrast in sorted({item for channel in self._further for item in channel.contrasts}):
            if contrast in SCAN_CONTRASTS:
                try:
                    self._scans[contrast] = find_scans(
                        bids_dir, participants=participants, exclude=exclude, filters=filters,
                        modality='swi' if contrast == 'swi' else 't2s',
                        require_description=False,
                    ).scans  # fmt: skip
                except FilterError:
                    self._scans[contrast] = ()

    def images(self, scan: Scan) -> tuple[Path, ...]:
        """Name the images of the further channels of a scan.

        Parameters
        ----------
        scan : Scan
            Of the same dataset.

        Returns
        -------
        tuple of Path
            In the order of the channels.

        Raises
        ------
        NoInputError
            A channel has no image, or several.
        """
        if not self._further:
            return ()
        root = scan.path.parents[len(Path(scan.relative_path).parts) - 1]
        files = session_images(session_dir(root, scan.participant, scan.session))
        return tuple(self._one(scan, channel, files) for channel in self._further)

    def _one(self, scan: Scan, channel: Channel, files: Sequence[Path]) -> Path:
        own = _entities(scan.path)
        others: list[str] = []
        session = (scan.participant, scan.session)
        for contrast in channel.contrasts:
            if contrast in self._scans:
                fitting = [
                    item.path
                    for item in self._scans[contrast]
                    if (item.participant, item.session) == session
                ]
            else:
                fitting = [path for path in files if _shows(path, contrast)]
            fitting = [path for path in fitting if path != scan.path]
            exact = [path for path in fitting if _entities(path) == own]
            chosen = exact or [path for path in fitting if _agree(_entities(path), own)]
            others += [path.name for path in fitting if path not in chosen]
            if len(chosen) > 1:
                names = ', '.join(path.name for path in chosen)
                raise NoInputError(
                    f'several images fit the channel {channel.name!r} beside <{scan.path}>: '
                    f'{names}; give the one that belongs to it the same entities'
                )
            if chosen:
                return chosen[0]
        of_others = f' ({", ".join(others)}: of another acquisition)' if others else ''
        raise NoInputError(
            f'no image for the channel {channel.name!r} ({" or ".join(channel.contrasts)}) beside '
            f'<{scan.path}>{of_others}; add it, leave that scan out, or use a model without that '
            'channel'
        )


def session_images(folder: Path) -> list[Path]:
    """NIfTI files of a session, sorted within ``anat`` and ``swi``."""
    return [
        path
        for datatype in _DATATYPES
        for path in sorted((folder / datatype).glob('*.nii*'))
        if path.name.endswith(('.nii', '.nii.gz'))
    ]


def bare_name(path: Path) -> str:
    """Name of an image without its ending."""
    return path.name.removesuffix('.gz').removesuffix('.nii')


def _shows(path: Path, contrast: str) -> bool:
    """Tell whether a name has this suffix, and is not that of a phase, real or imaginary part."""
    pairs, suffix, _ = split_name(bare_name(path))
    told = {key: value for key, value in pairs.items() if key in ('part', 'acq', 'rec')}
    return suffix.lower() == contrast.lower() and refusal_by_name(told) is None


def _entities(path: Path) -> dict[str, Any]:
    pairs = split_name(bare_name(path))[0]
    return {key: value for key, value in pairs.items() if key not in ('part', 'echo')}


def _agree(entities: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Tell whether two images may be of one acquisition: what both name is the same."""
    return all(own.get(key, value) == value for key, value in entities.items())
