"""The canonical record: the strided one with every varint as short as it can be.

Its bytes are those of `Example.SerializeToString(deterministic=True)`, so records differ in size:

    strided     | head | 85 00 80 80 00 | …      one size for all, a shard is a matrix
    canonical   | head | 05 00 | …               sizes in the heads change with the payload

Only features of integers that take more than a byte vary; where they stand follows from the size of
their entry in the feature map, which is all that has to be read before a record can be decoded.

Source: protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lengthwise.dataset.errors import CorruptDataError
from lengthwise.dataset.record import (
    MAX_VARINT_BYTES,
    Field,
    RecordLayout,
    decode_payload,
    entry_head,
    record_head,
)
from lengthwise.dataset.spans import span_index
from lengthwise.dataset.tfrecord import FOOTER_BYTES, FRAME_BYTES, HEADER_BYTES, masked_crcs

_DAMAGED = "a record does not have the layout of its bucket; build the dataset again"
_cached_entry_head = lru_cache(maxsize=1 << 14)(entry_head)


@dataclass(frozen=True)
class FramedRecords:
    """Framed records of different sizes, one after another.

    Attributes:
        flat: (bytes,) uint8: as they stand in a TFRecord file.
        ends: (n,) int64, where each ends.
    """

    flat: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def data(self) -> memoryview:
        """The bytes."""
        return self.flat.data

    @property
    def starts(self) -> np.ndarray:
        """(n,) int64, where each begins."""
        return np.concatenate((np.zeros(1, np.int64), self.ends))[: len(self.ends)]

    def head(self, count: int) -> FramedRecords:
        """The first records."""
        ends = self.ends[:count]
        return FramedRecords(self.flat[: int(ends[-1]) if len(ends) else 0], ends)


def canonical_records(framed: np.ndarray, layout: RecordLayout) -> FramedRecords:
    """Shortens the varints of strided records, and frames them anew.

    Args:
        framed: (n, layout.stride) uint8; the frames are not read.
        layout: of these records.

    Example:
        >>> from lengthwise.dataset.record import encode_varints
        >>> from lengthwise.dataset.schema import Feature, Schema
        >>> layout = RecordLayout.of(Schema((Feature("ids", "int64"),)), 2, {"ids": 2})
        >>> framed = np.frombuffer(layout.template, np.uint8)[None].copy()
        >>> encode_varints(np.array([[5, 300]]), 2, framed[:, layout["ids"].payload])
        >>> records = canonical_records(framed, layout)
        >>> layout.stride, records.ends
        (68, array([67]))
        >>> decode_records(records, layout, [layout["ids"]])
        [array([[  5, 300]])]
    """
    n = len(framed)
    if n == 0:
        return FramedRecords(np.zeros(0, np.uint8), np.zeros(0, np.int64))
    payloads = [_Payload.of(framed, field) for field in layout.fields]
    heads = [
        _Heads.of(
            payload.sizes,
            lambda size, field=field: _cached_entry_head(field.name, field.dtype, size),
        )
        for field, payload in zip(layout.fields, payloads, strict=True)
    ]
    inside = np.zeros(n, np.int64)
    for head, payload in zip(heads, payloads, strict=True):
        inside += head.sizes + payload.sizes
    record = _Heads.of(inside, record_head)
    ends = np.cumsum(record.sizes + inside + FOOTER_BYTES)
    flat = np.empty(int(ends[-1]), np.uint8)
    at = record.put(flat, ends - (record.sizes + inside + FOOTER_BYTES))
    for head, payload in zip(heads, payloads, strict=True):
        at = payload.put(flat, head.put(flat, at))
    records = FramedRecords(flat, ends)
    crcs = masked_crcs(flat, records.starts + HEADER_BYTES, at)
    _put(flat, at, crcs.astype("<u4").view(np.uint8).reshape(n, FOOTER_BYTES))
    return records


@dataclass(frozen=True)
class _Payload:
    """The payloads of one feature: rows of one size, or all bytes where sizes differ."""

    sizes: np.ndarray  # (n,) int64
    rows: np.ndarray | None
    flat: np.ndarray | None

    @classmethod
    def of(cls, framed: np.ndarray, field: Field) -> _Payload:
        n, rows = len(framed), framed[:, field.payload]
        if not _varies(field):
            return cls(np.full(n, rows.shape[1], np.int64), rows, None)
        groups = rows.reshape(n, field.count, field.width)
        kept = np.ones((n, field.count, field.width), np.bool_)
        # A group is kept if it or a more significant one is not zero; the first one always is.
        kept[..., -1] = groups[..., -1] != 0
        for k in range(field.width - 2, 0, -1):
            np.not_equal(groups[..., k] & 0x7F, 0, out=kept[..., k])
            kept[..., k] |= kept[..., k + 1]
        # The last group that is kept does not say that another follows.
        short = groups & 0x7F
        short[..., :-1] |= kept[..., 1:].view(np.uint8) << 7
        sizes = np.count_nonzero(kept, axis=(1, 2)).astype(np.int64)
        return cls(sizes, None, short[kept])

    def put(self, out: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Writes the payloads to where they belong; returns where they end."""
        if self.rows is not None:
            _put(out, at, self.rows)
        else:
            out[span_index(at, self.sizes)] = self.flat
        return at + self.sizes


@dataclass(frozen=True)
class _Heads:
    """What stands before payloads; it follows from their sizes, of which few are different."""

    sizes: np.ndarray  # (n,) int64, bytes of the head of each record
    groups: list[tuple[np.ndarray, np.ndarray]]  # records whose heads have one size, their heads

    @classmethod
    def of(cls, payload_sizes: np.ndarray, head_of: Callable[[int], bytes]) -> _Heads:
        distinct, which = np.unique(payload_sizes, return_inverse=True)
        heads = [head_of(size) for size in distinct.tolist()]
        lengths = np.array([len(head) for head in heads], np.int64)
        sizes = lengths[which]
        groups = []
        for length in sorted(set(lengths.tolist())):
            table = b"".join(head.ljust(length, b"\0")[:length] for head in heads)
            table = np.frombuffer(table, np.uint8).reshape(-1, length)
            rows = np.flatnonzero(sizes == length)
            groups.append((rows, table[which[rows]]))
        return cls(sizes, groups)

    def put(self, out: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Writes the heads to where they belong; returns where they end."""
        for rows, heads in self.groups:
            _put(out, at[rows], heads)
        return at + self.sizes


def _put(out: np.ndarray, at: np.ndarray, rows: np.ndarray) -> None:
    """Writes rows (n, w) of bytes to any places `at` (n,) of `out`; each is moved as one value."""
    width = rows.shape[1]
    windows = _windows(out, width)
    windows[at] = np.ascontiguousarray(rows).view(windows.dtype).reshape(-1)


def _windows(flat: np.ndarray, width: int) -> np.ndarray:
    """The `width` bytes from each position on, (bytes - width + 1,) void; nothing is copied."""
    value = np.dtype((np.void, width))
    return np.ndarray((max(0, len(flat) - width + 1),), value, flat.data, strides=(1,))


def record_ends(flat: np.ndarray, layout: RecordLayout) -> np.ndarray:
    """Finds whole records by their frames.

    Each record says how long it is, so this goes from one to the next; checksums are not compared.

    Args:
        flat: (bytes,) uint8, from the start of a record on.
        layout: of the bucket.

    Returns:
        (n,) int64, where each ends, up to the first that is not whole or larger than its layout
        allows.
    """
    data, size, largest = flat.data, len(flat), layout.stride
    length_at = struct.Struct("<Q").unpack_from
    ends, at = array("q"), 0
    while size - at >= FRAME_BYTES:
        end = at + FRAME_BYTES + length_at(data, at)[0]
        if end > size or end - at > largest:
            break
        ends.append(end)
        at = end
    return np.frombuffer(ends, np.int64)


def decode_records(
    records: FramedRecords, layout: RecordLayout, fields: Sequence[Field]
) -> list[np.ndarray]:
    """Reads features of canonical records, all records at once.

    Args:
        records: framed; frames are not read.
        layout: of their bucket.
        fields: of the layout, those that are wanted.

    Returns:
        For each field (n, …) float32 or int64, bool for masks.

    Raises:
        CorruptDataError: a record does not have the layout.
    """
    if len(records) == 0:
        # Without a record there is nothing that could be damaged.
        empty = ((field, np.zeros((0, field.count * field.width), np.uint8)) for field in fields)
        return [decode_payload(field, payload) for field, payload in empty]
    flat, ends = records.flat, records.ends - FOOTER_BYTES
    inside = _without_prefix(ends - records.starts - HEADER_BYTES - 1)
    at = ends - inside
    places: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for field in layout.fields:
        at, sizes = _find_payload(flat, at, ends, field)
        places[field.name] = at, sizes
        at = at + sizes
        if (at > ends).any():
            raise CorruptDataError(_DAMAGED)
    if (at != ends).any():
        raise CorruptDataError(_DAMAGED)
    return [_decode_field(flat, *places[field.name], field) for field in fields]


def _find_payload(
    flat: np.ndarray, at: np.ndarray, ends: np.ndarray, field: Field
) -> tuple[np.ndarray, np.ndarray]:
    """Where the payload of each record's next entry begins, and its size, (n,) int64 each."""
    if not _varies(field):
        size = field.count * field.width
        head = len(_cached_entry_head(field.name, field.dtype, size))
        return at + head, np.full(len(at), size, np.int64)
    entry, shift = np.zeros(len(at), np.int64), 0
    at, more = at + 1, np.ones(len(at), np.bool_)
    while more.any() and shift < 35:
        # A record that lies about its sizes may point anywhere, but nothing is read from there.
        byte = flat[np.minimum(at, len(flat) - 1)].astype(np.int64)
        entry |= np.where(more, (byte & 0x7F) << shift, 0)
        at = at + more
        more &= byte > 0x7F
        shift += 7
    key = len(field.name.encode())
    # One byte of tag before each size: key, value, list, packed values.
    value = _without_prefix(entry - 2 - _varint_sizes(np.array([key]))[0] - key)
    sizes = _without_prefix(_without_prefix(value - 1) - 1)
    if (at + entry > ends).any() or (sizes < field.count).any():
        raise CorruptDataError(_DAMAGED)
    return at + entry - sizes, sizes


def _decode_field(flat: np.ndarray, at: np.ndarray, sizes: np.ndarray, field: Field) -> np.ndarray:
    if not _varies(field):
        width = field.count * field.width
        payload = _windows(flat, width)[at].view(np.uint8).reshape(len(at), width)
        return decode_payload(field, payload)
    values = _decode_varints(flat[span_index(at, sizes)], np.cumsum(sizes), field.count)
    return values.reshape(len(at), *field.shape)


def _decode_varints(payload: np.ndarray, row_ends: np.ndarray, count: int) -> np.ndarray:
    """Reads (bytes,) uint8 of varints of any size, `count` in each row; (n, count) int64."""
    last = np.flatnonzero(payload < 0x80)
    rows = len(row_ends)
    if len(last) != rows * count or (last.reshape(rows, count)[:, -1] != row_ends - 1).any():
        raise CorruptDataError(_DAMAGED)
    first = np.empty_like(last)
    first[:1], first[1:] = 0, last[:-1] + 1
    sizes = last - first + 1
    values = payload[first].astype(np.uint64) & np.uint64(0x7F)
    longest = int(sizes.max(initial=1))
    if longest > MAX_VARINT_BYTES:
        raise CorruptDataError(_DAMAGED)
    for k in range(1, longest):
        longer = np.flatnonzero(sizes > k)
        byte = payload[first[longer] + k].astype(np.uint64) & np.uint64(0x7F)
        values[longer] |= byte << np.uint64(7 * k)
    return values.view(np.int64).reshape(rows, count)


def _varies(field: Field) -> bool:
    """Whether the payload of a feature has another size in each record."""
    return field.dtype == "int64" and field.width > 1


def _varint_sizes(values: np.ndarray) -> np.ndarray:
    """Bytes of the varints of sizes, (n,) integers below 2**35."""
    return np.searchsorted(np.array([1 << 7, 1 << 14, 1 << 21, 1 << 28]), values, "right") + 1


def _without_prefix(totals: np.ndarray) -> np.ndarray:
    """Sizes from what they and the varints that hold them take together, (n,) integers."""
    sizes = totals - _varint_sizes(totals)
    # At the turn from one number of bytes to the next the total has a byte more than its size.
    return np.where(_varint_sizes(sizes) < _varint_sizes(totals), sizes + 1, sizes) * (totals > 0)
