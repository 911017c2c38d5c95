"""Protocol-buffer messages read many at a time: one cursor a message, all moved together.

A loop over records in Python costs tens of microseconds for each. Records of a file look alike, so
here the loop is over the fields, and every step of it is a numpy operation over all records:

    record 0   0A 1C | 0A 0E 0A 05 …        cursors 0, 30, 75 read a tag, then a length,
    record 1   0A 2B | 0A 1D 0A 05 …        then stand at 2, 32, 77
    record 2   0A 19 | 0A 0B 0A 05 …

Only the usual encoding is understood. Where a message has another, it is called odd, and something
slower has to look at it. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

# Bytes that must be readable after the end of the data.
PADDING = 16

_CONTINUES = 0x80
_MAX_VARINT_BYTES = 10
# Lengths of sub-messages: more bytes than these are not usual.
_MAX_LENGTH_BYTES = 5


@dataclass(frozen=True)
class Spans:
    """Pieces of the data, one for each of some messages.

    Attributes:
        starts, stops: (n,) int64.
    """

    starts: np.ndarray
    stops: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        return self.stops - self.starts

    def select(self, positions: np.ndarray) -> Spans:
        """The spans at these positions."""
        return Spans(self.starts[positions], self.stops[positions])


def read_lengths(data: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads a varint below 2**35 at each cursor.

    Args:
        data: (m,) uint8, with `PADDING` bytes after all cursors.
        at: (n,) positions.

    Returns:
        The values, -1 where a varint is longer, and the positions after them.

    Example:
        >>> data = np.frombuffer(bytes([5, 0x96, 0x01]) + bytes(PADDING), np.uint8)
        >>> read_lengths(data, np.array([0, 1]))
        (array([  5, 150]), array([1, 3]))
    """
    byte = data[at]
    values = (byte & 0x7F).astype(np.int64)
    more = np.flatnonzero(byte >= _CONTINUES)
    at = at + 1
    for place in range(1, _MAX_LENGTH_BYTES):
        if len(more) == 0:
            return values, at
        byte = data[at[more]]
        values[more] |= (byte & 0x7F).astype(np.int64) << (7 * place)
        at[more] += 1
        more = more[byte >= _CONTINUES]
    values[more] = -1
    return values, at


def read_field(
    data: np.ndarray, at: np.ndarray, stops: np.ndarray, tag: int | np.ndarray
) -> tuple[Spans, np.ndarray]:
    """Reads one field of bytes, or of a message, at each cursor.

    Args:
        data: (m,) uint8, padded.
        at: (n,) positions, below their stops.
        stops: (n,) ends of the messages that hold the field.
        tag: the byte before the length; one for all, or (n,) uint8.

    Returns:
        What the field holds; and (n,) bool, True where there is another field or it does not end
        before its message.
    """
    lengths, starts = read_lengths(data, at + 1)
    ends = starts + lengths
    odd = (data[at] != tag) | (lengths < 0) | (ends > stops) | (at >= stops)
    return Spans(starts, np.where(odd, starts, ends)), odd


def whole_field(
    data: np.ndarray, messages: Spans, tag: int | np.ndarray
) -> tuple[Spans, np.ndarray]:
    """Reads the only field of messages; empty ones have an empty field.

    Returns:
        What the field holds; and (n,) bool, True where there is something else.
    """
    field, odd = read_field(data, messages.starts, messages.stops, tag)
    empty = messages.lengths == 0
    odd = ~empty & (odd | (field.stops != messages.stops))
    nothing = empty | odd
    return Spans(
        np.where(nothing, messages.starts, field.starts),
        np.where(nothing, messages.starts, field.stops),
    ), odd


def repeated_fields(
    data: np.ndarray, messages: Spans, tag: int, *, most: int
) -> tuple[np.ndarray, Spans, np.ndarray]:
    """Reads all fields of messages that have only fields of one tag.

    Args:
        data: (m,) uint8, padded.
        messages: (n,) which.
        tag: of the fields.
        most: fields of a message; those that have more are odd.

    Returns:
        (k,) ascending positions of the messages that the fields are of, the fields in their order,
        and (n,) bool: odd messages, none of whose fields is returned.
    """
    odd = np.zeros(len(messages), np.bool_)
    owners, found = _evenly_spaced(data, messages, tag)
    active = np.flatnonzero((messages.lengths > 0) & ~_among(len(messages), owners))
    at = messages.starts[active]
    for _ in range(most):
        if len(active) == 0:
            break
        stops = messages.stops[active]
        field, wrong = read_field(data, at, stops, tag)
        odd[active[wrong]] = True
        owners.append(active)
        found.append(field)
        going = ~wrong & (field.stops < stops)
        active, at = active[going], field.stops[going]
    odd[active] = True
    owner = np.concatenate([np.zeros(0, np.int64), *owners])
    starts = np.concatenate([np.zeros(0, np.int64), *(spans.starts for spans in found)])
    stops = np.concatenate([np.zeros(0, np.int64), *(spans.stops for spans in found)])
    kept = np.flatnonzero(~odd[owner])
    # Fields of a message one after another, as they stand in it.
    order = kept[np.argsort(owner[kept], kind="stable")]
    return owner[order], Spans(starts[order], stops[order]), odd


def _evenly_spaced(
    data: np.ndarray, messages: Spans, tag: int
) -> tuple[list[np.ndarray], list[Spans]]:
    """The fields of those messages in which all have the size of the first, without a loop."""
    some = np.flatnonzero(messages.lengths > 0)
    starts = messages.starts[some]
    field, odd = read_field(data, starts, messages.stops[some], tag)
    size = np.maximum(field.stops - starts, 1)
    counts = messages.lengths[some] // size
    even = ~odd & (counts * size == messages.lengths[some]) & (counts > 1)
    if not even.any():
        return [], []
    some, starts, size, counts = some[even], starts[even], size[even], counts[even]
    header = field.starts[even] - starts  # tag and length, which must be the same in all
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(starts, counts) + nth * np.repeat(size, counts)
    same = np.ones(len(begins), np.bool_)
    for place in range(1 + _MAX_LENGTH_BYTES):
        within = np.repeat(header > place, counts)
        first = np.repeat(data[starts + place], counts)
        same &= ~within | (data[begins + place] == first)
    whole = np.logical_and.reduceat(same, np.cumsum(counts) - counts)
    kept = np.repeat(whole, counts)
    begins = begins[kept]
    header, size = (np.repeat(array, counts)[kept] for array in (header, size))
    return [np.repeat(some, counts)[kept]], [Spans(begins + header, begins + size)]


def _among(n: int, positions: list[np.ndarray]) -> np.ndarray:
    found = np.zeros(n, np.bool_)
    for part in positions:
        found[part] = True
    return found


def spans_equal(data: np.ndarray, spans: Spans, text: bytes) -> np.ndarray:
    """(n,) bool, True where a span holds exactly these bytes."""
    equal = spans.lengths == len(text)
    same = np.flatnonzero(equal)
    if len(same) and text:
        index = spans.starts[same][:, None] + np.arange(len(text))
        equal[same] = (data[index] == np.frombuffer(text, np.uint8)).all(axis=1)
    return equal


def gathered(data: np.ndarray, spans: Spans) -> np.ndarray:
    """The bytes of ascending spans, one after another."""
    n = len(spans)
    if n == 0:
        return np.zeros(0, np.uint8)
    # Spans and the gaps between them are neighbours; taking every other one copies by memcpy.
    offsets = np.empty(2 * n, np.int64)
    offsets[0::2], offsets[1::2] = spans.starts, spans.stops
    pieces = pa.Array.from_buffers(
        pa.large_binary(), 2 * n - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )
    taken = pieces.take(pa.array(np.arange(0, 2 * n - 1, 2)))
    return np.frombuffer(taken.buffers()[2] or b"", np.uint8)[: int(spans.lengths.sum())]


def decode_varints(bytes_: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decodes packed varints as int64.

    Args:
        bytes_: (m,) uint8 that end with a whole varint.

    Returns:
        (k,) values, and (k + 1,) where each begins.

    Raises:
        ValueError: a varint has more than ten bytes, or the last is not whole.

    Example:
        >>> decode_varints(np.array([5, 0x96, 0x01], np.uint8))
        (array([  5, 150]), array([0, 1, 3]))
    """
    stops = np.flatnonzero(bytes_ < _CONTINUES) + 1
    bounds = np.concatenate(([0], stops))
    if bounds[-1] != len(bytes_):
        raise ValueError("the last number is not whole")
    starts, lengths = bounds[:-1], np.diff(bounds)
    values = (bytes_[starts] & 0x7F).astype(np.uint64)
    longest = int(lengths.max(initial=0))
    if longest > _MAX_VARINT_BYTES:
        raise ValueError("a number has more than ten bytes")
    for place in range(1, longest):
        more = np.flatnonzero(lengths > place)
        byte = (bytes_[starts[more] + place] & 0x7F).astype(np.uint64)
        values[more] |= byte << np.uint64(7 * place)
    return values.view(np.int64), bounds
