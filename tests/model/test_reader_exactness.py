"""Exactly once, in every combination of replicas, remainders, start steps and epochs."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import Feature, Manifest, Schema
from lengthwise.model import read_dataset
from lengthwise.model.epochs import Epochs
from lengthwise.model.numpy_reader import as_numpy
from lengthwise.model.read_options import ReadOptions
from lengthwise.model.streams import BatchStreams

IDS = Schema((Feature("id", "int64", sequence=False, label=True), Feature("x", "int64")))
REMAINDERS: list[dict[str, bool]] = [{}, {"drop_remainder": True}, {"pad_remainder": True}]


def rows_of(counts, max_lengths):
    lengths = chain.from_iterable([t] * n for t, n in zip(max_lengths, counts, strict=True))
    return [{"id": i, "x": np.full(length, i)} for i, length in enumerate(lengths)]


def ids_of(batch):
    """The ids of the rows of a batch; not those that only fill it."""
    features, label = batch[:2]
    return label[features["length"] > 0].tolist()


@pytest.fixture(scope="module")
def manifests(tmp_path_factory, write_rows):
    """Datasets by the rows of their buckets and of their shards, written once each."""
    written: dict[Any, Manifest] = {}

    def manifest(counts, shard_records):
        key = (tuple(counts), shard_records)
        if key not in written:
            max_lengths = (1, 3, 4, 9)[: len(counts)]
            path = write_rows(
                tmp_path_factory.mktemp("exact") / "dataset",
                {"train": rows_of(counts, max_lengths)},
                schema=IDS,
                max_lengths=max_lengths,
                shard_records=shard_records,
            )
            written[key] = Manifest.load(path)
        return written[key]

    return manifest


counts = st.lists(st.integers(0, 23), min_size=1, max_size=4).filter(any)
batch_sizes = st.one_of(st.integers(1, 9), st.just(64))


@settings(max_examples=60)
@given(
    counts, st.sampled_from([1, 4, 100]), batch_sizes, st.integers(1, 5),
    st.sampled_from(REMAINDERS), st.integers(1, 3), st.booleans(), st.booleans(), st.data(),
)  # fmt: skip
def test_every_row_comes_once_an_epoch_over_all_replicas(
    manifests,
    counts,
    shard_records,
    size,
    replicas,
    remainder,
    epochs,
    shuffle,
    longest_first,
    data,
):
    manifest = manifests(counts, shard_records)
    options: dict[str, Any] = {
        **remainder,
        "batch_size": size,
        "num_replicas": replicas,
        "shuffle": shuffle,
        "longest_first": longest_first,
        "epochs": epochs,
    }
    parts = [as_numpy(manifest, replica=replica, **options) for replica in range(replicas)]
    (steps,) = {len(part) for part in parts}
    read = [[ids_of(part[step]) for part in parts] for step in range(steps)]

    for start in range(0, steps, steps // epochs if steps else 1):
        seen = Counter(chain.from_iterable(chain(*read[start : start + steps // epochs])))
        assert set(seen.values()) <= {1}
        if "drop_remainder" not in remainder:
            assert sorted(seen) == list(range(sum(counts)))
        else:
            assert len(seen) == sum(n - n % (size * replicas) for n in counts)
    for step in range(steps):
        batches = [part[step] for part in parts]
        assert len({features["mask"].shape[1] for features, *_ in batches}) == 1
        assert max(map(len, read[step])) - min(map(len, read[step])) <= 1
        if remainder:
            assert {len(features["length"]) for features, *_ in batches} == {size}

    start = data.draw(st.integers(0, steps), label="start_step")
    left = as_numpy(manifest, replica=replicas - 1, start_step=start, **options)
    assert [ids_of(batch) for batch in left] == [step[-1] for step in read[start:]]
    streams = BatchStreams(
        Epochs(
            manifest,
            "train",
            ReadOptions(replica=replicas - 1, start_step=start, **options),
        )
    )
    assert list(ids_by_streams(streams)) == [step[-1] for step in read[start:]]


def ids_by_streams(streams):
    """What tf.data does with the streams: take from each in turn what the order says."""
    decoder = streams.epochs.decoder
    for epoch in range(*streams.epoch_range):
        waiting = [batches_of(streams, epoch, stream) for stream in range(streams.rest + 1)]
        order = [streams.order(epoch, block) for block in range(*streams.blocks(epoch))]
        for stream in chain.from_iterable(order):
            values = dict(zip(decoder.names, next(waiting[stream]), strict=True))
            yield ids_of(decoder.structure(values))
        assert all(next(batches, None) is None for batches in waiting)


def batches_of(streams, epoch, stream):
    for chunk in range(streams.num_chunks(epoch)[stream]):
        arrays = streams.read(epoch, stream, chunk)
        yield from [arrays] if stream == streams.rest else zip(*arrays, strict=True)


@pytest.mark.parametrize("remainder", REMAINDERS, ids=["kept", "dropped", "padded"])
@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 5])
def test_tf_data_gives_the_batches_of_the_arrays(manifests, replicas, remainder):
    # One-row shards, an empty bucket, a bucket with fewer rows than replicas, an uneven rest.
    manifest = manifests([13, 0, 2, 21], 1)
    for replica in {0, replicas - 1}:
        options: dict[str, Any] = {
            **remainder,
            "batch_size": 2,
            "num_replicas": replicas,
            "replica": replica,
            "epochs": 2,
            "start_step": 3,
        }
        data = read_dataset(manifest, **options)
        expected = list(as_numpy(manifest, **options))
        assert int(data.cardinality()) == len(expected)
        for ours, theirs in zip(data.as_numpy_iterator(), expected, strict=True):
            for one, other in zip(flat(ours), flat(theirs), strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)


def flat(batch):
    features, *others = batch
    return [*(features[name] for name in sorted(features)), *others]


@pytest.mark.parametrize("counts", [[5], [0, 1], [1, 0, 0, 1]])
def test_a_dataset_of_a_few_rows_is_read(manifests, counts):
    manifest = manifests(counts, 1)
    for options in ({}, {"pad_remainder": True}, {"drop_remainder": True}):
        read = read_dataset(manifest, batch_size=4, **options).as_numpy_iterator()
        expected = as_numpy(manifest, batch_size=4, **options)
        assert [ids_of(batch) for batch in read] == [ids_of(batch) for batch in expected]


def test_starting_late_reads_nothing_of_what_is_left_out(manifests, monkeypatch):
    manifest = manifests([23, 23], 4)
    gathered = []
    gather = Epochs.read_together

    def count(self, epoch, bucket, numbers):
        gathered.append(epoch)
        return gather(self, epoch, bucket, numbers)

    monkeypatch.setattr(Epochs, "read_together", count)
    steps = len(as_numpy(manifest, batch_size=4, epochs=50))
    left = list(read_dataset(manifest, batch_size=4, epochs=50, start_step=steps - 1))
    assert len(left) == 1
    assert gathered == [49]


def test_neighbours_on_disk_are_anywhere_in_an_epoch(manifests):
    """Rows beside each other on disk are as far apart in an epoch as two random ones."""
    manifest = manifests([4000], 100)
    distances = []
    for epoch in range(5):
        order = list(chain.from_iterable(map(ids_of, as_numpy(manifest, epoch=epoch))))
        place = np.empty(len(order))
        place[order] = np.arange(len(order)) / len(order)
        distances.append(np.abs(np.diff(place)))
    quantiles = np.quantile(distances, [0.1, 0.5, 0.9])
    # Two random places of a line are d apart with density 2 (1 - d).
    np.testing.assert_allclose(quantiles, 1 - np.sqrt([0.9, 0.5, 0.1]), atol=0.02)
    # And who shares a batch with its neighbour on disk does so by chance: 64 rows of 4,000.
    assert np.mean(np.array(distances) < 64 / 4000) < 0.05
