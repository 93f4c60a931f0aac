"""What a workflow is told about one scan, decided before any graph is built."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Detection:
    """How to detect: every number that shapes a result, from the bundle and the command line.

    Attributes
    ----------
    bundle : str
        Folder of the model bundle.
    engine, device, trust_model
        As for ``shivacmb.models.load_ensemble``.
    toolkit : {'fsl', 'native'}
        What reorients and resamples.
    mask : str
        Method where no mask is given: 'auto', 'builtin', 'background', 'bet', 'synthstrip',
        'hd-bet'.
    zones : bool
        Whether to find the zones of the brain.
    voxel_mm : float
        Isotropic voxel size of the network's grid, mm.
    box_shape : tuple of three int
        The network's input, voxels.
    percentile, clip, divide, masked
        As for ``shivacmb.imaging.scale_intensity``.
    threshold : float
        Probability from which a voxel counts.
    min_voxels : int
        Smallest cluster kept, voxels of the network's grid.
    connectivity : {26, 18, 6}
        Neighbours of a voxel.
    outline_threshold : float or None
        Probability down to which lesions grow once they are found; None: not at all.
    """

    bundle: str
    engine: str
    device: str
    trust_model: bool
    toolkit: str
    mask: str
    zones: bool
    voxel_mm: float
    box_shape: tuple[int, int, int]
    percentile: float
    clip: float
    divide: float
    masked: bool
    threshold: float
    min_voxels: int
    connectivity: int
    outline_threshold: float | None = None


@dataclass(frozen=True)
class ScanPlan:
    """One scan and everything its derivatives have to say.

    Attributes
    ----------
    stem : str
        Start of every output name, unique within the run.
    image : Path
        The scan.
    brain_mask : Path or None
        A precomputed mask on the grid of the scan.
    outputs : dict
        Output key to absolute path; see ``shivacmb.interfaces.derivatives.OUTPUT_KEYS``.
    staging : str
        Scratch folder of this scan and process, on the file system of the outputs.
    min_parenchyma : float
        Least share of a cluster's surroundings that must be brain tissue; needs the zones.
    channels : tuple of Path
        Images on the grid of the scan for the further channels of the network.
    replaces : tuple of str
        Files of earlier runs to remove just before the new ones take their place.
    overwrite : bool
        Write the scan also where another run has finished it with the same settings meanwhile.
    out_dir : str
        Root of the BIDS derivatives whose tables get the scan's row; '' for a single file.
    facts : dict
        What is known before the run and written into sidecars and record: source URI, contrast,
        why this file, model, parameters, versions, settings hash. JSON only.
    """

    stem: str
    image: Path
    brain_mask: Path | None
    outputs: dict[str, str]
    staging: str
    min_parenchyma: float = 0.0
    channels: tuple[Path, ...] = ()
    replaces: tuple[str, ...] = ()
    overwrite: bool = False
    out_dir: str = ''
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def node_name(self) -> str:
        """Name of the scan's workflow: nipype allows letters, digits and underscores."""
        # '+', which BIDS allows in labels, must not read like '-' and '_'
        return 'scan_' + re.sub(r'[^A-Za-z0-9]', '_', self.stem.replace('+', '__'))

    @property
    def mask_sha256(self) -> str:
        """Checksum that the precomputed mask had when the scan was planned; '' without one."""
        return next(iter(self._checksums('mask_sources')), '')

    @property
    def channel_sha256(self) -> tuple[str, ...]:
        """Checksums that the images of further channels had when the scan was planned."""
        return self._checksums('channel_sources')

    def _checksums(self, key: str) -> tuple[str, ...]:
        return tuple(str(item).rpartition('sha256:')[2] for item in self.facts.get(key, []))
