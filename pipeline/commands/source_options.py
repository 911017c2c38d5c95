"""Options that say how input files are read, where the files do not say it themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click

from lengthwise.dataset.errors import UsageError
from lengthwise.pipeline.commands.option_list import F, with_options
from lengthwise.pipeline.commands.value_types import once

# As in pipeline.sources, which would load numpy and pyarrow only to be asked for its usage.
FORMATS = ("parquet", "arrow", "hf", "jsonl", "csv", "tsv", "text", "tfrecord")
TOKENS = ("whitespace", "characters", "bytes")


def source_options(command: F) -> F:
    """Adds the options that say how input files are read."""
    return with_options(command, _SOURCE)


READING_NAMES = {
    "format": "format",
    "tokens": "tokens",
    "group_by": "group_by",
    "order_by": "order_by",
    "type": "types",
    "shape": "shapes",
}


def reading_over(planned: Any, values: dict[str, Any], given: Collection[str]) -> Any:
    """How a plan says that files are read, with what the command line says again.

    Args:
        planned: what the plan says; None where it is silent.
        values: of the command line.
        given: the options that were written on it.
    """
    from dataclasses import replace

    if planned is None:
        return reading_of(values)
    return replace(planned, **reading_given(values, given))


def reading_given(values: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Fields of `SourceOptions` that were written on the command line, be it their default."""
    reading = reading_of(values)
    return {
        field: getattr(reading, field) for name, field in READING_NAMES.items() if name in given
    }


def reading_of(values: dict[str, Any]) -> Any:
    """How input files are read, from the values of the command line."""
    from lengthwise.pipeline.sources import SourceOptions, parse_shape

    shapes: list[tuple[str, tuple[int, ...]]] = []
    for written in values["shape"]:
        name, equals, sizes = written.rpartition("=")
        if not name or not equals:
            raise UsageError(f"--shape {written!r} is not NAME=D or NAME=DxD, as in frames=12")
        shapes.append((name, parse_shape(sizes)))
    types = [written.partition("=")[::2] for written in values["type"]]
    return SourceOptions(
        format=values["format"],
        tokens=values["tokens"],
        group_by=values["group_by"],
        order_by=values["order_by"],
        types=once("type", types),
        shapes=once("shape", shapes),
    )


_SOURCE = (
    click.option(
        "--format",
        type=click.Choice(FORMATS),
        default=None,
        help="Format of the input; hf is a save_to_disk folder. [default: told from each file]",
    ),
    click.option(
        "--tokens",
        type=click.Choice(TOKENS),
        default="whitespace",
        show_default=True,
        help="Steps of a line of text: words, characters, or bytes as ids from 0 to 255.",
    ),
    click.option(
        "--group-by",
        metavar="NAME",
        help="CSV with a line for each step: the column that says which lines are one row.",
    ),
    click.option(
        "--order-by",
        metavar="NAME",
        help="CSV with a line for each step: the column that orders the lines of a row. "
        "[default: as they stand]",
    ),
    click.option(
        "--type",
        multiple=True,
        metavar="NAME=TYPE",
        help="int, float, bool or string, for a column of JSON or CSV. [default: as in the first "
        "4 MiB]",
    ),
    click.option(
        "--shape",
        multiple=True,
        metavar="NAME=D[xD]",
        help="The shape of a step, where the format does not say it. Give it again for more.",
    ),
)
