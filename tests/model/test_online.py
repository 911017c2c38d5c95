"""Buckets on the fly."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import UsageError
from lengthwise.model.online import bucket_by_sequence_length, sort_by_length_in_pools

LENGTHS = np.random.default_rng(0).integers(1, 21, 203)


def length_of(features, *_):
    return tf.shape(features["x"])[0]


@pytest.fixture
def rows():
    def generate():
        for i, length in enumerate(LENGTHS):
            yield {"x": np.full((length, 3), i, np.float32), "id": i}, i % 3

    return tf.data.Dataset.from_generator(
        generate,
        output_signature=(
            {"x": tf.TensorSpec((None, 3)), "id": tf.TensorSpec((), tf.int64)},
            tf.TensorSpec((), tf.int64),
        ),
    )


ONLINE = {
    "buckets": lambda rows, **options: bucket_by_sequence_length(
        rows, length_of, [5, 10, 20], [8, 8, 8], **options
    ),
    "pools": lambda rows, **options: sort_by_length_in_pools(
        rows, length_of, [5, 10, 20], 8, pool_batches=4, **options
    ),
}


@pytest.mark.parametrize("way", ONLINE)
def test_every_row_comes_once_padded_to_an_inclusive_max_length(rows, way):
    seen = []
    for features, label in ONLINE[way](rows).as_numpy_iterator():
        steps = features["x"].shape[1]
        assert steps in (5, 10, 20)
        longest = features["length"].max()
        assert steps == min(t for t in (5, 10, 20) if t >= longest)
        np.testing.assert_array_equal(features["length"], LENGTHS[features["id"]])
        np.testing.assert_array_equal(
            features["mask"], np.arange(steps) < features["length"][:, None]
        )
        expected = features["id"][:, None, None] * features["mask"][..., None]
        np.testing.assert_array_equal(
            features["x"], np.broadcast_to(expected, (*expected.shape[:2], 3))
        )
        np.testing.assert_array_equal(label, features["id"] % 3)
        seen += features["id"].tolist()
    assert sorted(seen) == list(range(len(LENGTHS)))


def test_buckets_are_those_of_tensorflow_with_boundaries_one_higher(rows):
    ours = ONLINE["buckets"](rows).as_numpy_iterator()
    theirs = rows.bucket_by_sequence_length(length_of, [6, 11], [8, 8, 8]).as_numpy_iterator()
    for (one, _), (other, _) in zip(ours, theirs, strict=True):
        assert one["id"].tolist() == other["id"].tolist()


@pytest.mark.parametrize("way", ONLINE)
def test_overlong_rows_stop_or_are_dropped(rows, way):
    longer = rows.map(
        lambda f, y: ({**f, "x": tf.repeat(f["x"], tf.where(f["id"] == 7, 30, 1), axis=0)}, y)
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than the last max_length, 20"):
        list(ONLINE[way](longer))
    ids = [i for f, _ in ONLINE[way](longer, overlong="drop") for i in f["id"].numpy().tolist()]
    assert sorted(ids) == [i for i in range(len(LENGTHS)) if i != 7]


def test_features_alone_stay_alone(rows):
    alone = rows.map(lambda features, _: features)
    for way in ONLINE.values():
        assert set(next(iter(way(alone)))) == {"x", "id", "mask", "length"}


def test_a_mask_of_the_rows_is_kept(rows):
    masked = rows.map(lambda f, y: ({**f, "mask": tf.range(tf.shape(f["x"])[0]) != 0}, y))
    for features, _ in ONLINE["buckets"](masked).as_numpy_iterator():
        np.testing.assert_array_equal(features["mask"].sum(1), features["length"] - 1)


def test_pools_waste_less_with_more_lengths_to_pad_to(rows):
    def slots(data):
        return sum(features["mask"].size for features, _ in data.as_numpy_iterator())

    pools = sort_by_length_in_pools(rows, length_of, range(1, 21), 8, pool_batches=16)
    assert slots(pools) < 0.85 * slots(ONLINE["buckets"](rows))


def test_arguments_without_meaning_are_refused(rows):
    with pytest.raises(UsageError, match="ascend"):
        bucket_by_sequence_length(rows, length_of, [5, 5], [8, 8])
    with pytest.raises(UsageError, match="as many batch sizes"):
        bucket_by_sequence_length(rows, length_of, [5, 9], [8])
    with pytest.raises(UsageError, match="overlong must be one of error, drop"):
        bucket_by_sequence_length(rows, length_of, [5], [8], overlong="cut")
    with pytest.raises(UsageError, match="features as a dict"):
        bucket_by_sequence_length(tf.data.Dataset.range(3), lambda x: x, [5], [8])
    with pytest.raises(UsageError, match="pool_batches"):
        sort_by_length_in_pools(rows, length_of, [5], 8, pool_batches=0)
