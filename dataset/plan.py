"""The plan: everything that a build decides from the whole input before it writes a record."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.dataset.document import Fields, read_document, to_json
from lengthwise.dataset.errors import PlanError, SchemaError
from lengthwise.dataset.record import RecordLayout, varint_width
from lengthwise.dataset.schema import Schema

PLAN_FORMAT = "lengthwise-plan"
PLAN_VERSION = 1

STRATEGIES = ("optimal", "quantile", "geometric", "width", "fixed")
OVERLONG = ("error", "drop", "truncate_end", "truncate_start")
EMPTY = ("drop", "error")
MAX_LENGTH = 1 << 24
MAX_SPLITS = 256
_MAX_INT64 = 2**63 - 1


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
        empty: what becomes of rows without a step, `drop` or `error`.
        splits: name -> fraction of the rows; the fractions add up to 1.
        seed: of the row keys, which decide split, shard and order.
        shard_size: bytes that a shard should take at most on average.
    """

    num_buckets: int | None = None
    strategy: str = "optimal"
    boundaries: tuple[int, ...] = ()
    align: int = 8
    max_length: int | None = None
    overlong: str = "error"
    empty: str = "drop"
    splits: Mapping[str, float] = field(default_factory=lambda: {"train": 1.0})
    seed: int = 0
    shard_size: int = 64 << 20

    def __post_init__(self) -> None:
        _within("buckets", self.num_buckets, 1, MAX_LENGTH)
        _within("align", self.align, 1, MAX_LENGTH)
        _within("max-length", self.max_length, 1, MAX_LENGTH)
        _within("shard-size", self.shard_size, 1, _MAX_INT64)
        _within("seed", self.seed, 0, _MAX_INT64)
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("overlong", self.overlong, OVERLONG)
        _one_of("empty", self.empty, EMPTY)
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
            "empty": self.empty,
            "splits": dict(self.splits),
            "seed": self.seed,
            "shard_size": self.shard_size,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> PlanOptions:
        members = fields.members
        try:
            return cls(
                num_buckets=None
                if members.get("num_buckets") is None
                else fields.integer("num_buckets"),
                strategy=fields.text("strategy"),
                boundaries=tuple(fields.integers("boundaries")),
                align=fields.integer("align"),
                max_length=None
                if members.get("max_length") is None
                else fields.integer("max_length"),
                overlong=fields.text("overlong"),
                empty=fields.text("empty"),
                splits={
                    name: fields.nested("splits").number(name)
                    for name in fields.nested("splits").members
                },
                seed=fields.integer("seed"),
                shard_size=fields.integer("shard_size"),
            )
        except PlanError as reason:
            if str(reason).startswith(fields.place):
                raise
            raise fields.fail(str(reason)) from None


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of one numeric feature over its observed values.

    Attributes:
        count: observed values.
        missing: values that are null or NaN, or belong to a step that is.
        mean, variance: of the observed values (population variance); 0 where there are none.
        low, high: smallest and largest observed value; 0 where there are none.
        values: label features of integers only: value -> rows (or steps), ascending; None where
            there are more than 4096 different values.
    """

    count: int
    missing: int
    mean: float
    variance: float
    low: float
    high: float
    values: Mapping[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "count": self.count,
            "missing": self.missing,
            "mean": self.mean,
            "variance": self.variance,
            "low": self.low,
            "high": self.high,
        }
        if self.values is not None:
            document["values"] = {str(value): rows for value, rows in self.values.items()}
        return document

    @classmethod
    def from_json(cls, fields: Fields) -> FeatureStatistics:
        values = None
        if "values" in fields.members:
            try:
                values = _by_integer(fields.counts("values"))
            except ValueError:
                raise fields.fail("'values' must map integers to counts") from None
        return cls(
            count=fields.integer("count"),
            missing=fields.integer("missing"),
            mean=fields.number("mean"),
            variance=fields.number("variance"),
            low=fields.number("low"),
            high=fields.number("high"),
            values=values,
        )


@dataclass(frozen=True)
class Plan:
    """Buckets, value ranges and splits of a dataset; `plan.json` on disk.

    Attributes:
        schema: the features.
        options: what the user decided.
        max_lengths: inclusive padded length of each bucket, ascending. They may be edited by hand:
            the number of shards and the layout of the records follow from them.
        histograms: split -> {length: rows}, over the rows that will be written.
        statistics: feature name -> statistics.
    """

    schema: Schema
    options: PlanOptions
    max_lengths: tuple[int, ...]
    histograms: Mapping[str, Mapping[int, int]]
    statistics: Mapping[str, FeatureStatistics]

    def __post_init__(self) -> None:
        check_max_lengths(self.max_lengths, place="max_lengths")
        for split in self.histograms:
            check_split_name(split)
        longest = max((max(h, default=0) for h in self.histograms.values()), default=0)
        if longest > self.max_lengths[-1]:
            raise PlanError(
                f"the longest row has {longest} steps, the last bucket ends at "
                f"{self.max_lengths[-1]}: plan again with --max-length {self.max_lengths[-1]} "
                "and an --overlong policy"
            )
        for feature in self.schema.features:
            if feature.name not in self.statistics:
                raise PlanError(f"statistics of feature '{feature.name}' are missing")
            low, high = self.statistics[feature.name].low, self.statistics[feature.name].high
            if feature.dtype == "int64" and not _is_integer_range(low, high):
                raise PlanError(
                    f"statistics of feature '{feature.name}': low {low} and high {high} are no "
                    "range of integers of 64 bits"
                )

    @property
    def widths(self) -> dict[str, int]:
        """Varint bytes of every integer feature."""
        return {
            feature.name: varint_width(
                int(self.statistics[feature.name].low), int(self.statistics[feature.name].high)
            )
            for feature in self.schema.features
            if feature.dtype == "int64"
        }

    def layout(self, max_length: int) -> RecordLayout:
        """The layout of the records of one bucket."""
        return RecordLayout.of(self.schema, max_length, self.widths)

    def bucket_rows(self, split: str) -> dict[int, int]:
        """max_length -> rows of a split, for all buckets."""
        rows = dict.fromkeys(self.max_lengths, 0)
        ends = iter(self.max_lengths)
        end = next(ends)
        for length in sorted(self.histograms.get(split, {})):
            while length > end:
                end = next(ends)
            rows[end] += self.histograms[split][length]
        return rows

    def shard_counts(self) -> dict[tuple[str, int], int]:
        """(split, max_length) -> number of shards, for every bucket that has rows."""
        counts = {}
        strides = {max_length: self.layout(max_length).stride for max_length in self.max_lengths}
        for split in sorted(self.histograms):
            for max_length, rows in self.bucket_rows(split).items():
                if rows:
                    size = rows * strides[max_length]
                    counts[split, max_length] = min(rows, -(-size // self.options.shard_size))
        return counts

    def padding_fraction(self, split: str | None = None) -> float:
        """Padded slots over all slots, of one split or of all."""
        if split is not None and split not in self.histograms:
            raise PlanError(f"no split '{split}'; there are: {', '.join(sorted(self.histograms))}")
        slots = steps = 0
        for name in self.histograms if split is None else [split]:
            slots += sum(end * rows for end, rows in self.bucket_rows(name).items())
            steps += sum(length * rows for length, rows in self.histograms[name].items())
        return 1 - steps / slots if slots else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "format": PLAN_FORMAT,
            "version": PLAN_VERSION,
            "schema": self.schema.to_json(),
            "options": self.options.to_json(),
            "max_lengths": list(self.max_lengths),
            "statistics": {
                name: self.statistics[name].to_json() for name in sorted(self.statistics)
            },
            "histograms": {
                split: {
                    str(length): rows for length, rows in sorted(self.histograms[split].items())
                }
                for split in sorted(self.histograms)
            },
        }

    def dumps(self) -> str:
        """The text of `plan.json`."""
        return to_json(self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Reads and checks a plan.

        Raises:
            PlanError: not a plan, of another version, or one that contradicts itself.
        """
        path = Path(path)
        fields = Fields(read_document(path, error=PlanError), place=str(path), error=PlanError)
        if fields.members.get("format") != PLAN_FORMAT:
            raise fields.fail("not a plan of Lengthwise; make one with `lengthwise plan`")
        if fields.integer("version") != PLAN_VERSION:
            raise fields.fail(
                f"version {fields.integer('version')} of the plan is not known here; plan again"
            )
        statistics = fields.nested("statistics")
        try:
            return cls(
                schema=Schema.from_json(fields.objects("schema")),
                options=PlanOptions.from_json(fields.nested("options")),
                max_lengths=tuple(fields.integers("max_lengths", low=1, high=MAX_LENGTH)),
                histograms={
                    split: _histogram(fields.nested("histograms").nested(split))
                    for split in fields.nested("histograms").members
                },
                statistics={
                    name: FeatureStatistics.from_json(statistics.nested(name))
                    for name in statistics.members
                },
            )
        except (PlanError, SchemaError) as reason:
            if str(reason).startswith(str(path)):
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


def _histogram(fields: Fields) -> dict[int, int]:
    try:
        histogram = _by_integer({length: fields.integer(length) for length in fields.members})
    except ValueError:
        raise fields.fail("must map lengths to rows") from None
    if histogram and not 0 < min(histogram) <= max(histogram) <= MAX_LENGTH:
        raise fields.fail(f"lengths must lie within [1, {MAX_LENGTH}]")
    return histogram


def _by_integer(counts: Mapping[str, int]) -> dict[int, int]:
    """Counts by integer; ValueError for a name that is not how the integer is written."""
    by_integer = {int(name): count for name, count in counts.items()}
    if [str(value) for value in by_integer] != list(counts):
        raise ValueError("not integers, or one of them twice")
    return by_integer


def _is_integer_range(low: float, high: float) -> bool:
    return -_MAX_INT64 - 1 <= low <= high <= _MAX_INT64 and low % 1 == high % 1 == 0


def _within(option: str, value: int | None, low: int, high: int) -> None:
    if value is not None and value < low:
        raise PlanError(f"--{option} is {value}; it must be at least {low}")
    if value is not None and value > high:
        raise PlanError(f"--{option} is {value}; it must be at most {high}")


def _one_of(option: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise PlanError(f"--{option} is {value!r}; it must be one of {', '.join(values)}")
