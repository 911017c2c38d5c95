"""The family of errors that a user of Lengthwise can meet.

Every message says what is wrong, where (file, row, feature) and what to do, on one line.
"""

from __future__ import annotations


class LengthwiseError(Exception):
    """Base of all errors that Lengthwise raises on purpose."""


class UsageError(LengthwiseError):
    """An option or argument that cannot mean anything."""


class SchemaError(LengthwiseError):
    """Columns of the input do not fit the features that were asked for."""


class InputError(LengthwiseError):
    """The input cannot be found or read, or its rows cannot be used."""


class PlanError(LengthwiseError):
    """A plan is malformed, or does not fit the input or the dataset."""


class OutputError(LengthwiseError):
    """The output folder is in use, or holds something that Lengthwise did not write."""


class ManifestError(LengthwiseError):
    """There is no dataset here, or its manifest is malformed or of another version."""


class CorruptDataError(LengthwiseError):
    """Bytes on disk differ from what the manifest promises."""
