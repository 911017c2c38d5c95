"""The manifest, `dataset.json`: what a dataset is made of; readers believe nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import crc32c

from lengthwise.dataset.compression import NONE
from lengthwise.dataset.document import Fields, read_document, to_json
from lengthwise.dataset.errors import ManifestError, PlanError, SchemaError
from lengthwise.dataset.options import (
    COMPRESSIONS,
    MAX_LENGTH,
    SIDES,
    check_max_lengths,
    check_split_name,
)
from lengthwise.dataset.record import MAX_VARINT_BYTES, RecordLayout
from lengthwise.dataset.schema import Schema
from lengthwise.dataset.shard import Shard
from lengthwise.dataset.storage import RemotePath, StoragePath, storage_path

MANIFEST_NAME = "dataset.json"
PLAN_NAME = "plan.json"
REPORT_NAME = "report.html"
VOCABULARY_FOLDER = "vocabulary"
STAGING_NAME = ".staging"
REJECTED_NAME = "rejected/part-00000.parquet"
MANIFEST_FORMAT = "lengthwise-dataset"
MANIFEST_VERSION = 1
# Each takes about 230 bytes of a document that may have `MAX_DOCUMENT_BYTES`.
MAX_SHARDS = 1_000_000
STRIDED, CANONICAL = "strided", "canonical"

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Account:
    """What became of the rows of one split: read + pieces = written + dropped + rejected.

    Attributes:
        read: rows of the input that belong to the split.
        written: records in its shards.
        dropped: reason -> rows left out as the options say.
        rejected: reason -> rows left out because they are faulty.
        pieces: records more than rows, because overlong rows were split.
    """

    read: int
    written: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    pieces: int = 0

    @property
    def balanced(self) -> bool:
        left_out = sum(self.dropped.values()) + sum(self.rejected.values())
        return self.read + self.pieces == self.written + left_out

    def to_json(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "written": self.written,
            "dropped": dict(sorted(self.dropped.items())),
            "rejected": dict(sorted(self.rejected.items())),
            "pieces": self.pieces,
        }


@dataclass(frozen=True)
class Manifest:
    """A dataset: schema, buckets, shards and accounts.

    Attributes:
        root: the dataset folder.
        fingerprint: 16 hex digits that name the build; the data folder is `data-<fingerprint>`.
        created_by: the program and its version.
        schema: the features.
        seed: of the row keys.
        max_lengths: of the buckets, ascending.
        widths: varint bytes of every integer feature.
        shards: sorted by split, max_length, index; only shards that hold records.
        accounts: split -> account.
        plan_crc32c: of `plan.json`.
        canonical: whether varints are as short as they can be; otherwise records are strided.
        compression: of the shards.
        padding: the side of a row that is padded, `right` or `left`.
    """

    root: StoragePath
    fingerprint: str
    created_by: str
    schema: Schema
    seed: int
    max_lengths: tuple[int, ...]
    widths: Mapping[str, int]
    shards: tuple[Shard, ...]
    accounts: Mapping[str, Account]
    plan_crc32c: int
    canonical: bool = False
    compression: str = NONE
    padding: str = "right"

    @property
    def data_folder(self) -> StoragePath:
        """Where the shards are."""
        return self.root / data_folder_name(self.fingerprint)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(sorted(self.accounts))

    def steps_of(self, length: int, max_length: int) -> slice:
        """Where the steps of a row are among the `max_length` slots of its record."""
        return slice(length) if self.padding == "right" else slice(max_length - length, max_length)

    @property
    def is_plain(self) -> bool:
        """Whether the shards are matrices of bytes as they are: strided and not compressed."""
        return not self.canonical and self.compression == NONE

    @cached_property
    def layouts(self) -> dict[int, RecordLayout]:
        """max_length -> layout of the records of that bucket."""
        return {
            t: RecordLayout.of(self.schema, t, self.widths, canonical=self.canonical)
            for t in self.max_lengths
        }

    def shards_of(self, split: str, max_length: int | None = None) -> tuple[Shard, ...]:
        """The shards of a split, or of one of its buckets.

        Raises:
            ManifestError: there is no such split.
        """
        if split not in self.accounts:
            raise ManifestError(
                f"{self.root}: no split '{split}'; there are: {', '.join(self.splits)}"
            )
        return tuple(
            shard
            for shard in self.shards
            if shard.split == split and max_length in (None, shard.max_length)
        )

    def path_of(self, shard: Shard) -> StoragePath:
        return self.data_folder / shard.name

    def records(self, split: str) -> int:
        """Rows of a split."""
        return sum(shard.records for shard in self.shards_of(split))

    def padding_fraction(self, split: str) -> float:
        """Padded slots over all slots of a split."""
        slots = sum(shard.records * shard.max_length for shard in self.shards_of(split))
        steps = sum(shard.steps for shard in self.shards_of(split))
        return 1 - steps / slots if slots else 0.0

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "format": MANIFEST_FORMAT,
            "version": MANIFEST_VERSION,
            "created_by": self.created_by,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "layout": CANONICAL if self.canonical else STRIDED,
            "compression": self.compression,
            "padding": self.padding,
            "schema": self.schema.to_json(),
            "varint_widths": dict(sorted(self.widths.items())),
            "buckets": [_bucket_json(self.layouts[t]) for t in self.max_lengths],
            "accounts": {split: self.accounts[split].to_json() for split in self.splits},
            "plan_crc32c": self.plan_crc32c,
            "shards": [shard.to_json() for shard in self.shards],
        }
        return {**document, "crc32c": document_crc32c(document)}

    def dumps(self) -> str:
        """The text of `dataset.json`."""
        return to_json(self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str] | RemotePath, *, check_crc: bool = True) -> Manifest:
        """Reads the manifest of a dataset and checks that it is whole and consistent.

        Args:
            path: the dataset folder (or its `dataset.json`), or its URL.
            check_crc: False skips the manifest's checksum of itself, for `verify`.

        Raises:
            ManifestError: there is no dataset, it is of another version, or it was changed.
        """
        root = storage_path(path)
        root = root.parent if root.name == MANIFEST_NAME else root
        path = root / MANIFEST_NAME
        if not path.is_file():
            raise ManifestError(
                f"{root}: no dataset here ({MANIFEST_NAME} is missing); make one with "
                "`lengthwise build`"
            )
        fields = Fields(
            read_document(path, error=ManifestError), place=str(path), error=ManifestError
        )
        if fields.members.get("format") != MANIFEST_FORMAT:
            raise fields.fail("not a manifest of Lengthwise")
        if fields.integer("version") != MANIFEST_VERSION:
            raise fields.fail(
                f"version {fields.integer('version')} of the format is not known to this "
                "version of Lengthwise; upgrade Lengthwise or build again"
            )
        if check_crc and not crc_matches(fields.members):
            raise fields.fail("was changed after the build; run `lengthwise verify`, build again")
        return _from_fields(fields, root=root)


def data_folder_name(fingerprint: str) -> str:
    """The name of the folder that holds the shards of one build."""
    return f"data-{fingerprint}"


def data_folders(root: StoragePath) -> list[StoragePath]:
    """The data folders below a dataset folder, those of other builds too, and nobody else's."""
    prefix = data_folder_name("")
    return [
        folder
        for folder in sorted(root.iterdir(), key=str)
        if folder.name.startswith(prefix)
        and _FINGERPRINT.fullmatch(folder.name.removeprefix(prefix))
        and folder.is_dir()
        and not (isinstance(folder, Path) and folder.is_symlink())
    ]


def document_crc32c(document: Mapping[str, Any]) -> int:
    """CRC32C of a JSON document without its own `crc32c`, independent of white space."""
    body = {name: value for name, value in document.items() if name != "crc32c"}
    return crc32c.crc32c(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def crc_matches(document: Mapping[str, Any]) -> bool:
    """Whether a manifest is as it was written."""
    try:
        return document.get("crc32c") == document_crc32c(document)
    except RecursionError:
        return False


def _bucket_json(layout: RecordLayout) -> dict[str, Any]:
    if layout.canonical:
        return {
            "max_length": layout.max_length,
            "fields": {field.name: {"count": field.count} for field in layout.fields},
        }
    return {
        "max_length": layout.max_length,
        "stride": layout.stride,
        "fields": {
            field.name: {"offset": field.offset, "width": field.width, "count": field.count}
            for field in layout.fields
        },
    }


def _from_fields(fields: Fields, *, root: StoragePath) -> Manifest:
    fingerprint = fields.text("fingerprint")
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise fields.fail(f"the fingerprint {fingerprint[:40]!r} is not 16 hex digits")
    widths = fields.nested("varint_widths")
    buckets = fields.objects("buckets")
    max_lengths = tuple(b.integer("max_length", low=1, high=MAX_LENGTH) for b in buckets)
    accounts = fields.nested("accounts")
    layout = fields.text("layout", default=STRIDED)
    compression = fields.text("compression", default=NONE)
    padding = fields.text("padding", default=SIDES[0])
    if layout not in (STRIDED, CANONICAL):
        raise fields.fail(f"the layout {layout[:40]!r} is neither '{STRIDED}' nor '{CANONICAL}'")
    if compression not in COMPRESSIONS:
        raise fields.fail(f"the compression {compression[:40]!r} is none of {COMPRESSIONS}")
    if padding not in SIDES:
        raise fields.fail(f"the padding {padding[:40]!r} is none of {SIDES}")
    try:
        schema = Schema.from_json(fields.objects("schema"))
        check_max_lengths(max_lengths, place="buckets")
        for split in accounts.members:
            check_split_name(split)
        manifest = Manifest(
            root=root,
            fingerprint=fingerprint,
            created_by=fields.text("created_by"),
            schema=schema,
            seed=fields.integer("seed"),
            max_lengths=max_lengths,
            widths={
                feature.name: widths.integer(feature.name, low=1, high=MAX_VARINT_BYTES)
                for feature in schema.features
                if feature.dtype == "int64"
            },
            shards=tuple(Shard.from_json(item, compression) for item in fields.objects("shards")),
            accounts={split: _account(accounts.nested(split)) for split in accounts.members},
            plan_crc32c=fields.integer("plan_crc32c", high=2**32 - 1),
            canonical=layout == CANONICAL,
            compression=compression,
            padding=padding,
        )
        layouts = manifest.layouts
    except (PlanError, SchemaError) as reason:
        raise fields.fail(str(reason)) from None
    for bucket in buckets:
        if bucket.members != _bucket_json(layouts[bucket.integer("max_length")]):
            raise bucket.fail("stride or offsets do not follow from the schema")
    for shard, item in zip(manifest.shards, fields.objects("shards"), strict=True):
        if shard.split not in manifest.accounts or shard.max_length not in layouts:
            raise item.fail(
                f"split {shard.split[:80]!r} or bucket {shard.max_length} does not exist"
            )
        if shard.index >= shard.count:
            raise item.fail(f"index {shard.index} is not below the count {shard.count}")
        if item.text("name") != shard.name:
            raise item.fail(f"the name {item.text('name')[:80]!r} is not {shard.name!r}")
    if len({shard.name for shard in manifest.shards}) != len(manifest.shards):
        raise fields.fail("a shard is listed twice")
    return manifest


def _account(fields: Fields) -> Account:
    return Account(
        read=fields.integer("read"),
        written=fields.integer("written"),
        dropped=fields.counts("dropped"),
        rejected=fields.counts("rejected"),
        pieces=fields.integer("pieces"),
    )
