"""What read_dataset leaves out, fills up, weighs and arranges otherwise."""

from __future__ import annotations

import os
from itertools import chain
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import CorruptDataError, Feature, Manifest, Schema, UsageError
from lengthwise.model import read_dataset
from lengthwise.model.row_filter import RowFilter, proportional_shares
from lengthwise.model.shards import open_split


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_rows, make_rows):
    return write_rows(tmp_path_factory.mktemp("options") / "dataset", {"train": make_rows(61)})


def batches(path, **options):
    return list(read_dataset(path, **options).as_numpy_iterator())


def ids_of(batches_):
    return sorted(chain.from_iterable(batch[0]["id"].tolist() for batch in batches_))


def test_filled_rows_are_masked_and_weigh_nothing(dataset):
    spec: Any = read_dataset(dataset, batch_size=8, pad_remainder=True).element_spec
    assert tuple(spec[0]["mask"].shape) == (8, None)
    rows = 0
    for features, label, weight in batches(dataset, batch_size=8, pad_remainder=True):
        real = features["length"] > 0
        rows += real.sum()
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, real)
        for values in (features["mask"], features["frames"], features["token"], label):
            assert len(values) == 8
            assert not values[~real].any()
    assert rows == 61


def test_weights_come_when_asked_for(dataset):
    for features, label, weight in batches(dataset, batch_size=8, sample_weight=True):
        np.testing.assert_array_equal(weight, np.ones(len(label)))
        assert len(features["length"]) == len(label)


def test_labels_per_step_are_weighed_per_step(dataset):
    for features, label, weight in batches(
        dataset, batch_size=8, label="token", pad_remainder=True
    ):
        assert weight.shape == label.shape
        np.testing.assert_array_equal(weight, features["mask"])


def test_several_labels_have_a_dict_of_weights(write_dataset):
    schema = Schema(
        tuple(Feature(n, "int64", sequence=n == "x", label=n != "x") for n in ("a", "b", "x"))
    )
    path = write_dataset({"train": [{"x": np.arange(3), "a": 7, "b": 3}]}, schema=schema)
    ((_, label, weight),) = batches(path, batch_size=2, pad_remainder=True)
    assert {name: values.tolist() for name, values in label.items()} == {"a": [7, 0], "b": [3, 0]}
    assert {name: values.tolist() for name, values in weight.items()} == {"a": [1, 0], "b": [1, 0]}


def test_a_dataset_without_label_is_filled_without_weights(write_dataset):
    schema = Schema((Feature("x", "float32"),))
    path = write_dataset({"train": [{"x": np.ones(3, np.float32)}]}, schema=schema)
    (features,) = batches(path, batch_size=3, pad_remainder=True)
    assert features["length"].tolist() == [3, 0, 0]
    with pytest.raises(UsageError, match="sample weights need a label"):
        read_dataset(path, sample_weight=True)


def test_the_longest_bucket_comes_first_when_asked_for(dataset):
    for seed in range(2):
        first = batches(dataset, batch_size=8, seed=seed, longest_first=True)
        plain = batches(dataset, batch_size=8, seed=seed)
        assert first[0][0]["mask"].shape == (8, 12)
        assert ids_of(first) == ids_of(plain)


@pytest.mark.parametrize(
    "limits", [(1, 12), (3, None), (None, 6), (5, 8), (7, 7), (None, 4)], ids=str
)
def test_rows_are_chosen_by_length(dataset, make_rows, limits):
    low, high = limits
    expected = [
        row["id"] for row in make_rows(61) if (low or 0) <= len(row["frames"]) <= (high or 99)
    ]
    read = batches(dataset, batch_size=5, min_length=low, max_length=high, epochs=2)
    assert ids_of(read) == sorted(expected * 2)


def test_buckets_are_chosen_by_their_max_length(dataset):
    spec: Any = read_dataset(dataset, buckets=[8]).element_spec
    assert tuple(spec[0]["mask"].shape) == (None, 8)
    assert {batch[0]["mask"].shape[1] for batch in batches(dataset, buckets=[4, 12])} == {4, 12}


def test_a_few_rows_are_taken_of_each_bucket_in_proportion(dataset):
    everything = [len(bucket) for bucket in open_split(Manifest.load(dataset), "train")]
    for take in (1, 10, 60, 61, 1000):
        read = batches(dataset, batch_size=4, take=take)
        counts = [
            sum(len(batch[1]) for batch in read if batch[0]["mask"].shape[1] == t)
            for t in (4, 8, 12)
        ]
        assert counts == proportional_shares(take, everything)
    one, two = (ids_of(batches(dataset, take=10, epoch=epoch)) for epoch in range(2))
    assert one == two


def test_a_few_rows_open_a_few_files(dataset):
    buckets = open_split(Manifest.load(dataset), "train")
    assert sum(len(bucket.shards) for bucket in buckets) > 3
    few = open_split(Manifest.load(dataset), "train", row_filter=RowFilter(take=3))
    assert sum(len(bucket.shards) for bucket in few) == 3


def test_features_come_as_a_tuple_when_asked_for(dataset):
    (one, label), (other, same) = (
        batches(dataset, batch_size=64, form=form)[0] for form in ("dict", "tuple")
    )
    np.testing.assert_array_equal(label, same)
    for name, values in zip(("frames", "id", "token", "mask", "length"), other, strict=True):
        np.testing.assert_array_equal(one[name], values)


@pytest.mark.parametrize("padding", ["right", "left"])
def test_ragged_tensors_have_no_padding(write_dataset, make_rows, padding):
    rows = {row["id"]: row for row in make_rows(61)}
    path = write_dataset({"train": list(rows.values())}, padding=padding)
    data = read_dataset(path, batch_size=5, ragged=True)
    for features, _ in data:
        for i, row_id in enumerate(features["id"].numpy()):
            np.testing.assert_array_equal(features["frames"][i], rows[row_id]["frames"])
            np.testing.assert_array_equal(features["token"][i], rows[row_id]["token"])
            assert features["mask"][i].numpy().all()


def test_batch_sizes_by_bucket(dataset):
    sizes = {4: 3, 8: 5, 12: 7}
    for features, _ in batches(dataset, batch_size=sizes, drop_remainder=True):
        steps = features["mask"].shape[1]
        assert len(features["length"]) == sizes[steps]
    with pytest.raises(UsageError, match="no entry for the bucket of max_length 8"):
        read_dataset(dataset, batch_size={4: 3, 12: 7})


def test_damage_is_looked_for_at_every_call_when_asked_for(write_dataset, make_rows):
    path = write_dataset({"train": make_rows(61)})
    read_dataset(path)
    manifest = Manifest.load(path)
    shard = manifest.shards_of("train")[1]
    file = manifest.path_of(shard)
    data = bytearray(file.read_bytes())
    stride = manifest.layouts[shard.max_length].stride
    status = file.stat()
    data[3 * stride + 40] ^= 1
    file.write_bytes(data)
    # As a bad disk would do it: nothing but the bytes tells.
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    read_dataset(path)
    with pytest.raises(
        CorruptDataError, match="record 3: checksum of the data does not match"
    ) as error:
        read_dataset(path, integrity="always")
    assert str(error.value).startswith(f"{file}: ")


@pytest.mark.parametrize("ahead", [0, 1, 9, 23])
def test_an_iterator_can_be_checkpointed(dataset, tmp_path, ahead):
    data = read_dataset(dataset, batch_size=5, epochs=2, seed=3)
    iterator = iter(data)
    for _ in range(ahead):
        next(iterator)
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    left = [features["id"].numpy().tolist() for features, _ in iterator]
    again = iter(data)
    tf.train.Checkpoint(iterator=again).restore(saved)
    assert [features["id"].numpy().tolist() for features, _ in again] == left
    assert len(left) == int(data.cardinality()) - ahead


def test_a_checkpoint_holds_the_place_and_not_the_batches(write_dataset, make_rows, tmp_path):
    data = read_dataset(write_dataset({"train": make_rows(600)}), batch_size=200, epochs=9)
    iterator = iter(data)
    ahead = [next(iterator) for _ in range(20)]
    tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "checkpoint"))
    size = sum(file.stat().st_size for file in tmp_path.glob("checkpoint*"))
    # Eight batches are read ahead.
    assert 0 < size < 2 * sum(values.numpy().nbytes for values in ahead[0][0].values())


def test_no_more_traces_than_shapes(dataset):
    traces = []

    @tf.function
    def train_step(features, label):
        traces.append(features["mask"].shape)
        return tf.reduce_sum(label)

    for batch in read_dataset(dataset, batch_size=4, epochs=3, drop_remainder=True):
        train_step(*batch)
    assert 1 <= len(traces) <= 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_remainder": True, "pad_remainder": True}, "not both"),
        ({"form": "list"}, "form must be one of dict, tuple"),
        ({"min_length": 0}, "min_length must be a positive integer"),
        ({"min_length": 9, "max_length": 8}, "min_length is 9, more than max_length"),
        ({"buckets": [5]}, "there is none of max_length 5; there are: 4, 8, 12"),
        ({"take": 0}, "take must be a positive integer"),
    ],
)
def test_options_without_meaning_are_refused(dataset, options, message):
    with pytest.raises(UsageError, match=message):
        read_dataset(dataset, **options)
