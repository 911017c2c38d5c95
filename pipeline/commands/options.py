"""Options that plan and build share, and how they become one frozen set."""

from __future__ import annotations

from typing import Any

import click

from lengthwise.dataset.errors import PlanError, UsageError
from lengthwise.pipeline.commands.option_list import F, with_options
from lengthwise.pipeline.commands.value_types import (
    Boundaries,
    Buckets,
    ByteSize,
    Named,
    Splits,
    once,
)


def planning_options(command: F) -> F:
    """Adds the options that decide a plan."""
    return with_options(command, _PLANNING)


def execution_options(command: F) -> F:
    """Adds the options that decide where a job runs; `-- …` goes to Beam as it is."""
    return with_options(command, _EXECUTION)


PLANNING_NAMES = (
    "sequence",
    "label",
    "context",
    "buckets",
    "strategy",
    "boundaries",
    "align",
    "max_length",
    "overlong",
    "overlap",
    "empty",
    "split",
    "split_by",
    "split_column",
    "seed",
    "shard_size",
    "vocab_size",
    "min_count",
    "vocabulary",
    "nan",
    "fill",
    "normalize",
    "padding",
    "pad_value",
    "max_rejected",
    "element_mask",
    "canonical",
    "compression",
)

_PLANNING = (
    click.option(
        "--sequence",
        multiple=True,
        metavar="NAME",
        help="A column of variable-length lists. Give it again for more. "
        "[default: every list column]",
    ),
    click.option(
        "--label",
        multiple=True,
        metavar="NAME",
        help="A column to predict, per row or (a list column) per step.",
    ),
    click.option(
        "--context", multiple=True, metavar="NAME", help="A column with one value per row."
    ),
    click.option(
        "--buckets",
        type=Buckets(),
        default="auto",
        show_default=True,
        help="How many buckets at most; auto adds them while each saves 0.5 % of all slots, "
        "up to one for 64 rows.",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["optimal", "quantile", "geometric", "width", "fixed"]),
        default="optimal",
        show_default=True,
        help="How boundaries are found: optimal has the least padding there is.",
    ),
    click.option(
        "--boundaries",
        type=Boundaries(),
        default=(),
        help="The max_lengths themselves, inclusive, for --strategy fixed.",
    ),
    click.option(
        "--align",
        type=click.IntRange(1),
        metavar="N",
        default=8,
        show_default=True,
        help="Round max_lengths up to a multiple of this.",
    ),
    click.option(
        "--max-length",
        type=click.IntRange(1),
        metavar="N",
        default=None,
        help="Rows with more steps are overlong. [default: no limit]",
    ),
    click.option(
        "--overlong",
        type=click.Choice(["error", "drop", "truncate_end", "truncate_start", "split"]),
        default="error",
        show_default=True,
        help="What becomes of overlong rows; truncate_end cuts the end off, split makes pieces.",
    ),
    click.option(
        "--overlap",
        type=click.IntRange(0),
        metavar="N",
        default=0,
        show_default=True,
        help="Steps that a piece of a split row shares with the one before.",
    ),
    click.option(
        "--empty",
        type=click.Choice(["drop", "error"]),
        default="drop",
        show_default=True,
        help="What becomes of rows without a step, null or empty.",
    ),
    click.option(
        "--split",
        type=Splits(),
        default="train=1",
        show_default=True,
        help="Splits and the fraction of rows that each draws. Inputs written as NAME=PATH go to "
        "split NAME whole.",
    ),
    click.option(
        "--split-by",
        metavar="NAME",
        help="A column whose equal values all go to one split, as a user or a document.",
    ),
    click.option("--split-column", metavar="NAME", help="A column that names each row's split."),
    click.option(
        "--seed",
        type=click.IntRange(0),
        metavar="N",
        default=0,
        show_default=True,
        help="Decides which rows go to which split and shard, and their order.",
    ),
    click.option(
        "--shard-size",
        type=ByteSize(),
        default="64M",
        show_default=True,
        help="Bytes of a shard at most, on average, before compression.",
    ),
    click.option(
        "--compression",
        type=click.Choice(["none", "gzip"]),
        default="none",
        show_default=True,
        help="Compress the shards; readers unpack them once, before the first batch.",
    ),
    click.option(
        "--canonical",
        is_flag=True,
        help="Write integers as short as protobuf does; smaller records, slower to write and read.",
    ),
    click.option(
        "--vocab-size",
        type=click.IntRange(3),
        metavar="N",
        default=None,
        help="Ids of a vocabulary at most, padding and unknown included. [default: all strings]",
    ),
    click.option(
        "--min-count",
        type=click.IntRange(1),
        metavar="N",
        default=1,
        show_default=True,
        help="Rarer strings are unknown.",
    ),
    click.option(
        "--vocabulary",
        type=Named(),
        multiple=True,
        help="A vocabulary that is not to be counted, one string a line; the first gets id 2.",
    ),
    click.option(
        "--nan",
        type=click.Choice(["missing", "keep", "error"]),
        default="missing",
        show_default=True,
        help="What a step with a NaN is.",
    ),
    click.option(
        "--element-mask",
        is_flag=True,
        help="Mask a null or NaN element of a vector by itself, not its whole step; which were "
        "observed is the feature NAME__observed.",
    ),
    click.option(
        "--fill",
        default="zero",
        show_default=True,
        metavar="zero|forward|mean|VALUE",
        help="What stands where a step or element is missing; it is masked all the same.",
    ),
    click.option(
        "--normalize",
        type=Named(),
        multiple=True,
        help="zscore, minmax or log1p for a float sequence; constants from the split 'train'.",
    ),
    click.option(
        "--padding",
        type=click.Choice(["right", "left"]),
        default="right",
        show_default=True,
        help="The side of a row that is padded.",
    ),
    click.option(
        "--pad-value",
        type=float,
        default=0.0,
        show_default=True,
        help="What stands in padding of numbers; the mask says that it is padding.",
    ),
    click.option(
        "--max-rejected",
        default="0",
        show_default=True,
        metavar="N|P%",
        help="Faulty rows that are left out, to rejected/, before the build fails.",
    ),
)

_EXECUTION = (
    click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        default=1,
        show_default=True,
        help="Processes on this machine. Any number gives the same bytes.",
    ),
    click.option(
        "--runner",
        default="local",
        show_default=True,
        help="local, or a runner of Beam; options after -- go to Beam.",
    ),
    click.option(
        "--ship",
        is_flag=True,
        help="Send this Lengthwise to the workers, which install it; for containers of Beam.",
    ),
)


def names_and_options(values: dict[str, Any]) -> tuple[Any, Any]:
    """The features and the planning options that the command line gives."""
    from lengthwise.dataset.options import PlanOptions
    from lengthwise.pipeline.inputs import FeatureNames

    names = FeatureNames(
        sequences=tuple(values["sequence"]) or None,
        labels=tuple(values["label"]),
        contexts=tuple(values["context"]),
    )
    buckets = values["buckets"]
    try:
        options = PlanOptions(
            num_buckets=None if buckets == "auto" else buckets,
            strategy=values["strategy"],
            boundaries=values["boundaries"],
            align=values["align"],
            max_length=values["max_length"],
            overlong=values["overlong"],
            overlap=values["overlap"],
            empty=values["empty"],
            splits=values["split"],
            seed=values["seed"],
            shard_size=values["shard_size"],
            vocab_size=values["vocab_size"],
            min_count=values["min_count"],
            nan=values["nan"],
            fill=_fill(values["fill"]),
            normalize=once("normalize", values["normalize"]),
            split_by=values["split_by"],
            split_column=values["split_column"],
            padding=values["padding"],
            pad_value=values["pad_value"],
            max_rejected=values["max_rejected"],
            element_mask=values["element_mask"],
            canonical=values["canonical"],
            compression=values["compression"],
        )
    except PlanError as reason:
        raise UsageError(str(reason)) from None
    return names, options


def vocabularies(values: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The vocabularies that the command line gives."""
    from lengthwise.transforms.vocabulary import read_vocabulary

    given = once("vocabulary", values["vocabulary"])
    return {name: read_vocabulary(path) for name, path in given.items()}


def _fill(written: str) -> str | float:
    try:
        return float(written)
    except ValueError:
        return written


def split_beam_args(arguments: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Paths, and what follows them and starts with a dash: options for Beam, given after `--`."""
    paths = [argument for argument in arguments if not argument.startswith("-")]
    beam_args = tuple(argument for argument in arguments if argument.startswith("-"))
    if arguments[: len(paths)] != tuple(paths):
        raise UsageError(
            f"{paths[-1]!r} follows an option of Beam; write those as --name=value, after all paths"
        )
    return paths, beam_args
