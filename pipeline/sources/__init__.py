"""Where rows come from."""

from lengthwise.dataset.reading import FORMATS, TOKENS, SourceOptions
from lengthwise.pipeline.sources.columns import agree_on_columns, columns_to_read
from lengthwise.pipeline.sources.files import find_files
from lengthwise.pipeline.sources.formats import open_file, read_unit, require_use
from lengthwise.pipeline.sources.locations import status_of
from lengthwise.pipeline.sources.source import (
    BrokenRow,
    InputFile,
    SourceBatch,
    SourceFile,
    Unit,
    one_line,
    parse_shape,
)

__all__ = [
    "FORMATS",
    "TOKENS",
    "BrokenRow",
    "InputFile",
    "SourceBatch",
    "SourceFile",
    "SourceOptions",
    "Unit",
    "agree_on_columns",
    "columns_to_read",
    "find_files",
    "one_line",
    "open_file",
    "parse_shape",
    "read_unit",
    "require_use",
    "status_of",
]
