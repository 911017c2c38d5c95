"""What stands in the TFRecord files below a folder: counts, and equality with another folder's."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

from lengthwise.dataset.tfrecord import FOOTER_BYTES, HEADER_BYTES, read_records


def count(folder: str) -> dict[str, int]:
    """Records and files, from the frames alone."""
    records = 0
    files = tfrecord_files(folder)
    for path in files:
        size = path.stat().st_size
        with open(path, "rb") as file:
            at = 0
            while at < size:
                file.seek(at)
                at += HEADER_BYTES + struct.unpack("<Q", file.read(8))[0] + FOOTER_BYTES
                records += 1
    return {"records": records, "files": len(files)}


def compare(one: str, other: str) -> dict[str, int]:
    """Parses every record of both folders, checksums included, and compares them as multisets.

    Raises:
        ValueError: they differ; the message shows a record that only one of them has.
    """
    mine, theirs = parsed(one), parsed(other)
    if mine != theirs:
        only_mine, only_theirs = mine - theirs, theirs - mine
        sample = next(iter([*only_mine, *only_theirs]))
        raise ValueError(
            f"{one} has {only_mine.total()} records that {other} has not, and lacks "
            f"{only_theirs.total()}; for example {_text(sample)[:2_000]}"
        )
    return {"records": mine.total()}


def parsed(folder: str) -> Counter[bytes]:
    """Records in canonical bytes -> how often they are there.

    Integers may be written with more bytes than they need; parsing and serialising again takes
    that away, and keeps every value as it is.
    """
    from tensorflow.core.example.example_pb2 import Example

    return Counter(
        Example.FromString(record).SerializeToString(deterministic=True)
        for path in tfrecord_files(folder)
        for record in read_records(path)
    )


def tfrecord_files(folder: str) -> list[Path]:
    """All TFRecord files below a folder."""
    return sorted(Path(folder).rglob("*.tfrecord"))


def _text(record: bytes) -> str:
    from tensorflow.core.example.example_pb2 import Example

    return str(Example.FromString(record))
