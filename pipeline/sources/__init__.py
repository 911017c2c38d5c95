"""Where rows come from."""

from lengthwise.pipeline.sources.files import InputFile, find_files
from lengthwise.pipeline.sources.parquet import (
    ParquetFile,
    Unit,
    is_parquet,
    one_line,
    open_footer,
    read_unit,
)

__all__ = [
    "InputFile",
    "ParquetFile",
    "Unit",
    "find_files",
    "is_parquet",
    "one_line",
    "open_footer",
    "read_unit",
]
