"""The options of a plan: what the user decides, checked once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lengthwise.dataset.document import Fields
from lengthwise.dataset.errors import PlanError

STRATEGIES = ("optimal", "quantile", "geometric", "width", "fixed")
OVERLONG = ("error", "drop", "truncate_end", "truncate_start", "split")
SIDES = ("right", "left")
EMPTY = ("drop", "error")
NAN = ("missing", "keep", "error")
FILLS = ("zero", "forward", "mean")
COMPRESSIONS = ("none", "gzip")
NORMALIZATIONS = ("zscore", "minmax", "log1p")
MAX_LENGTH = 1 << 24
MAX_SPLITS = 256
# Ids of tokens before those of the vocabulary: 0 is padding, 1 unknown.
RESERVED_IDS = 2
_MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
MAX_FLOAT32 = (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True)
class PlanOptions:
    """What the user decides; each option of the command line of the same name.

    Attributes:
        num_buckets: how many buckets at most; None chooses from the curve of padding.
        strategy: how the boundaries are found, one of `STRATEGIES`.
        boundaries: the inclusive max_lengths themselves, for the strategy `fixed`.
        align: max_lengths are rounded up to a multiple of this.
        max_length: rows with more steps are overlong; None allows any length.
        overlong: what becomes of overlong rows, one of `OVERLONG`.
        overlap: steps that a piece of an overlong row shares with the one before; with `split`.
        empty: what becomes of rows without a step, null or empty, `drop` or `error`.
        splits: name -> fraction of the rows; the fractions add up to 1.
        seed: of the row keys, which decide split, shard and order.
        shard_size: bytes that a shard should take at most on average.
        vocab_size: ids of a vocabulary at most, padding and unknown included; None takes all.
        min_count: rarer tokens are unknown.
        nan: a step with a NaN is `missing`, `keep` (an observed step that holds NaN) or `error`.
        fill: what stands at missing steps: `zero`, `forward`, `mean` (floats: of the training
            split), or a number; before normalisation.
        normalize: float sequence feature -> one of `NORMALIZATIONS`.
        split_by: column whose equal values all go to one split.
        split_column: column that names the split of each row.
        padding: the side of a row that is padded, `right` or `left`.
        pad_value: what stands in padding of numbers; the mask, not the value, says what it is.
        element_mask: a null or NaN element of a vector or matrix per step is masked by itself;
            otherwise its whole step is missing.
        canonical: write varints as short as they can be, as protobuf does, instead of giving all
            records of a bucket one size.
        compression: of the shards, `none` or `gzip`.
        max_rejected: faulty rows that are left out before the build fails: a number, as `10`, or a
            share of all rows, as `0.1%`.
    """

    num_buckets: int | None = None
    strategy: str = "optimal"
    boundaries: tuple[int, ...] = ()
    align: int = 8
    max_length: int | None = None
    overlong: str = "error"
    overlap: int = 0
    empty: str = "drop"
    splits: Mapping[str, float] = field(default_factory=lambda: {"train": 1.0})
    seed: int = 0
    shard_size: int = 64 << 20
    vocab_size: int | None = None
    min_count: int = 1
    nan: str = "missing"
    fill: str | float = "zero"
    normalize: Mapping[str, str] = field(default_factory=dict)
    split_by: str | None = None
    split_column: str | None = None
    padding: str = "right"
    pad_value: float = 0.0
    max_rejected: str = "0"
    element_mask: bool = False
    canonical: bool = False
    compression: str = "none"

    def __post_init__(self) -> None:
        _within("buckets", self.num_buckets, 1, MAX_LENGTH)
        _within("align", self.align, 1, MAX_LENGTH)
        _within("max-length", self.max_length, 1, MAX_LENGTH)
        _within("shard-size", self.shard_size, 1, MAX_INT64)
        _within("seed", self.seed, 0, MAX_INT64)
        _within("vocab-size", self.vocab_size, RESERVED_IDS + 1, _MAX_INT32)
        _within("min-count", self.min_count, 1, MAX_INT64)
        one_of("strategy", self.strategy, STRATEGIES)
        one_of("overlong", self.overlong, OVERLONG)
        one_of("empty", self.empty, EMPTY)
        one_of("padding", self.padding, SIDES)
        _finite("pad-value", self.pad_value)
        _within("overlap", self.overlap, 0, MAX_LENGTH)
        if self.overlong == "split" and self.max_length is None:
            raise PlanError("--overlong split needs --max-length")
        if self.overlap and (self.overlong != "split" or self.overlap >= (self.max_length or 0)):
            raise PlanError(
                f"--overlap is {self.overlap}; it must be below --max-length, with --overlong split"
            )
        one_of("nan", self.nan, NAN)
        one_of("compression", self.compression, COMPRESSIONS)
        if isinstance(self.fill, str):
            one_of("fill", self.fill, FILLS)
        else:
            _finite("fill", self.fill)
        for name, kind in self.normalize.items():
            one_of(f"normalize {name}", kind, NORMALIZATIONS)
        if self.split_by is not None and self.split_column is not None:
            raise PlanError("--split-by and --split-column exclude each other: give one")
        self.rejected_limit(0)
        if bool(self.boundaries) != (self.strategy == "fixed"):
            raise PlanError("--boundaries and --strategy fixed go together: give both or neither")
        if self.boundaries:
            check_max_lengths(self.boundaries, place="--boundaries")
        if not self.splits:
            raise PlanError("no split: give at least one, as in train=0.9,val=0.1")
        if len(self.splits) > MAX_SPLITS:
            raise PlanError(f"{len(self.splits)} splits are more than {MAX_SPLITS}: name fewer")
        for name, fraction in self.splits.items():
            check_split_name(name)
            if not 0 <= fraction <= 1:
                raise PlanError(f"split '{name}': the fraction {fraction} is not within [0, 1]")
        if not math.isclose(sum(self.splits.values()), 1.0, abs_tol=1e-9):
            raise PlanError(
                f"the fractions of the splits add up to {sum(self.splits.values()):g}, not to 1"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "num_buckets": self.num_buckets,
            "strategy": self.strategy,
            "boundaries": list(self.boundaries),
            "align": self.align,
            "max_length": self.max_length,
            "overlong": self.overlong,
            "overlap": self.overlap,
            "empty": self.empty,
            "splits": dict(sorted(self.splits.items())),
            "seed": self.seed,
            "shard_size": self.shard_size,
            "vocab_size": self.vocab_size,
            "min_count": self.min_count,
            "nan": self.nan,
            "fill": self.fill,
            "normalize": dict(sorted(self.normalize.items())),
            "split_by": self.split_by,
            "split_column": self.split_column,
            "padding": self.padding,
            "pad_value": self.pad_value,
            "max_rejected": self.max_rejected,
            "element_mask": self.element_mask,
            "canonical": self.canonical,
            "compression": self.compression,
        }

    def rejected_limit(self, rows: int) -> int:
        """How many of so many rows may be rejected.

        Example:
            >>> PlanOptions(max_rejected="1%").rejected_limit(250)
            2
        """
        match = re.fullmatch(r"(\d{1,18})|(\d{1,3}(?:\.\d{1,9})?)%", self.max_rejected)
        if match is None:
            raise PlanError(
                f"--max-rejected is {self.max_rejected!r}; write a number of rows, as 10, or a "
                "share of them, as 0.1%"
            )
        return int(match[1]) if match[1] else math.floor(rows * float(match[2]) / 100)

    @classmethod
    def from_json(cls, fields: Fields) -> PlanOptions:
        try:
            return cls(
                num_buckets=_optional(fields, "num_buckets"),
                strategy=fields.text("strategy"),
                boundaries=tuple(fields.integers("boundaries")),
                align=fields.integer("align"),
                max_length=_optional(fields, "max_length"),
                overlong=fields.text("overlong"),
                overlap=fields.integer("overlap"),
                empty=fields.text("empty"),
                splits={
                    name: fields.nested("splits").number(name)
                    for name in fields.nested("splits").members
                },
                seed=fields.integer("seed"),
                shard_size=fields.integer("shard_size"),
                vocab_size=_optional(fields, "vocab_size"),
                min_count=fields.integer("min_count"),
                nan=fields.text("nan"),
                fill=_fill(fields),
                normalize={
                    name: fields.nested("normalize").text(name)
                    for name in fields.nested("normalize").members
                },
                split_by=_optional_text(fields, "split_by"),
                split_column=_optional_text(fields, "split_column"),
                padding=fields.text("padding"),
                pad_value=float(fields.number("pad_value")),
                max_rejected=fields.text("max_rejected"),
                element_mask=fields.flag("element_mask"),
                canonical=fields.flag("canonical"),
                compression=_optional_text(fields, "compression") or "none",
            )
        except PlanError as reason:
            if str(reason).startswith(fields.place):
                raise
            raise fields.fail(str(reason)) from None


def check_max_lengths(max_lengths: tuple[int, ...], *, place: str) -> None:
    """Raises PlanError unless the boundaries are positive and ascend."""
    if not max_lengths:
        raise PlanError(f"{place}: there must be at least one bucket")
    for previous, current in zip((0, *max_lengths), max_lengths, strict=False):
        if not previous < current <= MAX_LENGTH:
            raise PlanError(
                f"{place} must ascend within [1, {MAX_LENGTH}]: {current} follows {previous}"
            )


def check_split_name(name: str) -> None:
    """Raises PlanError unless the name can be a folder's on every file system."""
    allowed = name.replace("_", "").replace("-", "")
    if not (allowed.isascii() and allowed.isalnum() and len(name) <= 64 and name[0].isalnum()):
        raise PlanError(f"{name!r} cannot name a split: use letters, digits, '-' and '_'")


def _fill(fields: Fields) -> str | float:
    value = fields.members.get("fill")
    return value if isinstance(value, str) else fields.number("fill")


def _optional_text(fields: Fields, name: str) -> str | None:
    return None if fields.members.get(name) is None else fields.text(name)


def _optional(fields: Fields, name: str) -> int | None:
    return None if fields.members.get(name) is None else fields.integer(name)


def _within(option: str, value: int | None, low: int, high: int) -> None:
    if value is not None and value < low:
        raise PlanError(f"--{option} is {value}; it must be at least {low}")
    if value is not None and value > high:
        raise PlanError(f"--{option} is {value}; it must be at most {high}")


def _finite(option: str, value: float) -> None:
    if not abs(value) <= MAX_FLOAT32:
        raise PlanError(f"--{option} is {value:g}; it must be a finite number of 32 bits")


def one_of(option: str, value: str, values: tuple[str, ...]) -> None:
    """Raises PlanError unless an option has one of its values."""
    if value not in values:
        raise PlanError(f"--{option} is {value!r}; it must be one of {', '.join(values)}")
