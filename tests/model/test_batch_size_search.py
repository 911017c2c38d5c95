"""Batch sizes that are measured."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import UsageError
from lengthwise.model import read_dataset
from lengthwise.model.batch_size_search import find_batch_sizes, largest_that_fits


class StepMemory:
    """As if a row took a byte per step; remembers what was tried."""

    def __init__(self, model):
        self.most = 0
        self.model = model

    def held(self):
        return 100

    def needed_by(self, work):
        sizes = []
        step = self.model.train_on_batch
        self.model.train_on_batch = lambda x, y: sizes.append(x["mask"].size)
        try:
            work()
        finally:
            self.model.train_on_batch = step
        self.most = max(self.most, *sizes)
        if sizes[0] > 3000:
            raise tf.errors.ResourceExhaustedError(None, None, "")
        return sizes[0]


@pytest.fixture
def model():
    frames = keras.Input((None, 2), name="frames")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(8)(frames))
    model = keras.Model({"frames": frames}, keras.layers.Dense(20)(hidden))
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    return model


@given(st.integers(0, 300), st.integers(1, 200))
def test_doubling_and_bisecting_find_the_largest(limit, highest):
    assert largest_that_fits(lambda n: n <= limit, highest) == min(limit, highest)


def test_the_largest_batch_of_every_bucket_is_found(write_dataset, make_rows, model):
    path = write_dataset({"train": make_rows(40)})
    memory = StepMemory(model)
    sizes = find_batch_sizes(model, path, memory_limit=1100, memory=memory)
    assert sizes == {4: 250, 8: 125, 12: 83}
    # What is bound to be too much is not even tried.
    assert memory.most < 1100 * 1.1
    assert find_batch_sizes(
        model, path, memory_limit=1100, memory=memory, multiple_of=8, max_batch_size=100
    ) == {4: 96, 8: 96, 12: 80}


def test_running_out_of_memory_is_no_more_than_too_large(write_dataset, make_rows, model):
    path = write_dataset({"train": make_rows(40)}, max_lengths=[12])
    sizes = find_batch_sizes(model, path, memory_limit=10**9, memory=StepMemory(model))
    assert sizes == {12: 250}


def test_a_limit_that_not_even_one_row_keeps_is_an_error(write_dataset, make_rows, model):
    path = write_dataset({"train": make_rows(40)})
    with pytest.raises(UsageError, match="not even one row of 4 steps trains within 103 bytes"):
        find_batch_sizes(model, path, memory_limit=103, memory=StepMemory(model))


def test_a_model_is_measured_and_left_as_it_was(write_dataset, make_rows, model):
    try:
        tf.config.experimental.get_memory_info("CPU:0")
    except ValueError:
        pytest.skip("this TensorFlow does not count memory on CPUs")
    path = write_dataset({"train": make_rows(40)})
    before = [np.array(weights) for weights in model.get_weights()]

    def prepare(features, label):
        return {"frames": features["frames"]}, label

    limit = tf.config.experimental.get_memory_info("CPU:0")["current"] + (1 << 20)
    sizes = find_batch_sizes(
        model, path, memory_limit=limit, max_batch_size=1 << 14, prepare=prepare
    )
    assert list(sizes) == [4, 8, 12]
    assert 16 < sizes[12] < sizes[8] < sizes[4] < 1 << 14
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert int(model.optimizer.iterations) == 0
    assert len(list(read_dataset(path, batch_size=sizes))) == 3


def test_a_model_without_optimizer_is_refused(write_dataset, make_rows):
    path = write_dataset({"train": make_rows(5)})
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    with pytest.raises(UsageError, match="compiled"):
        find_batch_sizes(model, path, memory_limit=1)
