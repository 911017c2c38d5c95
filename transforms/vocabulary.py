"""Vocabularies: strings become ids, counted in one pass and numbered in the next.

While rows are read, no vocabulary is known yet. Strings become codes, the positions at which a unit
of the input first saw them; the unit's strings and counts are kept beside its rows. Once all units
are counted, the vocabulary is chosen, and a table per unit turns its codes into ids:

    unit's strings   the  cat  sat     codes   0 1 2 0
    vocabulary       sat=2  the=3      table   [3, 1, 2]       ids   3 1 2 3
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lengthwise.dataset.document import MAX_DOCUMENT_BYTES
from lengthwise.dataset.errors import PlanError
from lengthwise.dataset.options import RESERVED_IDS
from lengthwise.dataset.plan import check_vocabulary
from lengthwise.dataset.schema import CLASSES
from lengthwise.dataset.storage import storage_path

UNKNOWN_ID = 1
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class StringCounter:
    """The different strings of a feature so far, in the order in which they came, and counts.

    Example:
        >>> counter = StringCounter()
        >>> counter.codes_of(pa.array(["the", "cat", None, "the"]))
        array([0, 1, 0, 0], dtype=int32)
        >>> counter.count(np.array([0, 1, 0]))
        >>> counter.strings.to_pylist(), counter.counts.tolist()
        (['the', 'cat'], [2, 1])
    """

    def __init__(self) -> None:
        self.strings: pa.Array = pa.array([], pa.large_string())
        self.counts = np.zeros(0, np.int64)

    def codes_of(self, strings: pa.Array) -> np.ndarray:
        """Positions of strings, new ones added at the end.

        Args:
            strings: (n,) of any string type, or dictionary-encoded.

        Returns:
            (n,) int32; 0 where the string is null.
        """
        if not pa.types.is_dictionary(strings.type):
            strings = strings.dictionary_encode()
        local = strings.dictionary.cast(pa.large_string())
        positions = pc.index_in(local, value_set=self.strings)
        new = positions.is_null().to_numpy(zero_copy_only=False)
        table = positions.fill_null(0).to_numpy().astype(np.int32)
        table[new] = len(self.strings) + np.arange(int(new.sum()), dtype=np.int32)
        self.strings = pa.concat_arrays([self.strings, local.filter(pa.array(new))])
        self.counts = np.pad(self.counts, (0, int(new.sum())))
        if len(table) == 0:
            return np.zeros(len(strings), np.int32)
        return table[strings.indices.fill_null(0).to_numpy()]

    def count(self, codes: np.ndarray) -> None:
        """Counts codes, (n,) integers."""
        self.counts += np.bincount(codes, minlength=len(self.counts))


def choose_vocabulary(
    strings: pa.Array, counts: np.ndarray, *, size: int | None = None, min_count: int = 1
) -> tuple[str, ...]:
    """The most frequent strings, ties in the order of their UTF-8 bytes.

    Args:
        strings: (n,) different strings.
        counts: (n,) how often each came.
        size: how many ids at most, padding and unknown included; None takes all.
        min_count: rarer strings are left out.

    Example:
        >>> choose_vocabulary(pa.array(["b", "a", "c"]), np.array([1, 1, 3]), size=4)
        ('c', 'a')
    """
    table = pa.table({"string": strings, "count": counts})
    table = table.filter(pc.greater_equal(table["count"], max(1, min_count)))
    table = table.sort_by([("count", "descending"), ("string", "ascending")])
    most = None if size is None else max(0, size - RESERVED_IDS)
    return tuple(table["string"][:most].to_pylist())


def classes_of(strings: pa.Array) -> tuple[str, ...]:
    """Class names in the order of their UTF-8 bytes.

    Example:
        >>> classes_of(pa.array(["b", "a"]))
        ('a', 'b')
    """
    return tuple(strings.take(pc.sort_indices(strings)).to_pylist())


def id_table(strings: pa.Array, vocabulary: Sequence[str], encoding: str) -> np.ndarray:
    """The id of each of a unit's strings.

    Args:
        strings: (n,) the unit's strings.
        vocabulary: strings in the order of their ids.
        encoding: `tokens` or `classes`.

    Returns:
        (n,) int32, at least one: the code of what is missing is 0. A class that is not in the
        vocabulary, which no row that is passed on has, is -1.

    Example:
        >>> id_table(pa.array(["the", "cat", "sat"]), ["sat", "the"], "tokens")
        array([3, 1, 2], dtype=int32)
    """
    known = pa.array(vocabulary, pa.large_string())
    positions = pc.index_in(strings.cast(pa.large_string()), value_set=known)
    if len(positions) == 0:
        return np.zeros(1, np.int32)
    if encoding == CLASSES:
        return positions.fill_null(-1).to_numpy().astype(np.int32)
    offset = pa.scalar(RESERVED_IDS, positions.type)
    ids = pc.add(positions, offset).fill_null(UNKNOWN_ID)
    return ids.to_numpy().astype(np.int32)


def vocabulary_text(strings: Sequence[str]) -> str:
    """A vocabulary as a file: one string a line, `\\\\`, `\\n`, `\\r` and `\\t` escaped.

    Example:
        >>> vocabulary_text(["a", "b\\n"])
        'a\\nb\\\\n\\n'
    """
    return "".join(f"{string.translate(str.maketrans(_ESCAPES))}\n" for string in strings)


def read_vocabulary(path: str | Path) -> tuple[str, ...]:
    """Reads a vocabulary: one string a line, as `vocabulary_text` writes it.

    Raises:
        PlanError: the file cannot be read, is too large, or a string stands in it twice.
    """
    try:
        with storage_path(path).open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise PlanError(f"{path}: the vocabulary cannot be read: {reason}") from None
    if len(data) > MAX_DOCUMENT_BYTES:
        raise PlanError(
            f"{path}: the vocabulary has more than {MAX_DOCUMENT_BYTES} bytes; leave rare strings "
            "out"
        )
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    strings = tuple(_unescaped(line.removesuffix("\r")) for line in lines)
    check_vocabulary(strings, place=str(path))
    return strings


def _unescaped(line: str) -> str:
    if "\\" not in line:
        return line
    back = {escape[1]: plain for plain, escape in _ESCAPES.items()}
    parts, rest = [], iter(line)
    for character in rest:
        if character == "\\":
            following = next(rest, "")
            parts.append(back.get(following, "\\" + following))
        else:
            parts.append(character)
    return "".join(parts)
