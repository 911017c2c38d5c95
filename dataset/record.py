"""The strided record: where every byte of a `tf.train.Example` stands when all have one size.

All records of a bucket hold the same features with the same number of values. Floats take four
bytes each; integers are written as varints of one fixed width per feature, padded with
continuation bits where a shorter varint would do. Protocol buffers allow that, so any parser reads
the record, and a whole shard is a matrix of bytes:

              | frame | Example, map entry of feature 0    | entry of feature 1 | …  | frame |
              | 12    | tags and sizes | payload of 0      | tags | payload     |    | 4     |
    record 0  | ····· | ·············· | ················· | ···· | ··········· |    | ····· |
    record 1  | ····· | ·············· | ················· | ···· | ··········· |    | ····· |
                                         ^ offset of 0            ^ offset of 1    <- stride ->

Only the payloads and the last four bytes differ from record to record; the rest is the template.

Source: protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding/),
`tensorflow/core/example/{example,feature}.proto`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lengthwise.dataset.errors import PlanError
from lengthwise.dataset.schema import LENGTH, MASK, RESERVED_SUFFIX, Feature, Schema
from lengthwise.dataset.tfrecord import FOOTER_BYTES, FRAME_BYTES, frame_header

FLOAT_BYTES = 4
# A varint of ten bytes holds 64 bits, which is what a negative integer takes.
MAX_VARINT_BYTES = 10
MAX_RECORD_BYTES = 1 << 30

_LENGTH_DELIMITED = 2
_FLOAT_LIST, _INT64_LIST = 2, 3


def varint_width(low: int, high: int) -> int:
    """Bytes that the varints of all integers in `[low, high]` fit into.

    Example:
        >>> [varint_width(0, 127), varint_width(0, 128), varint_width(-1, 5)]
        [1, 2, 10]
    """
    if low < 0:
        return MAX_VARINT_BYTES
    return max(1, -(-int(high).bit_length() // 7))


@dataclass(frozen=True)
class Field:
    """Where the values of one feature stand in a record.

    Attributes:
        name: of the feature, or `length`, `mask` or `<feature>__observed`.
        dtype: `float32` or `int64`, as stored.
        shape: of the decoded values of one record, padded steps first for sequences.
        width: bytes of one value: 4 for floats, the fixed varint width for integers.
        offset: of the first value, from the start of the framed record.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    width: int
    offset: int

    @property
    def is_mask(self) -> bool:
        """Whether the values are bools, stored as 0 and 1."""
        return self.name == MASK or self.name.endswith(RESERVED_SUFFIX)

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def payload(self) -> slice:
        """The bytes of all values within a framed record."""
        return slice(self.offset, self.offset + self.count * self.width)


@dataclass(frozen=True)
class RecordLayout:
    """The layout of the records of one bucket.

    Attributes:
        max_length: padded number of steps, T.
        fields: in the order in which they stand in the record.
        heads: for each field, the bytes between the payload of the one before and its own.
        canonical: True where the records on disk have varints as short as they can be, see
            `lengthwise.dataset.canonical`. What is said here of bytes is then the most they take.

    Example:
        >>> from lengthwise.dataset.schema import Feature, Schema
        >>> schema = Schema((Feature("tokens", "int64"),))
        >>> layout = RecordLayout.of(schema, 8, {"tokens": 2})
        >>> layout.stride, [(field.name, field.offset) for field in layout.fields]
        (89, [('length', 30), ('mask', 45), ('tokens', 69)])
    """

    max_length: int
    fields: tuple[Field, ...]
    heads: tuple[bytes, ...]
    canonical: bool = False

    @property
    def stride(self) -> int:
        """Bytes of a framed record, and so from one record to the next."""
        return self.fields[-1].payload.stop + FOOTER_BYTES

    @property
    def record_bytes(self) -> int:
        """Bytes of the `tf.train.Example` alone."""
        return self.stride - FRAME_BYTES

    @cached_property
    def template(self) -> bytes:
        """The framed record with zero payload; the final CRC is zero too."""
        template = bytearray()
        for field, head in zip(self.fields, self.heads, strict=True):
            template += head + bytes(field.count * field.width)
        return bytes(template) + bytes(FOOTER_BYTES)

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)

    @classmethod
    def of(
        cls,
        schema: Schema,
        max_length: int,
        widths: Mapping[str, int],
        *,
        canonical: bool = False,
    ) -> RecordLayout:
        """Lays out the records of a bucket.

        Args:
            schema: the features.
            max_length: padded number of steps.
            widths: varint bytes of every integer feature of the schema.
            canonical: whether varints are as short as they can be.

        Raises:
            PlanError: the record would be too large to be read back.
        """
        shapes: list[tuple[str, str, tuple[int, ...], int]] = [
            (LENGTH, "int64", (), varint_width(0, max_length)),
            (MASK, "int64", (max_length,), 1),
        ]
        for feature in schema.features:
            width = FLOAT_BYTES if feature.dtype == "float32" else widths[feature.name]
            shape = _padded_shape(feature, max_length)
            shapes.append((feature.name, feature.dtype, shape, width))
            if feature.element_mask:
                shapes.append((feature.observed_name, "int64", shape, 1))
        shapes.sort(key=lambda item: map_order(item[0]))
        total = sum(_size(shape, width) for _, _, shape, width in shapes)
        if total > MAX_RECORD_BYTES:
            raise PlanError(
                f"a record of {max_length} steps takes {total} bytes, more than "
                f"{MAX_RECORD_BYTES}: give a smaller --max-length"
            )
        heads = [
            entry_head(name, dtype, _size(shape, width)) for name, dtype, shape, width in shapes
        ]
        heads[0] = record_head(total + sum(len(head) for head in heads)) + heads[0]
        fields, end = [], 0
        for (name, dtype, shape, width), head in zip(shapes, heads, strict=True):
            fields.append(Field(name, dtype, shape, width, end + len(head)))
            end = fields[-1].payload.stop
        return cls(max_length, tuple(fields), tuple(heads), canonical)

    def decode_field(self, name: str, framed: np.ndarray) -> np.ndarray:
        """Reads the values of one feature of many records at once, without a parser.

        Args:
            name: of the feature, or `length` or `mask`.
            framed: (n, stride) uint8; frames are not checked.

        Returns:
            (n, …) float32 or int64, bool for masks.
        """
        field = self[name]
        return decode_payload(field, framed[:, field.payload])

    def decode(self, framed: np.ndarray) -> dict[str, np.ndarray]:
        """Reads all values of many records; see `decode_field`.

        Returns:
            name -> (n, …) for each feature, `length` and `mask`.
        """
        return {field.name: self.decode_field(field.name, framed) for field in self.fields}


def decode_payload(field: Field, payload: np.ndarray) -> np.ndarray:
    """Values of one feature of many records.

    Args:
        field: the feature.
        payload: (n, bytes) uint8.

    Returns:
        (n, …) float32 or int64, bool for masks.
    """
    shape = (len(payload), *field.shape)
    if field.is_mask:
        return payload.astype(np.bool_).reshape(shape)
    if field.dtype == "float32":
        return np.ascontiguousarray(payload).view("<f4").reshape(shape)
    return decode_varints(payload, field.width).reshape(shape)


def map_order(name: str) -> bytes:
    """What the features of a record are sorted by: the order of protobuf in Python.

    Names are compared byte by byte, and where one begins with the other the longer comes first.
    No byte of UTF-8 is 0xff, so a name that ends comes after all that go on.

    Source: upb, `upb/message/map_sorter.c`, which sorts the keys of a map for deterministic output.

    Example:
        >>> sorted(["a", "b", "ab"], key=map_order)
        ['ab', 'a', 'b']
    """
    return name.encode() + b"\xff"


def encode_varints(values: np.ndarray, width: int, out: np.ndarray) -> None:
    """Writes integers as varints of one fixed width.

    Args:
        values: (n, count) of any integer type, all within what `width` holds.
        width: bytes of each varint.
        out: (n, count * width) uint8, written in place; the bytes of a row are contiguous.
    """
    if width == 1:
        out[...] = values
        return
    groups = out.reshape(*values.shape, width)  # a view: the last axis of `out` is contiguous
    # Negative integers are sign-extended to 64 bits first, as the wire format asks.
    rest = values.astype(np.int64).view(np.uint64) if width > 4 else values.astype(np.uint32)
    for k in range(width - 1):
        low = rest.astype(np.uint8)
        low |= 0x80
        groups[..., k] = low
        rest >>= rest.dtype.type(7)
    groups[..., width - 1] = rest


def decode_varints(payload: np.ndarray, width: int) -> np.ndarray:
    """Reads varints of one fixed width.

    Args:
        payload: (n, count * width) uint8.

    Returns:
        (n, count) int64.

    Example:
        >>> out = np.empty((1, 4), np.uint8)
        >>> encode_varints(np.array([[5, 300]]), 2, out)
        >>> decode_varints(out, 2)
        array([[  5, 300]])
    """
    n, size = payload.shape
    if width == 1:
        return payload.astype(np.int64)
    groups = payload.reshape(n, size // width, width)
    # The last group is the most significant; ten bytes carry 70 bits, of which 6 fall away.
    values = groups[..., width - 1].astype(np.uint64)
    for k in range(width - 2, -1, -1):
        values <<= np.uint64(7)
        values |= groups[..., k] & np.uint8(0x7F)
    return values.view(np.int64)


def _padded_shape(feature: Feature, max_length: int) -> tuple[int, ...]:
    return (max_length, *feature.shape) if feature.sequence else feature.shape


def _size(shape: tuple[int, ...], width: int) -> int:
    return math.prod(shape) * width


def record_head(features_size: int) -> bytes:
    """The frame and the Example up to its first feature, of `features_size` bytes in all."""
    features = _tag(1, _LENGTH_DELIMITED) + _varint(features_size)
    return frame_header(len(features) + features_size) + features


def entry_head(name: str, dtype: str, size: int) -> bytes:
    """One entry of the feature map up to its payload of `size` bytes."""
    values = _tag(1, _LENGTH_DELIMITED) + _varint(size)
    value_list = _tag(
        _FLOAT_LIST if dtype == "float32" else _INT64_LIST, _LENGTH_DELIMITED
    ) + _varint(len(values) + size)
    key = name.encode()
    value_size = len(value_list) + len(values) + size
    head = _tag(1, _LENGTH_DELIMITED) + _varint(len(key)) + key
    head += _tag(2, _LENGTH_DELIMITED) + _varint(value_size) + value_list + values
    return _tag(1, _LENGTH_DELIMITED) + _varint(len(head) + size) + head


def _tag(number: int, wire_type: int) -> bytes:
    return bytes([number << 3 | wire_type])


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
