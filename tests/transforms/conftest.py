"""Ragged rows of every kind of feature."""

import numpy as np
import pytest
from hypothesis import strategies as st

from lengthwise.dataset import Feature, Schema
from lengthwise.transforms import RaggedRows

SCHEMA = Schema(
    (
        Feature("bias", "float32", (3,), sequence=False),
        Feature("frames", "float32", (2, 2)),
        Feature("id", "int64", sequence=False, label=True),
        Feature("key", "int64"),
        Feature("pair", "int64", (2,)),
        Feature("value", "float32"),
    )
)
STORAGE = {
    "bias": "float32",
    "frames": "float32",
    "id": "int64",
    "key": "uint8",
    "pair": "int32",
    "value": "float32",
}
LONGEST = 9


@pytest.fixture(scope="session")
def schema():
    return SCHEMA


@pytest.fixture(scope="session")
def storage():
    """Feature -> numpy dtype of the values of `ragged_batches`."""
    return STORAGE


@pytest.fixture(scope="session")
def ragged_batches():
    """A strategy for rows of `schema`, none longer than nine steps, some without a step."""
    return draw_rows()


@st.composite
def draw_rows(draw):
    lengths = np.array(draw(st.lists(st.integers(0, LONGEST), max_size=8)), np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    steps = int(lengths.sum())
    observed = rng.random(steps) < 0.7 if draw(st.booleans()) else None
    values, contexts = {}, {}
    for feature in SCHEMA.features:
        shape = (steps if feature.sequence else len(lengths), *feature.shape)
        dtype = np.dtype(STORAGE[feature.name])
        if dtype.kind == "f":
            drawn = rng.normal(size=shape).astype(dtype)
        else:
            drawn = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, True)
        if feature.sequence and observed is not None:
            drawn[~observed] = 0
        (values if feature.sequence else contexts)[feature.name] = drawn
    keys = rng.integers(0, 2**64, len(lengths), np.uint64) if draw(st.booleans()) else None
    return RaggedRows(lengths, values, contexts, observed, keys)
