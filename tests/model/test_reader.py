"""read_dataset: batches of one bucket, exact epochs, and what tf.io.parse_example reads."""

from __future__ import annotations

import os
import shutil
from itertools import chain
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import (
    CorruptDataError,
    Feature,
    Manifest,
    ManifestError,
    Schema,
    SchemaError,
    UsageError,
)
from lengthwise.model import TokenBudget, read_dataset


def batches(path, **options):
    return list(read_dataset(path, **options).as_numpy_iterator())


def ids_of(batches_):
    return [features["id"].tolist() for features, _ in batches_]


@pytest.fixture
def dataset(write_dataset, make_rows):
    return write_dataset({"train": make_rows(61), "test": make_rows(9, seed=1)})


@pytest.fixture
def by_id(make_rows):
    return {row["id"]: row for row in make_rows(61)}


def test_batches_hold_the_rows_that_were_written(dataset, by_id):
    seen = []
    for features, label in batches(dataset, batch_size=5):
        for i, row_id in enumerate(features["id"].tolist()):
            row, length = by_id[row_id], int(features["length"][i])
            assert length == len(row["frames"])
            assert features["mask"][i].tolist() == [
                t < length for t in range(features["mask"].shape[1])
            ]
            np.testing.assert_array_equal(features["frames"][i, :length], row["frames"])
            np.testing.assert_array_equal(features["token"][i, :length], row["token"])
            assert not features["frames"][i, length:].any()
            assert label[i] == row["speaker"]
            seen.append(row_id)
    assert sorted(seen) == sorted(by_id)


def test_dtypes_and_shapes_are_declared(dataset):
    spec: Any = read_dataset(dataset).element_spec
    features, label = spec
    assert {name: (spec.dtype.name, tuple(spec.shape)) for name, spec in features.items()} == {
        "frames": ("float32", (None, None, 2)),
        "token": ("int64", (None, None)),
        "id": ("int64", (None,)),
        "mask": ("bool", (None, None)),
        "length": ("int32", (None,)),
    }
    assert (label.dtype.name, tuple(label.shape)) == ("int64", (None,))


def test_every_batch_has_the_length_of_its_bucket(dataset):
    for features, _ in batches(dataset, batch_size=5):
        total_steps = features["frames"].shape[1]
        assert total_steps in (4, 8, 12)
        assert features["length"].max() <= total_steps
        assert features["length"].min() > total_steps - 4


def test_length_is_static_where_there_is_one_bucket(write_dataset, make_rows):
    path = write_dataset({"train": make_rows(10)}, max_lengths=[12])
    spec: Any = read_dataset(path).element_spec
    assert tuple(spec[0]["frames"].shape) == (None, 12, 2)


def test_equals_what_tensorflow_parses_from_the_same_files(dataset):
    manifest = Manifest.load(dataset)
    ours = batches(dataset, batch_size=5, shuffle=False)
    theirs = []
    for total_steps in manifest.max_lengths:
        paths = [str(manifest.path_of(shard)) for shard in manifest.shards_of("train", total_steps)]
        keys = {
            "frames": tf.io.FixedLenFeature((total_steps, 2), tf.float32),
            "token": tf.io.FixedLenFeature((total_steps,), tf.int64),
            "mask": tf.io.FixedLenFeature((total_steps,), tf.int64),
            "length": tf.io.FixedLenFeature((), tf.int64),
            "id": tf.io.FixedLenFeature((), tf.int64),
            "speaker": tf.io.FixedLenFeature((), tf.int64),
        }
        for serialized in tf.data.TFRecordDataset(paths).batch(5):
            theirs.append(tf.io.parse_example(serialized, keys))
    assert len(ours) == len(theirs)
    for (features, label), parsed in zip(ours, theirs, strict=True):
        for name, values in {**features, "speaker": label}.items():
            np.testing.assert_array_equal(values, parsed[name])


def test_same_seed_and_epoch_give_the_same_batches(dataset):
    assert ids_of(batches(dataset, seed=4, epoch=1)) == ids_of(batches(dataset, seed=4, epoch=1))


@pytest.mark.parametrize("change", [{"seed": 5}, {"epoch": 2}])
def test_another_seed_or_epoch_gives_other_batches(dataset, change):
    base = {"seed": 4, "epoch": 1}
    one, two = ids_of(batches(dataset, **base)), ids_of(batches(dataset, **{**base, **change}))
    assert one != two
    assert sorted(chain(*one)) == sorted(chain(*two))


def test_several_epochs_follow_each_other(dataset):
    options = {"batch_size": 5, "seed": 1}
    expected = [ids for e in (3, 4, 5) for ids in ids_of(batches(dataset, epoch=e, **options))]
    assert ids_of(batches(dataset, epoch=3, epochs=3, **options)) == expected


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5])
def test_replicas_share_an_epoch_exactly(dataset, by_id, replicas):
    parts = [
        batches(dataset, batch_size=4, num_replicas=replicas, replica=replica)
        for replica in range(replicas)
    ]
    assert len({len(part) for part in parts}) == 1
    for step in zip(*parts, strict=True):
        assert len({features["mask"].shape[1] for features, _ in step}) == 1
    read = [row for part in parts for ids in ids_of(part) for row in ids]
    assert sorted(read) == sorted(by_id)


@pytest.mark.parametrize("start_step", [0, 1, 7, 13, 14])
def test_a_start_step_leaves_exactly_the_remaining_batches(dataset, start_step):
    options: dict[str, Any] = {"batch_size": 5, "seed": 2, "epochs": 2}
    everything = ids_of(batches(dataset, **options))
    rest = read_dataset(dataset, start_step=start_step, **options)
    assert ids_of(list(rest.as_numpy_iterator())) == everything[start_step:]
    assert int(rest.cardinality()) == len(everything) - start_step


@pytest.mark.parametrize("drop_remainder", [False, True])
def test_cardinality_is_the_number_of_batches(dataset, drop_remainder):
    for size in (1, 5, 64, TokenBudget(30)):
        data = read_dataset(dataset, batch_size=size, drop_remainder=drop_remainder)
        assert int(data.cardinality()) == len(list(data))


def test_dropped_remainders_leave_full_batches_only(dataset):
    assert {len(ids) for ids in ids_of(batches(dataset, batch_size=4, drop_remainder=True))} == {4}


def test_a_budget_of_steps_bounds_every_batch(dataset):
    for features, _ in batches(dataset, batch_size=TokenBudget(30)):
        assert features["mask"].size <= 30


def test_label_may_be_any_feature_and_is_no_input(dataset):
    features, label = batches(dataset, label="id")[0]
    assert set(features) == {"frames", "token", "mask", "length"}
    assert label.shape == features["length"].shape


def test_labels_per_step_keep_their_steps(dataset):
    features, label = batches(dataset, label="token")[0]
    assert label.shape == features["mask"].shape
    assert "token" not in features


def test_dataset_without_label_gives_features_alone(write_dataset):
    schema = Schema((Feature("x", "float32"),))
    path = write_dataset({"train": [{"x": np.ones(3, np.float32)}]}, schema=schema)
    (features,) = batches(path)
    assert set(features) == {"x", "mask", "length"}


def test_several_labels_come_as_a_dict(write_dataset):
    schema = Schema(
        tuple(Feature(n, "int64", sequence=n == "x", label=n != "x") for n in ("a", "b", "x"))
    )
    path = write_dataset({"train": [{"x": np.arange(3), "a": -7, "b": 300}]}, schema=schema)
    ((features, labels),) = batches(path)
    assert set(features) == {"x", "mask", "length"}
    assert {name: values.tolist() for name, values in labels.items()} == {"a": [-7], "b": [300]}


def test_one_trace_serves_all_buckets(dataset):
    traces = []

    @tf.function
    def count(features, label):
        traces.append(features)
        return tf.reduce_sum(label)

    data = read_dataset(dataset, batch_size=5)
    data.reduce(np.int64(0), lambda total, batch: total + count(*batch))
    assert len(traces) == 1


def test_all_buckets_are_read_by_one_function(dataset, monkeypatch):
    made = []
    numpy_function = tf.numpy_function

    def make(function, *arguments, **options):
        made.append(function.__name__)
        return numpy_function(function, *arguments, **options)

    monkeypatch.setattr(tf, "numpy_function", make)
    assert len(batches(dataset, batch_size=5, epochs=2)) > 3
    # Batches, and the order of steps; each trace more would make the first batch later.
    assert made == ["read", "order"]


def test_a_dataset_can_be_moved_and_read_only(dataset, tmp_path, by_id):
    expected = ids_of(batches(dataset))
    moved = tmp_path / "elsewhere"
    shutil.move(dataset, moved)
    for folder, _, files in os.walk(moved):
        for file in files:
            os.chmod(os.path.join(folder, file), 0o444)
    assert ids_of(batches(moved)) == expected


def test_a_reader_finishes_what_it_opened_when_a_newer_build_comes(dataset):
    expected = ids_of(batches(dataset))
    data = read_dataset(dataset)
    shutil.rmtree(dataset)
    assert ids_of(list(data.as_numpy_iterator())) == expected


def test_there_may_be_more_shards_than_open_files(write_dataset, make_rows):
    resource = pytest.importorskip("resource")
    path = write_dataset({"train": make_rows(200)}, shard_records=1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
        assert len(batches(path, batch_size=200)) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def damage(path, how):
    shard = Manifest.load(path).shards_of("train")[1]
    file = Manifest.load(path).path_of(shard)
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 4
    elif how == "truncated":
        data = data[:-1]
    elif how == "longer":
        data += b"\0"
    file.write_bytes(data)
    if how == "missing":
        file.unlink()
    return file


@pytest.mark.parametrize("how", ["flipped", "truncated", "longer", "missing"])
def test_a_damaged_shard_is_named(dataset, how):
    file = damage(dataset, how)
    with pytest.raises(CorruptDataError) as error:
        read_dataset(dataset)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_damage_is_found_in_a_file_that_was_read_before(dataset):
    read_dataset(dataset)
    damage(dataset, "flipped")
    with pytest.raises(CorruptDataError, match="CRC32C"):
        read_dataset(dataset)


def test_without_integrity_only_sizes_are_compared(dataset):
    damage(dataset, "flipped")
    assert batches(dataset, integrity="never")
    damage(dataset, "truncated")
    with pytest.raises(CorruptDataError, match="bytes"):
        read_dataset(dataset, integrity="never")


def test_files_are_read_whole_once_per_process(dataset, monkeypatch):
    read_dataset(dataset)
    monkeypatch.setattr("lengthwise.model.shards.crc32c", None)
    read_dataset(dataset)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "dev"}, ManifestError, "no split 'dev'; there are: test, train"),
        ({"label": "speakr"}, SchemaError, "no feature 'speakr' to predict"),
        ({"batch_size": 0}, UsageError, "batch_size must be a positive integer"),
        ({"seed": -1}, UsageError, "seed must be an integer of at least 0"),
        ({"epochs": 0}, UsageError, "epochs must be"),
        ({"replica": 2, "num_replicas": 2}, UsageError, "must lie within"),
        ({"start_step": 1000}, UsageError, "start_step is 1000; there are"),
        ({"integrity": "often"}, UsageError, "integrity must be one of first, always, never"),
    ],
)
def test_arguments_without_meaning_are_refused(dataset, options, error, message):
    with pytest.raises(error, match=message):
        read_dataset(dataset, **options)
