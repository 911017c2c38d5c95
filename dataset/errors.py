"""The family of errors that a user of Lengthwise can meet.

Every message says what is wrong, where (file, row, feature) and what to do, on one line.
"""

from __future__ import annotations

_MAX_CHARACTERS = 4000


class LengthwiseError(Exception):
    """Base of all errors that Lengthwise raises on purpose.

    Names of files and columns may hold anything; the message is one printable line all the same.

    Example:
        >>> str(LengthwiseError("a\\nb.parquet: no such file"))
        'a\\\\nb.parquet: no such file'
    """

    def __str__(self) -> str:
        text = super().__str__()[:_MAX_CHARACTERS]
        return text if text.isprintable() else "".join(map(_printable, text))


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


def _printable(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]
