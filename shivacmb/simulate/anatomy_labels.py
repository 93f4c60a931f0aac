"""The tissues of a simulated head and their label values."""

from __future__ import annotations

from enum import IntEnum


class Tissue(IntEnum):
    """Label values of :func:`shivacmb.simulate.anatomy.random_head`.

    Everything from ``CORTEX`` to ``VENTRICLE`` lies inside the brain mask; ``SULCAL_CSF`` occurs
    on both sides of it (between the gyri, and between the brain and the skull).
    """

    AIR = 0
    CORTEX = 1
    CEREBRAL_WM = 2
    CAUDATE = 3
    PUTAMEN = 4
    PALLIDUM = 5
    THALAMUS = 6
    BRAINSTEM = 7
    CEREBELLAR_GM = 8
    CEREBELLAR_WM = 9
    SULCAL_CSF = 10
    VENTRICLE = 11
    VENOUS_SINUS = 12
    BONE = 13
    MARROW = 14
    FAT = 15
    MUSCLE = 16
    SKIN = 17
    EYE = 18
    CAVITY = 19
    MUCOSA = 20
    CORD = 21


#: Name of every label value, for tables.
LABEL_NAMES: dict[int, str] = {tissue.value: tissue.name.lower() for tissue in Tissue}
