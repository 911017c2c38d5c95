"""The plan: everything that a build decides from the whole input before it writes a record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lengthwise.dataset.document import Fields, read_document, to_json
from lengthwise.dataset.errors import PlanError, SchemaError
from lengthwise.dataset.options import (
    MAX_INT64,
    MAX_LENGTH,
    NORMALIZATIONS,
    RESERVED_IDS,
    PlanOptions,
    check_max_lengths,
    check_split_name,
    one_of,
)
from lengthwise.dataset.reading import SourceOptions
from lengthwise.dataset.record import RecordLayout, varint_width
from lengthwise.dataset.schema import NUMBERS, TOKENS, Schema
from lengthwise.dataset.storage import RemotePath

PLAN_FORMAT = "lengthwise-plan"
PLAN_VERSION = 1


@dataclass(frozen=True)
class Normalization:
    """Constants of a feature: y = (x - shift) * scale, or y = log(1 + x).

    Attributes:
        kind: one of `NORMALIZATIONS`.
        shift, scale: one number for each value of a step.
    """

    kind: str
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, fields: Fields) -> Normalization:
        kind = fields.text("kind")
        one_of("normalize", kind, NORMALIZATIONS)
        return cls(kind, tuple(fields.numbers("shift")), tuple(fields.numbers("scale")))


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
        statistics: feature name -> statistics; of the ids where a feature was strings.
        vocabularies: feature name -> its strings in the order of their ids; tokens begin with id
            2, after padding and unknown, classes with 0.
        normalizations: feature name -> constants, from observed steps of the training split.
        means: float sequence -> mean of each value of a step, likewise; where what is missing is
            filled by the mean.
        reading: how the files of the input are read, as `SourceOptions.planned`; None where the
            input was no files, or the plan is older than this.
    """

    schema: Schema
    options: PlanOptions
    max_lengths: tuple[int, ...]
    histograms: Mapping[str, Mapping[int, int]]
    statistics: Mapping[str, FeatureStatistics]
    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    normalizations: Mapping[str, Normalization] = field(default_factory=dict)
    means: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    reading: SourceOptions | None = None

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
        for feature in self.schema.strings:
            if feature.name not in self.vocabularies:
                raise PlanError(f"the vocabulary of feature '{feature.name}' is missing")
            check_vocabulary(self.vocabularies[feature.name], place=f"feature '{feature.name}'")
        for name, constants in self.normalizations.items():
            size = self.schema[name].size
            if not len(constants.shift) == len(constants.scale) == size:
                raise PlanError(f"feature '{name}': {size} constants of normalisation are needed")
        for name, means in self.means.items():
            if len(means) != self.schema[name].size:
                raise PlanError(f"feature '{name}': {self.schema[name].size} means are needed")
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
        widths = {}
        for feature in self.schema.features:
            if feature.encoding != NUMBERS:
                widths[feature.name] = varint_width(0, self.num_ids(feature.name) - 1)
            elif feature.dtype == "int64":
                found = self.statistics[feature.name]
                widths[feature.name] = varint_width(int(found.low), int(found.high))
        return widths

    def num_ids(self, name: str) -> int:
        """How many ids a feature of strings has, padding and unknown included."""
        reserved = RESERVED_IDS if self.schema[name].encoding == TOKENS else 0
        return reserved + len(self.vocabularies[name])

    def layout(self, max_length: int) -> RecordLayout:
        """The layout of the records of one bucket."""
        canonical = self.options.canonical
        return RecordLayout.of(self.schema, max_length, self.widths, canonical=canonical)

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
            **({} if self.reading is None else {"reading": self.reading.to_json()}),
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
            "vocabularies": {
                name: list(self.vocabularies[name]) for name in sorted(self.vocabularies)
            },
            "normalizations": {
                name: self.normalizations[name].to_json() for name in sorted(self.normalizations)
            },
            "means": {name: list(self.means[name]) for name in sorted(self.means)},
        }

    def dumps(self) -> str:
        """The text of `plan.json`."""
        return to_json(self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str] | RemotePath) -> Plan:
        """Reads and checks a plan.

        Raises:
            PlanError: not a plan, of another version, or one that contradicts itself.
        """
        fields = Fields(read_document(path, error=PlanError), place=str(path), error=PlanError)
        if fields.members.get("format") != PLAN_FORMAT:
            raise fields.fail("not a plan of Lengthwise; make one with `lengthwise plan`")
        if fields.integer("version") != PLAN_VERSION:
            raise fields.fail(
                f"version {fields.integer('version')} of the plan is not known here; plan again"
            )
        statistics = fields.nested("statistics")
        vocabularies = fields.nested("vocabularies")
        normalizations = fields.nested("normalizations")
        means = fields.nested("means")
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
                vocabularies={
                    name: tuple(vocabularies.texts(name)) for name in vocabularies.members
                },
                normalizations={
                    name: Normalization.from_json(normalizations.nested(name))
                    for name in normalizations.members
                },
                means={name: tuple(means.numbers(name)) for name in means.members},
                reading=(
                    SourceOptions.from_json(fields.nested("reading"))
                    if "reading" in fields.members
                    else None
                ),
            )
        except (PlanError, SchemaError) as reason:
            if str(reason).startswith(str(path)):
                raise
            raise fields.fail(str(reason)) from None


def check_vocabulary(strings: Sequence[str], *, place: str) -> None:
    """Raises PlanError where a string stands twice."""
    if len(set(strings)) != len(strings):
        seen: set[str] = set()
        twice = next(string for string in strings if string in seen or seen.add(string))
        raise PlanError(f"{place}: {twice!r} stands in the vocabulary twice; keep one")


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
    return -MAX_INT64 - 1 <= low <= high <= MAX_INT64 and low % 1 == high % 1 == 0
