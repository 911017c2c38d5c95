"""Row keys: 64 bits a row that decide its split, its shard and its place in the shard.

A key is a function of the seed, the file's path relative to the inputs' common folder and the
row's number in that file, and of nothing else: neither workers nor batches nor the order in which
files are listed can change it.

Source: the finaliser of SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014) over a BLAKE2b hash of seed and path. For one file it is a
bijection of the row number, so two rows of a file never share a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import PlanError
from lengthwise.dataset.options import MAX_SPLITS

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SPLIT_SALT = np.uint64(0x5851F42D4C957F2D)


def row_keys(seed: int, file: str, first_row: int, rows: int) -> np.ndarray:
    """Keys of consecutive rows of a file.

    Args:
        seed: chosen by the user.
        file: path relative to the inputs' common folder, with `/`.
        first_row: number of the first row in the file.
        rows: how many.

    Returns:
        (rows,) uint64.

    Example:
        >>> row_keys(0, "a.parquet", 1, 1) == row_keys(0, "a.parquet", 0, 2)[1:]
        array([ True])
    """
    return numbered_keys(seed, file, np.arange(first_row, first_row + rows))


def numbered_keys(seed: int, file: str, numbers: np.ndarray) -> np.ndarray:
    """Keys of any rows of a file, different for different numbers.

    Args:
        seed: chosen by the user.
        file: path relative to the inputs' common folder, with `/`.
        numbers: (n,) int64, of the rows in the file.

    Returns:
        (n,) uint64.
    """
    # Names of files are bytes, and need not be UTF-8.
    text = f"{seed}\0{file}".encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(text, digest_size=8).digest()
    base = np.uint64(int.from_bytes(digest, "little"))
    return _mix(base + (numbers.astype(np.uint64) + np.uint64(1)) * _GAMMA)


def text_numbers(texts: pa.Array) -> np.ndarray:
    """A number for each text, the same wherever it stands: 64 bits of a hash.

    Args:
        texts: (n,) strings or bytes, none null.

    Returns:
        (n,) int64.

    Example:
        >>> a, b, c = text_numbers(pa.array(["user 7", "user 8", "user 7"]))
        >>> a == c, a == b
        (np.True_, np.False_)
    """
    # Each eight bytes are mixed in at once, of all texts that are so long.
    texts = texts.cast(pa.large_binary())
    offsets = np.frombuffer(texts.buffers()[1] or bytes(8), np.int64)
    offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(bytes(texts.buffers()[2] or b"") + bytes(8), np.uint8)
    lengths = np.diff(offsets)
    state = _mix(lengths.astype(np.uint64) + _GAMMA)
    for place in range(0, int(lengths.max(initial=0)), 8):
        longer = np.flatnonzero(lengths > place)
        bytes_ = data[(offsets[longer] + place)[:, None] + np.arange(8)]  # (m, 8) uint8
        bytes_[np.arange(8) >= (lengths[longer] - place)[:, None]] = 0
        state[longer] = _mix((state[longer] ^ bytes_.view("<u8").reshape(-1)) + _GAMMA)
    return state.view(np.int64)


def group_keys(seed: int, groups: pa.Array) -> np.ndarray:
    """Keys that are equal for equal values, to draw splits that no group straddles.

    Args:
        seed: chosen by the user.
        groups: (n,) of any type; null is a group too.

    Returns:
        (n,) uint64.

    Example:
        >>> keys = group_keys(0, pa.array(["a", "b", "a"]))
        >>> keys[0] == keys[2], keys[0] == keys[1]
        (np.True_, np.False_)
    """
    encoded = groups if pa.types.is_dictionary(groups.type) else groups.dictionary_encode("encode")
    table = np.array(
        [_digest(f"{seed}\0group\0{value}") for value in encoded.dictionary.to_pylist()], np.uint64
    )
    return table[encoded.indices.to_numpy()]


def piece_keys(keys: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Keys of the pieces of rows; the first piece keeps the key of its row.

    Args:
        keys: (n,) uint64, of the rows that the pieces come from.
        pieces: (n,) integers, the number of each piece in its row.

    Example:
        >>> piece_keys(np.array([5, 5], np.uint64), np.array([0, 1]))[0]
        np.uint64(5)
    """
    return np.where(pieces == 0, keys, _mix(keys + pieces.astype(np.uint64) * _GAMMA))


def assign_splits(keys: np.ndarray, fractions: Mapping[str, float]) -> np.ndarray:
    """Draws the split of each row.

    Args:
        keys: (n,) uint64.
        fractions: name -> fraction; they add up to 1.

    Returns:
        (n,) uint8, positions in `fractions`.

    Raises:
        PlanError: more than 256 splits.

    Example:
        >>> splits = assign_splits(row_keys(0, "a", 0, 1000), {"train": 0.9, "val": 0.1})
        >>> int((splits == 1).sum())
        97
    """
    if len(fractions) > MAX_SPLITS:
        raise PlanError(f"{len(fractions)} splits are more than {MAX_SPLITS}: name fewer")
    # Mixed again: the key itself orders rows within a split, and must not depend on the split.
    uniform = (_mix(keys ^ _SPLIT_SALT) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    ends = np.cumsum(list(fractions.values()))[:-1]
    return np.searchsorted(ends, uniform, side="right").astype(np.uint8)


def assign_shards(keys: np.ndarray, num_shards: int | np.ndarray) -> np.ndarray:
    """The shard of each row: shard s of n holds the s-th of n equal ranges of keys.

    Args:
        keys: (n,) uint64.
        num_shards: at least 1, below 2**31; one for all, or (n,) integers.

    Returns:
        (n,) int64.

    Example:
        >>> assign_shards(np.array([0, 2**63, 2**64 - 1], np.uint64), 4)
        array([0, 2, 3])
    """
    counts = np.asarray(num_shards).astype(np.uint64)
    return ((keys >> np.uint64(32)) * counts >> np.uint64(32)).astype(np.int64)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))
