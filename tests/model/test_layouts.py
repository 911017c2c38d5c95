"""Canonical and compressed shards are read as strided ones: the same batches in the same order."""

from __future__ import annotations

import gc
import gzip
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import CorruptDataError, Feature, InputError, Manifest, Schema
from lengthwise.dataset.manifest import MANIFEST_NAME, document_crc32c
from lengthwise.model import TokenBudget, read_dataset, shards
from lengthwise.model.numpy_reader import as_numpy, open_rows
from lengthwise.model.shards import open_split

LAYOUTS: list[dict[str, Any]] = [
    {"canonical": True},
    {"compression": "gzip"},
    {"canonical": True, "compression": "gzip"},
]
SCHEMA = Schema(
    (
        Feature("frames", "float32", (2,), element_mask=True),
        Feature("id", "int64", sequence=False),
        Feature("speaker", "int64", sequence=False, label=True),
        Feature("token", "int64"),
    )
)
OPTIONS: list[dict[str, Any]] = [
    {"batch_size": 8, "epochs": 2},
    {"batch_size": 5, "shuffle": False},
    {"batch_size": TokenBudget(40), "seed": 3, "epoch": 4, "start_step": 7},
    {"batch_size": 4, "num_replicas": 3, "replica": 1, "pad_remainder": True},
    {"batch_size": 6, "drop_remainder": True, "longest_first": True},
    {"min_length": 3, "max_length": 9, "form": "tuple"},
    {"buckets": [8], "take": 9, "label": "token", "sample_weight": True},
]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, make_rows, write_rows) -> list[Path]:
    """The same rows strided, and in each of `LAYOUTS`."""
    root, rng = tmp_path_factory.mktemp("layouts"), np.random.default_rng(0)
    splits = {"train": make_rows(61), "val": make_rows(5, seed=1)}
    for row in [*splits["train"], *splits["val"]]:
        row["frames__observed"] = rng.random(row["frames"].shape) < 0.7
    return [
        write_rows(root / str(i), splits, schema=SCHEMA, **layout)
        for i, layout in enumerate([{}, *LAYOUTS])
    ]


def assert_same(found: Any, expected: Any) -> None:
    tf.nest.assert_same_structure(found, expected)
    for one, other in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_every_reader_gives_the_batches_of_strided_shards(datasets, options):
    expected = list(as_numpy(datasets[0], **options))
    assert expected
    for path in datasets[1:]:
        assert_same(list(as_numpy(path, **options)), expected)


@pytest.mark.parametrize("number", [1, 3])
def test_tf_data_gives_the_batches_of_strided_shards(datasets, number):
    for options in ({"batch_size": 8, "pad_remainder": True}, {"ragged": True, "buckets": [8]}):
        found, expected = (
            [
                tf.nest.map_structure(np.asarray, _dense(batch))
                for batch in read_dataset(p, **options)
            ]
            for p in (datasets[number], datasets[0])
        )
        assert_same(found, expected)


def _dense(batch: Any) -> Any:
    ragged: Any = tf.RaggedTensor
    return tf.nest.map_structure(
        lambda value: value.to_tensor() if isinstance(value, ragged) else value, batch
    )


def test_single_rows_are_the_same(datasets):
    expected = [open_rows(datasets[0])[i] for i in (0, 30, 60)]
    for path in datasets[1:]:
        assert_same([open_rows(path)[i] for i in (0, 30, 60)], expected)


def test_element_masks_are_bools_and_false_in_padding(datasets):
    batch, *_ = next(iter(read_dataset(datasets[0], batch_size=4, pad_remainder=True)))
    observed = batch["frames__observed"]
    assert observed.dtype == tf.bool
    assert observed.shape == batch["frames"].shape
    assert not np.any(observed.numpy()[~batch["mask"].numpy()])
    row = open_rows(datasets[0])[0]
    assert row["frames__observed"].shape == row["frames"].shape
    assert row["frames__observed"].dtype == np.bool_


def test_which_elements_of_a_label_were_observed_is_no_secret(datasets):
    features, label = as_numpy(datasets[0], label="frames")[0]
    assert "frames" not in features
    assert features["frames__observed"].shape == label.shape


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("integrity", ["first", "always"])
def test_a_flipped_bit_is_found_before_the_first_batch(
    datasets, write_dataset, make_rows, number, integrity
):
    path = write_dataset({"train": make_rows(20)}, **LAYOUTS[number - 1])
    manifest = Manifest.load(path)
    file = manifest.path_of(manifest.shards[-1])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    with pytest.raises(CorruptDataError, match="CRC32C of the file is") as error:
        read_dataset(path, integrity=integrity)
    assert str(error.value).startswith(f"{file}: ")


def forge(path: Path, **changes: Any) -> None:
    """Another manifest, with a checksum that fits it."""
    document = json.loads((path / MANIFEST_NAME).read_text())
    document["shards"][0].update(changes)
    document["crc32c"] = document_crc32c(document)
    (path / MANIFEST_NAME).write_text(json.dumps(document))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_shard_with_another_number_of_records_is_refused(write_dataset, make_rows, number):
    for more in (-1, 1, 10**12):
        path = write_dataset({"train": make_rows(20)}, name=str(more), **LAYOUTS[number - 1])
        forge(path, records=Manifest.load(path).shards[0].records + more)
        with pytest.raises(CorruptDataError, match=r"does not hold \d+ records|unpacks to more"):
            read_dataset(path)


@pytest.mark.parametrize("number", [2, 3])
def test_a_bomb_is_refused(write_dataset, make_rows, number, tmp_path):
    path = write_dataset({"train": make_rows(20)}, **LAYOUTS[number - 1])
    shard = Manifest.load(path).shards[0]
    bomb = gzip.compress(bytes(1 << 24))
    Manifest.load(path).path_of(shard).write_bytes(bomb)
    forge(path, bytes=len(bomb), crc32c=crc32c.crc32c(bomb))
    with pytest.raises(CorruptDataError, match="unpacks to more than the"):
        read_dataset(path)


def test_records_that_lie_about_their_sizes_are_refused(write_dataset, make_rows):
    path = write_dataset({"train": make_rows(20)}, **LAYOUTS[0])
    manifest = Manifest.load(path)
    shard = manifest.shards[0]
    file = manifest.path_of(shard)
    data = file.read_bytes()
    at = data.index(b"\x0a\x05token")
    file.write_bytes(data[: at - 1] + bytes([data[at - 1] ^ 1]) + data[at:])
    forge(path, crc32c=crc32c.crc32c(file.read_bytes()))
    with pytest.raises(CorruptDataError, match="does not have the layout of its bucket"):
        list(as_numpy(path))


def test_shards_are_unpacked_once_for_all_readers_and_the_room_is_given_back(
    write_dataset, make_rows, monkeypatch
):
    path = write_dataset({"train": make_rows(20)}, compression="gzip")
    manifest = Manifest.load(path)
    count = len(manifest.shards)
    unpacked = []
    whole = shards.read_unpacked
    monkeypatch.setattr(
        shards, "read_unpacked", lambda *a, **k: unpacked.append(a) or whole(*a, **k)
    )
    first = open_split(manifest, "train")
    second = as_numpy(path)
    assert len(unpacked) == count
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    del first, second
    gc.collect()
    assert before - len(os.listdir("/proc/self/fd")) == count
    open_split(manifest, "train")
    assert len(unpacked) == 2 * count


def test_no_room_to_unpack_is_one_clear_error(write_dataset, make_rows, monkeypatch):
    path = write_dataset({"train": make_rows(20)}, compression="gzip")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(InputError, match=r"let TMPDIR name one with room for [0-9,]+ bytes"):
        read_dataset(path)
