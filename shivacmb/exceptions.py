"""Errors whose text is meant for the person at the keyboard.

Each says what is wrong, in which file, and what to do. ``exit_code`` follows the BIDS-Apps
execution specification (draft) and ``sysexits.h``: 16 dataset unusable, 17 unknown level,
18 filters select nothing, 64 usage, 65 data error, 66 no input, 73 cannot create output,
75 temporary failure.
"""

from __future__ import annotations


class ShivaCMBError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class DatasetError(ShivaCMBError):
    """The BIDS dataset as a whole cannot be used."""

    exit_code = 16


class FilterError(ShivaCMBError):
    """The filters given on the command line select nothing."""

    exit_code = 18


class UsageError(ShivaCMBError):
    """Arguments that contradict each other or name something that is not there."""

    exit_code = 64


class DataError(ShivaCMBError):
    """One input (image, mask, sidecar or model file) is broken or unsuitable."""

    exit_code = 65


class ModelError(DataError):
    """A model bundle is incomplete, altered, unsafe or does not fit the scan."""


class NoInputError(ShivaCMBError):
    """A participant has no usable scan."""

    exit_code = 66


class OutputError(ShivaCMBError):
    """The output folder cannot be written."""

    exit_code = 73


class TemporaryError(ShivaCMBError):
    """A resource is busy or exhausted now; the same command may succeed later."""

    exit_code = 75
