"""Rows and batches without a TensorFlow graph."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.model import as_numpy, open_rows, read_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_rows, make_rows):
    return write_rows(tmp_path_factory.mktemp("numpy") / "dataset", {"train": make_rows(61)})


@pytest.mark.parametrize("padding", ["right", "left"])
def test_any_row_can_be_asked_for(write_dataset, make_rows, padding):
    written = {row["id"]: row for row in make_rows(61)}
    rows = open_rows(write_dataset({"train": list(written.values())}, padding=padding))
    assert len(rows) == 61
    for row in rows:
        expected = written.pop(int(row["id"]))
        assert row["length"] == len(expected["frames"]) == len(row["mask"])
        assert row["mask"].all()
        for name in ("frames", "token", "speaker"):
            np.testing.assert_array_equal(row[name], expected[name])
    assert not written


def test_rows_are_a_sequence(dataset):
    rows = open_rows(dataset)
    assert rows[-1]["id"] == rows[60]["id"]
    assert [row["id"] for row in rows[3:9:2]] == [rows[i]["id"] for i in (3, 5, 7)]
    for index in (61, -62):
        with pytest.raises(IndexError, match="of 61"):
            rows[index]


def test_rows_can_be_chosen(dataset):
    lengths = [int(row["length"]) for row in open_rows(dataset, min_length=3, max_length=7)]
    assert lengths
    assert min(lengths) >= 3
    assert max(lengths) <= 7
    assert len(open_rows(dataset, take=5)) == 5


def test_batches_are_those_of_tf_data(dataset):
    options = {"batch_size": 7, "seed": 3, "epochs": 2, "start_step": 4, "sample_weight": True}
    ours, theirs = as_numpy(dataset, **options), read_dataset(dataset, **options)
    assert len(ours) == int(theirs.cardinality())
    for one, other in zip(ours, theirs.as_numpy_iterator(), strict=True):
        for name, values in other[0].items():
            np.testing.assert_array_equal(one[0][name], values)
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[2], other[2])


def test_any_batch_can_be_asked_for(dataset):
    batches = as_numpy(dataset, batch_size=7)
    everything = [features["id"].tolist() for features, _ in batches]
    assert [batches[i][0]["id"].tolist() for i in (5, 0, -1)] == [everything[i] for i in (5, 0, -1)]
    with pytest.raises(IndexError, match="batch 99 of"):
        batches[99]
