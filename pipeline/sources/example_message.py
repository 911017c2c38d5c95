"""One `tf.train.Example` or `SequenceExample`, parsed by the letter of the specification.

This is the slow road, for records that `wire` calls odd and for the first records of a file. What
it refuses is no such message. Source: TensorFlow, `example.proto` and `feature.proto`:

    Example          { Features features = 1; }
    SequenceExample  { Features context = 1; FeatureLists feature_lists = 2; }
    Features         { map<string, Feature> feature = 1; }
    FeatureLists     { map<string, FeatureList> feature_list = 1; }
    FeatureList      { repeated Feature feature = 1; }
    Feature          { oneof kind { BytesList = 1; FloatList = 2; Int64List = 3; } }
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lengthwise.pipeline.sources.wire import decode_varints

BYTES, FLOAT, INT64 = 1, 2, 3
CONTEXT, FEATURE_LISTS = 1, 2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class FeatureValue:
    """What a `Feature` holds.

    Attributes:
        kind: `BYTES`, `FLOAT`, `INT64`, or 0 where there is none.
        values: list of bytes, (n,) float32 or (n,) int64.
    """

    kind: int
    values: list[bytes] | np.ndarray

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class ExampleValue:
    """What a record holds.

    Attributes:
        features: those of an `Example`, the context of a `SequenceExample`.
        lists: the feature lists of a `SequenceExample`, a feature per step.
    """

    features: dict[bytes, FeatureValue] = field(default_factory=dict)
    lists: dict[bytes, list[FeatureValue]] = field(default_factory=dict)


def parse_example(data: bytes, names: Container[bytes] | None = None) -> ExampleValue:
    """Parses a record.

    Args:
        data: the record.
        names: of the features that are looked into; None looks into all.

    Raises:
        ValueError: it is neither an `Example` nor a `SequenceExample`.
    """
    example = ExampleValue()
    for number, message in _messages(data):
        if number == CONTEXT:
            for key, value in _entries(message):
                if names is None or key in names:
                    example.features[key] = _feature(value)
        elif number == FEATURE_LISTS:
            for key, value in _entries(message):
                if names is None or key in names:
                    example.lists[key] = [
                        _feature(step) for number, step in _messages(value) if number == 1
                    ]
    return example


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    for number, entry in _messages(data):
        if number != 1:
            continue
        key = value = b""
        for part, inner in _messages(entry):
            if part == 1:
                key = inner
            elif part == 2:
                # Two values of an entry are merged, which for messages is one after the other.
                value += inner
        yield key, value


def _feature(data: bytes) -> FeatureValue:
    kind, parts = 0, []
    for number, message in _messages(data):
        if number in (BYTES, FLOAT, INT64):
            # Of a oneof, the last counts; parts of the same are merged.
            parts = [*parts, message] if number == kind else [message]
            kind = number
    items = [item for part in parts for item in _fields(part) if item[0] == 1]
    if kind in (0, BYTES):
        return FeatureValue(kind, [value for _, wire, value in items if wire == _BYTES])
    dtype = np.float32 if kind == FLOAT else np.int64
    arrays = [np.zeros(0, dtype), *(_numbers(wire, value, kind) for _, wire, value in items)]
    return FeatureValue(kind, np.concatenate(arrays))


def _numbers(wire: int, value: Any, kind: int) -> np.ndarray:
    """Packed numbers, or one that stands alone."""
    if kind == INT64:
        if wire == _VARINT:
            return np.array([value], np.uint64).view(np.int64)
        if wire == _BYTES:
            return decode_varints(np.frombuffer(value, np.uint8))[0]
    elif wire in (_FIXED32, _BYTES):
        if len(value) % 4:
            raise ValueError("floats that are not whole")
        return np.frombuffer(value, "<f4")
    # Of another wire type it is another field, which nobody knows.
    return np.zeros(0, np.float32 if kind == FLOAT else np.int64)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    for number, wire, value in _fields(data):
        if wire == _BYTES:
            yield number, value


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field: an int for varints, bytes for all others."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"a field has the number {number}")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(data):
            raise ValueError("a field reaches past its message")
        yield number, wire, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is not whole")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (2**64 - 1), at
