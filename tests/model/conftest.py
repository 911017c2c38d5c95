"""Small datasets, written straight through the contract of the dataset room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest

from lengthwise.dataset import (
    Account,
    Feature,
    FeatureStatistics,
    Manifest,
    Plan,
    PlanOptions,
    Schema,
    Shard,
)
from lengthwise.dataset.canonical import canonical_records
from lengthwise.dataset.compression import Compressor
from lengthwise.dataset.manifest import MANIFEST_NAME, PLAN_NAME
from lengthwise.dataset.record import RecordLayout, encode_varints
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.dataset.tfrecord import seal_frames

Row = Mapping[str, Any]

FRAMES = Schema(
    (
        Feature("frames", "float32", (2,)),
        Feature("id", "int64", sequence=False),
        Feature("speaker", "int64", sequence=False, label=True),
        Feature("token", "int64"),
    )
)


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    """Rows of the schema `FRAMES`; a step's frames tell its speaker, with noise."""

    def make(count: int, *, longest: int = 12, seed: int = 0, first_id: int = 0):
        rng = np.random.default_rng(seed)
        rows = []
        for i in range(count):
            length, speaker = int(rng.integers(1, longest + 1)), int(rng.integers(3))
            frames = rng.normal(size=(length, 2)) + [3 * speaker, -2 * speaker]
            rows.append(
                {
                    "frames": frames.astype(np.float32),
                    "token": rng.integers(0, 300, length),
                    "id": first_id + i,
                    "speaker": 10 + speaker,
                }
            )
        return rows

    return make


@pytest.fixture(scope="session")
def write_rows() -> Callable[..., Path]:
    """Writes rows as a dataset folder and returns its path."""

    def write(
        root: Path,
        splits: Mapping[str, Sequence[Row]],
        *,
        schema: Schema = FRAMES,
        max_lengths: Sequence[int] = (4, 8, 12),
        shard_records: int = 7,
        canonical: bool = False,
        compression: str = "none",
        padding: str = "right",
    ) -> Path:
        layout = {"canonical": canonical, "compression": compression, "padding": padding}
        return _write(root, splits, schema, tuple(max_lengths), shard_records, layout)

    return write


@pytest.fixture
def write_dataset(tmp_path: Path, write_rows: Callable[..., Path]) -> Callable[..., Path]:
    """Like `write_rows`, into a folder of the test."""

    def write(splits: Mapping[str, Sequence[Row]], *, name: str = "dataset", **options: Any):
        return write_rows(tmp_path / name, splits, **options)

    return write


def _write(
    root: Path,
    splits: Mapping[str, Sequence[Row]],
    schema: Schema,
    max_lengths: tuple[int, ...],
    shard_records: int,
    layout: dict[str, Any],
) -> Path:
    first = schema.sequences[0].name
    everything = [row for rows in splits.values() for row in rows]
    plan = Plan(
        schema=schema,
        options=PlanOptions(num_buckets=len(max_lengths), align=1, **layout),
        max_lengths=max_lengths,
        histograms={
            split: dict(zip(*_counts([len(row[first]) for row in rows]), strict=True))
            for split, rows in splits.items()
        },
        statistics={f.name: _statistics(f, everything) for f in schema.features},
    )
    shards = []
    fingerprint = f"{crc32c.crc32c(repr(everything).encode()):016x}"
    for split, rows in sorted(splits.items()):
        for previous, end in zip((0, *max_lengths), max_lengths, strict=False):
            inside = [row for row in rows if previous < len(row[first]) <= end]
            cuts = [inside[i : i + shard_records] for i in range(0, len(inside), shard_records)]
            for index, cut in enumerate(cuts):
                records = frame_rows(plan.layout(end), cut, first, plan.options.padding)
                framed = records.tobytes()
                if plan.options.canonical:
                    framed = canonical_records(records, plan.layout(end)).flat.tobytes()
                compressor = Compressor(plan.options.compression)
                framed = bytes(compressor.add(framed)) + compressor.finish()
                shard = Shard(
                    split=split,
                    max_length=end,
                    index=index,
                    count=len(cuts),
                    records=len(cut),
                    steps=sum(len(row[first]) for row in cut),
                    nbytes=len(framed),
                    crc32c=crc32c.crc32c(framed),
                    compression=plan.options.compression,
                )
                path = root / f"data-{fingerprint}" / shard.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(framed)
                shards.append(shard)
    root.mkdir(exist_ok=True)
    (root / PLAN_NAME).write_text(plan.dumps())
    manifest = Manifest(
        root=root,
        fingerprint=fingerprint,
        created_by="test",
        schema=schema,
        seed=0,
        max_lengths=max_lengths,
        widths=plan.widths,
        shards=tuple(shards),
        accounts={split: Account(len(rows), len(rows)) for split, rows in splits.items()},
        plan_crc32c=crc32c.crc32c(plan.dumps().encode()),
        **layout,
    )
    (root / MANIFEST_NAME).write_text(manifest.dumps())
    return root


def frame_rows(
    layout: RecordLayout, rows: Sequence[Row], first: str, padding: str = "right"
) -> np.ndarray:
    framed = np.tile(np.frombuffer(layout.template, np.uint8), (len(rows), 1))
    for i, row in enumerate(rows):
        length = len(row[first])
        real = {LENGTH: length, MASK: np.ones(length), **row}
        for field in layout.fields:
            values = np.zeros(field.shape, np.float32 if field.dtype == "float32" else np.int64)
            given = np.asarray(real[field.name])
            slots = [slice(size) for size in given.shape]
            if padding == "left" and slots:
                slots[0] = slice(field.shape[0] - len(given), None)
            values[tuple(slots)] = given
            target = framed[i : i + 1, field.payload]
            if field.dtype == "float32":
                target[...] = values.reshape(-1).view(np.uint8)
            else:
                encode_varints(values.reshape(1, -1), field.width, target)
    seal_frames(framed)
    return framed


def _statistics(feature: Feature, rows: Sequence[Row]) -> FeatureStatistics:
    values = np.concatenate([np.ravel(row[feature.name]) for row in rows] or [np.zeros(1)])
    values = values[np.isfinite(values)]
    if feature.dtype == "float32":
        values = values.astype(np.float64)
    low, high = values.min(), values.max()
    integer = feature.dtype == "int64"
    return FeatureStatistics(
        count=len(values),
        missing=0,
        mean=float(values.mean()),
        variance=float(values.var()),
        low=int(low) if integer else float(low),
        high=int(high) if integer else float(high),
        values=dict(zip(*_counts(values), strict=True)) if feature.label and integer else None,
    )


def _counts(values: Any) -> tuple[list[int], list[int]]:
    unique, counts = np.unique(np.asarray(values, np.int64), return_counts=True)
    return unique.tolist(), counts.tolist()
