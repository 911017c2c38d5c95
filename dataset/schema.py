"""The features of a dataset: their names, types and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lengthwise.dataset.document import Fields
from lengthwise.dataset.errors import LengthwiseError, SchemaError
from lengthwise.dataset.nested import is_list, shape_of

# Names that every record carries beside the user's features.
LENGTH = "length"
MASK = "mask"
RESERVED_SUFFIX = "__observed"

DTYPES = ("float32", "int64")
# What the values of a feature are: numbers as they are, ids of tokens (0 padding, 1 unknown), or
# ids of classes (from 0).
NUMBERS, TOKENS, CLASSES = "numbers", "tokens", "classes"
MAX_STEP_VALUES = 1 << 24


@dataclass(frozen=True)
class Feature:
    """One feature of a row.

    Attributes:
        name: the column it comes from and the key it has in a record.
        dtype: `float32` or `int64`, as stored. Floats of other sizes become float32; integers of
            all sizes and bools become int64.
        shape: of one step for a sequence feature, of the whole feature otherwise; `()` is a scalar.
        sequence: True where it has a value per step, False where it has one per row.
        label: True where it is what a model should predict.
        encoding: `numbers`, or how strings became int64: `tokens`, the ids of a vocabulary (0 is
            padding, 1 unknown), or `classes`, numbered from 0. The strings are in the plan.
        element_mask: True where each element of a step can be missing by itself; which of them
            were observed is then a feature of its own, `observed_name`.

    Example:
        >>> Feature("frames", "float32", (12,), sequence=True).describe()
        'frames: float32 (steps, 12)'
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    sequence: bool = True
    label: bool = False
    encoding: str = NUMBERS
    element_mask: bool = False

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            raise SchemaError(f"{self.name!r} cannot name a feature: give it a printable name")
        if self.name in (LENGTH, MASK) or self.name.endswith(RESERVED_SUFFIX):
            raise SchemaError(
                f"feature '{self.name}': the name is taken by Lengthwise; rename the column"
            )
        if self.dtype not in DTYPES:
            raise SchemaError(f"feature '{self.name}': dtype {self.dtype!r} is none of {DTYPES}")
        if any(size < 1 for size in self.shape) or self.size > MAX_STEP_VALUES:
            raise SchemaError(f"feature '{self.name}': shape {self.shape} cannot be stored")
        if self.encoding not in (NUMBERS, TOKENS, CLASSES) or (
            self.encoding != NUMBERS and self.dtype != "int64"
        ):
            raise SchemaError(
                f"feature '{self.name}': the encoding {self.encoding!r} does not exist for "
                f"{self.dtype}"
            )
        if self.element_mask and not (self.sequence and self.shape):
            raise SchemaError(
                f"feature '{self.name}': only a sequence of vectors has a mask of elements"
            )

    @property
    def observed_name(self) -> str:
        """Name of the feature that says which elements were observed."""
        return f"{self.name}{RESERVED_SUFFIX}"

    @property
    def channel(self) -> Feature:
        """One value of each step, as a feature of its own."""
        return replace(self, shape=(), element_mask=False)

    @property
    def size(self) -> int:
        """Number of values in one step (sequence) or in the whole feature."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """The feature as it stands in a document."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "sequence": self.sequence,
            "label": self.label,
            "encoding": self.encoding,
            "element_mask": self.element_mask,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Feature:
        """Reads what `to_json` wrote.

        Raises:
            LengthwiseError: the error of `fields` where it is malformed or cannot be stored.
        """
        try:
            return cls(
                name=fields.text("name"),
                dtype=fields.text("dtype"),
                shape=tuple(fields.integers("shape", low=1, high=MAX_STEP_VALUES)),
                sequence=fields.take("sequence", bool),
                label=fields.take("label", bool),
                encoding=fields.text("encoding"),
                element_mask=fields.flag("element_mask"),
            )
        except SchemaError as reason:
            raise fields.fail(str(reason)) from None

    def describe(self) -> str:
        """For people: `frames: float32 (steps, 12)`."""
        axes = (["steps"] if self.sequence else []) + [str(size) for size in self.shape]
        shape = f"({', '.join(axes)}{',' if len(axes) == 1 else ''})" if axes else "scalar"
        words = [self.dtype, shape]
        words += [self.encoding] if self.encoding != NUMBERS else []
        words += ["label"] if self.label else []
        words += ["with element mask"] if self.element_mask else []
        return f"{self.name}: {' '.join(words)}"


@dataclass(frozen=True)
class Schema:
    """The features of every row of a dataset, in the order of their names.

    Example:
        >>> import pyarrow as pa
        >>> columns = pa.schema([("frames", pa.list_(pa.list_(pa.float32(), 12))),
        ...                      ("speaker", pa.int64())])
        >>> print(Schema.from_arrow(columns, sequences=["frames"], labels=["speaker"]))
        frames: float32 (steps, 12)
        speaker: int64 scalar label
    """

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if names != sorted(set(names), key=str.encode):
            raise SchemaError(f"feature names must be unique and sorted, found {names}")
        if not self.sequences:
            raise SchemaError("no sequence feature: name at least one with --sequence")

    @property
    def sequences(self) -> tuple[Feature, ...]:
        """Features with a value per step, a per-step label among them."""
        return tuple(feature for feature in self.features if feature.sequence)

    @property
    def contexts(self) -> tuple[Feature, ...]:
        """Features with a value per row, a label per row among them."""
        return tuple(feature for feature in self.features if not feature.sequence)

    @property
    def labels(self) -> tuple[Feature, ...]:
        """Features that a model should predict."""
        return tuple(feature for feature in self.features if feature.label)

    @property
    def strings(self) -> tuple[Feature, ...]:
        """Features that are strings in the input and ids in the dataset."""
        return tuple(feature for feature in self.features if feature.encoding != NUMBERS)

    @property
    def as_numbers(self) -> Schema:
        """The same features once their strings are ids."""
        return Schema(tuple(replace(feature, encoding=NUMBERS) for feature in self.features))

    @property
    def with_element_masks(self) -> Schema:
        """The same features, each element of a vector or matrix per step masked by itself."""
        return Schema(
            tuple(
                replace(feature, element_mask=feature.sequence and feature.shape != ())
                for feature in self.features
            )
        )

    @property
    def element_masked(self) -> tuple[Feature, ...]:
        """Features with a mask of elements."""
        return tuple(feature for feature in self.features if feature.element_mask)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise SchemaError(f"no feature '{name}'; there are: {', '.join(self.names)}")

    def __str__(self) -> str:
        return "\n".join(feature.describe() for feature in self.features)

    @classmethod
    def from_arrow(
        cls,
        columns: pa.Schema,
        *,
        sequences: Sequence[str] | None = None,
        labels: Sequence[str] = (),
        contexts: Sequence[str] = (),
        place: str = "input",
    ) -> Schema:
        """Infers the schema from the columns of the input.

        Args:
            columns: Arrow schema of the input. A variable-length list is a sequence; its items
                are scalars, fixed-size lists (vectors) or fixed-size lists of those (matrices).
            sequences: columns that are sequence features; None takes every variable-length list
                that is not named otherwise.
            labels: columns to predict, per row or per step.
            contexts: columns with one value (scalar or fixed-size list) per row.
            place: the file that the columns come from, for messages.

        Raises:
            SchemaError: a column is missing, named twice, or of a type that cannot be stored.
        """
        if sequences is None:
            sequences = [
                column.name
                for column in columns
                if is_list(column.type) and column.name not in (*labels, *contexts)
            ]
            _require(
                any(is_list(column.type) for column in columns),
                f"{place}: no column is a list, so there is no sequence; "
                f"columns are: {', '.join(columns.names)}",
            )
        asked = [*sequences, *labels, *contexts]
        for name in asked:
            _require(
                name in columns.names,
                f"{place}: no column '{name}'; columns are: {', '.join(columns.names)}",
            )
            _require(
                columns.names.count(name) == 1, f"{place}: more than one column named '{name}'"
            )
            _require(
                asked.count(name) == 1,
                f"'{name}' is named more than once among --sequence, --label and --context",
            )
        features = [
            feature_from_arrow(columns.field(name), label=name in labels, place=place)
            for name in sorted(asked, key=str.encode)
        ]
        for feature in features:
            if feature.name in sequences and not feature.sequence:
                raise SchemaError(
                    f"{place}: column '{feature.name}' is {columns.field(feature.name).type}, "
                    "not a list of steps; name it with --context or --label"
                )
            if feature.name in contexts and feature.sequence:
                raise SchemaError(
                    f"{place}: column '{feature.name}' is {columns.field(feature.name).type}, "
                    "a list of steps; name it with --sequence"
                )
        return cls(tuple(features))

    def to_json(self) -> list[dict[str, Any]]:
        return [feature.to_json() for feature in self.features]

    @classmethod
    def from_json(cls, items: Iterable[Fields]) -> Schema:
        """Reads what `to_json` wrote.

        Raises:
            LengthwiseError: the error of `items` where one is malformed or cannot be stored,
                SchemaError where they cannot be the features of one dataset.
        """
        return cls(tuple(map(Feature.from_json, items)))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SchemaError(message)


def feature_from_arrow(column: pa.Field, *, label: bool, place: str) -> Feature:
    """The feature that one Arrow column makes.

    Raises:
        SchemaError: names `place`, the column and its type where it cannot be stored.
    """
    sequence, shape, type_ = shape_of(column.type)
    encoding = NUMBERS
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_floating(type_):
        dtype = "float32"
    elif pa.types.is_string(type_) or pa.types.is_large_string(type_):
        dtype, encoding = "int64", CLASSES if label else TOKENS
    elif pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        dtype = "int64"
    else:
        raise SchemaError(_unfit(column, type_, place))
    try:
        return Feature(
            column.name,
            dtype,
            shape,
            sequence=sequence,
            label=label,
            encoding=encoding,
        )
    except LengthwiseError as reason:
        raise SchemaError(f"{place}: {reason}") from None


def _unfit(column: pa.Field, type_: pa.DataType, place: str) -> str:
    where = f"{place}: column '{column.name}' is {column.type}"
    if is_list(type_):
        return f"{where}: steps of varying size cannot be stored; use fixed_size_list for vectors"
    return f"{where}: {type_} cannot be stored; give numbers, bools or strings"
