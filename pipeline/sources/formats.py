"""The formats of the input: which a file has, and who reads it.

A format with a signature is known by it, whatever the file is called; the others by their suffix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module

import pyarrow as pa

from lengthwise.dataset.errors import InputError, UsageError
from lengthwise.dataset.reading import OPTION_NAMES, SourceOptions
from lengthwise.pipeline.sources.arrow_messages import CONTINUATION, FILE_MAGIC
from lengthwise.pipeline.sources.files import format_of_name
from lengthwise.pipeline.sources.frames import begins_with_record
from lengthwise.pipeline.sources.locations import open_random
from lengthwise.pipeline.sources.source import (
    InputFile,
    SourceBatch,
    SourceFile,
    SourceFormat,
    Unit,
    one_line,
)

# Format -> the module that reads it, and the name it has there.
_READERS = {
    "parquet": ("parquet", "PARQUET"),
    "arrow": ("arrow", "ARROW"),
    "jsonl": ("jsonl", "JSONL"),
    "text": ("text", "TEXT"),
    "csv": ("csv", "CSV"),
    "tsv": ("csv", "TSV"),
    "tfrecord": ("tfrecord", "TFRECORD"),
}

# Options of reading that others than these formats would pass over in silence.
_ONLY_FOR = {
    "tokens": ("text",),
    "group_by": ("csv", "tsv"),
    "order_by": ("csv", "tsv"),
    "types": ("jsonl", "csv", "tsv"),
    "shapes": ("parquet", "arrow", "jsonl", "tfrecord"),
}


def open_file(file: InputFile, options: SourceOptions) -> SourceFile:
    """Looks at a file: which columns it has, and into which units it is cut.

    Raises:
        InputError: the file cannot be read, or is not of the format it seems to have.
    """
    name = format_of(file, options)
    return _reader(name).open(file, options)


def read_unit(
    unit: Unit, columns: pa.Schema, options: SourceOptions, *, batch_rows: int | None = None
) -> Iterator[SourceBatch]:
    """Decodes columns of a unit, in batches of bounded size.

    Args:
        unit: of a file that `open_file` has looked at.
        columns: names of the columns, and for formats without types also their types.
        options: how to read, as for `open_file`.
        batch_rows: rows of a batch at most; None bounds its bytes. Never changes rows or numbers.

    Raises:
        InputError: names the file, the place in it and the reason.
    """
    return _reader(unit.format).read(unit, columns, options, batch_rows)


def require_use(
    options: SourceOptions, files: Sequence[SourceFile], planned: SourceOptions | None = None
) -> None:
    """Checks that no option is given which says nothing of any file.

    Args:
        options: how files are read, as the user says.
        files: at least one.
        planned: how a plan says that they are read, which the user need not know.

    Raises:
        UsageError: names the option, the formats that it is for, and a file.
    """
    silent = planned or SourceOptions()
    for name, formats in _ONLY_FOR.items():
        value = getattr(options, name)
        given = value not in (getattr(SourceOptions(), name), getattr(silent, name))
        if given and not any(file.format in formats for file in files):
            option = OPTION_NAMES.get(name, name.replace("_", "-"))
            raise UsageError(
                f"--{option} is for {', '.join(formats)}; {files[0].file.path} is "
                f"{files[0].format}: leave it out, or say --format"
            )


def format_of(file: InputFile, options: SourceOptions) -> str:
    """The format of a file, from its first bytes, or else from its suffix.

    Raises:
        InputError: the file cannot be read, or neither tells.
    """
    if options.format is not None:
        # A data set of Hugging Face is a folder of Arrow streams.
        return "arrow" if options.format == "hf" else options.format
    try:
        with open_random(file.path) as source:
            head = source.read(16)
    except (OSError, pa.ArrowException) as reason:
        raise InputError(f"{file.path}: cannot be read: {one_line(reason)}") from None
    for name, has_signature in _SIGNATURES.items():
        if has_signature(head):
            return name
    if head[:4] == b"FEA1":
        raise InputError(f"{file.path}: Feather V1 is not read; write it as V2 (or Parquet)")
    name = format_of_name(file.path)
    if name is None:
        raise InputError(
            f"{file.path}: neither content nor suffix tell the format; say it with --format"
        )
    return name


def _is_parquet(head: bytes) -> bool:
    return head[:4] in (b"PAR1", b"PARE")


def _is_arrow(head: bytes) -> bool:
    return head[: len(FILE_MAGIC)] == FILE_MAGIC or head[:4] == CONTINUATION


_SIGNATURES: dict[str, Callable[[bytes], bool]] = {
    "parquet": _is_parquet,
    "arrow": _is_arrow,
    "tfrecord": begins_with_record,
}


def _reader(name: str) -> SourceFormat:
    module, attribute = _READERS[name]
    return getattr(import_module(f"lengthwise.pipeline.sources.{module}"), attribute)
