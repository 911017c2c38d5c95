"""How input files are read: what the user says where the files do not say it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pyarrow as pa

from lengthwise.dataset.document import Fields
from lengthwise.dataset.errors import UsageError

FORMATS = ("parquet", "arrow", "hf", "jsonl", "csv", "tsv", "text", "tfrecord")
TOKENS = ("whitespace", "characters", "bytes")
DECLARED_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
_MAX_SIZE = 1 << 24
_MAX_DEPTH = 16

# What a plan does not hold: the schema says the roles, and how a file is cut changes nothing.
_NOT_PLANNED = ("sequences", "contexts", "unit_bytes")
# Options of the command line that are called otherwise.
OPTION_NAMES = {"types": "type", "shapes": "shape"}


@dataclass(frozen=True)
class SourceOptions:
    """How input files are read.

    Attributes:
        format: one of `FORMATS`; None tells it from each file.
        tokens: what the steps of a line of text are: `whitespace` (words), `characters`, or
            `bytes` (ids from 0 to 255).
        group_by: CSV in long form: the column that says which lines are one row.
        order_by: CSV in long form: the column that orders the lines of a row.
        types: column -> `int`, `float`, `bool` or `string`, for formats that do not say it; the
            types of other columns are inferred.
        shapes: column -> shape of one step (of the whole column where it has one value a row), for
            formats that do not say it themselves.
        sequences: columns known to have a value per step, for formats that leave it open.
        contexts: columns known to have one value per row.
        max_row_bytes: rows that take more are broken.
        unit_bytes: bytes of a unit, where the format leaves the choice; never changes the result.

    Raises:
        UsageError: an option cannot mean anything.
    """

    format: str | None = None
    tokens: str = "whitespace"
    group_by: str | None = None
    order_by: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sequences: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    max_row_bytes: int = 64 << 20
    unit_bytes: int = 32 << 20

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise UsageError(f"format {self.format!r} is none of {', '.join(FORMATS)}")
        if self.tokens not in TOKENS:
            raise UsageError(f"tokens {self.tokens!r} are none of {', '.join(TOKENS)}")
        if self.order_by is not None and self.group_by is None:
            raise UsageError("--order-by orders the lines of a group: give --group-by as well")
        for name, type_ in self.types.items():
            if type_ not in DECLARED_TYPES:
                raise UsageError(
                    f"type {type_!r} of {name!r} is none of {', '.join(DECLARED_TYPES)}"
                )
        for name, shape in self.shapes.items():
            if len(shape) > _MAX_DEPTH or not all(1 <= size < _MAX_SIZE for size in shape):
                raise UsageError(
                    f"shape {shape[:_MAX_DEPTH]} of {name!r}: sizes are integers from 1, below "
                    f"{_MAX_SIZE}, at most {_MAX_DEPTH} of them"
                )
        if self.max_row_bytes < 1 or self.unit_bytes < 1:
            raise UsageError("max_row_bytes and unit_bytes must be at least 1")

    @property
    def planned(self) -> SourceOptions:
        """What of it a plan holds: all that the input does not say again when it is built."""
        defaults = {f.name: f.default for f in fields(self) if f.name in _NOT_PLANNED}
        return replace(self, **defaults)

    def to_json(self) -> dict[str, Any]:
        """All that decides which rows are read, and as what, beside the roles of the columns."""
        return {
            "format": self.format,
            "tokens": self.tokens,
            "group_by": self.group_by,
            "order_by": self.order_by,
            "types": dict(sorted(self.types.items())),
            "shapes": {name: list(self.shapes[name]) for name in sorted(self.shapes)},
            "max_row_bytes": self.max_row_bytes,
        }

    @classmethod
    def from_json(cls, document: Fields) -> SourceOptions:
        """What `to_json` has written.

        Raises:
            LengthwiseError: of the document's kind, where it is malformed.
        """
        types, shapes = document.nested("types"), document.nested("shapes")
        try:
            return cls(
                format=document.optional_text("format"),
                tokens=document.text("tokens"),
                group_by=document.optional_text("group_by"),
                order_by=document.optional_text("order_by"),
                types={name: types.text(name) for name in types.members},
                shapes={name: tuple(shapes.integers(name)) for name in shapes.members},
                max_row_bytes=document.integer("max_row_bytes"),
            )
        except UsageError as reason:
            raise document.fail(str(reason)) from None

    def agreed_with(self, planned: SourceOptions | None) -> SourceOptions:
        """These options, unless they contradict those of a plan; None where a plan has none.

        Raises:
            UsageError: names the option that is another in the plan.

        Example:
            >>> SourceOptions(tokens="bytes").agreed_with(SourceOptions(tokens="bytes")).tokens
            'bytes'
        """
        mine, theirs = self.to_json(), {} if planned is None else planned.to_json()
        for name, value in theirs.items():
            if mine[name] != value:
                option = OPTION_NAMES.get(name, name.replace("_", "-"))
                raise UsageError(
                    f"--{option} is {mine[name]!r}, in the plan it is {value!r}; leave it out, or "
                    "plan again"
                )
        return self
