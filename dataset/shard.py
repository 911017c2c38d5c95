"""A shard: one TFRecord file of a dataset, and its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lengthwise.dataset.compression import NONE, SUFFIXES
from lengthwise.dataset.document import Fields
from lengthwise.dataset.options import MAX_LENGTH


@dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
        split: the split that its rows belong to.
        max_length: the padded length of its bucket.
        index, count: it is number `index` of the `count` shards of its bucket.
        records: rows in it.
        steps: real steps in it, the sum of the rows' lengths.
        nbytes: size of the file.
        crc32c: of the whole file.
        compression: of the file, which `nbytes` and `crc32c` are of.
    """

    split: str
    max_length: int
    index: int
    count: int
    records: int
    steps: int
    nbytes: int
    crc32c: int
    compression: str = NONE

    @property
    def name(self) -> str:
        """Path below the data folder, with `/`.

        Example:
            >>> Shard("train", 64, 0, 4, 10, 500, 2660, 0).name
            'train/len00064-00000-of-00004.tfrecord'
        """
        return shard_name(
            self.split, self.max_length, self.index, self.count, compression=self.compression
        )

    def to_json(self) -> dict[str, Any]:
        """The shard as it stands in a manifest, which says the compression of all."""
        return {
            "name": self.name,
            "split": self.split,
            "max_length": self.max_length,
            "index": self.index,
            "count": self.count,
            "records": self.records,
            "steps": self.steps,
            "bytes": self.nbytes,
            "crc32c": self.crc32c,
        }

    @classmethod
    def from_json(cls, fields: Fields, compression: str) -> Shard:
        """Reads what `to_json` wrote; whether the name follows from the rest is not looked at.

        Raises:
            LengthwiseError: the error of `fields` where it is malformed.
        """
        return cls(
            split=fields.text("split"),
            max_length=fields.integer("max_length", low=1, high=MAX_LENGTH),
            index=fields.integer("index"),
            count=fields.integer("count", low=1),
            records=fields.integer("records"),
            steps=fields.integer("steps"),
            nbytes=fields.integer("bytes"),
            crc32c=fields.integer("crc32c", high=2**32 - 1),
            compression=compression,
        )


def shard_name(
    split: str, max_length: int, index: int, count: int, *, compression: str = NONE
) -> str:
    """The deterministic name of a shard below the data folder."""
    name = f"{split}/len{max_length:05d}-{index:05d}-of-{count:05d}.tfrecord"
    return name + SUFFIXES[compression]
