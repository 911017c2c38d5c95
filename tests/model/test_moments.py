"""Mean and variance of features over real steps."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.dataset import Feature
from lengthwise.model.moments import feature_moments

FRAMES = Feature("frames", "float32", (2,))
AGE = Feature("age", "float32", sequence=False)


def batches_of(values, ages, mask, size):
    for i in range(0, len(mask), size):
        part = slice(i, i + size)
        yield {"frames": values[part], "age": ages[part], "mask": mask[part]}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    values = rng.normal(loc=[5, -1000], scale=[2, 0.1], size=(40, 6, 2)).astype(np.float32)
    mask = np.arange(6) < rng.integers(1, 7, 40)[:, np.newaxis]
    return values, rng.normal(30, 9, 40).astype(np.float32), mask


def test_moments_are_those_of_the_real_steps(data):
    values, ages, mask = data
    padded = np.where(mask[..., np.newaxis], values, np.nan)
    moments = feature_moments(batches_of(padded, ages, mask, 7), [FRAMES, AGE], max_steps=10**9)
    real = values[mask].astype(np.float64)
    np.testing.assert_allclose(moments["frames"][0], real.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments["frames"][1], real.var(0), rtol=1e-9)
    np.testing.assert_allclose(moments["age"][0], [ages.mean(dtype=np.float64)], rtol=1e-12)


def test_a_value_that_is_no_number_is_left_out(data):
    values, ages, mask = data
    ages = ages.copy()
    ages[3] = np.nan
    moments = feature_moments(batches_of(values, ages, mask, 7), [AGE], max_steps=10**9)
    rest = np.delete(ages, 3).astype(np.float64)
    np.testing.assert_allclose(moments["age"], [[rest.mean()], [rest.var()]], rtol=1e-9)


def test_reading_stops_when_there_are_enough_steps(data):
    values, ages, mask = data
    seen = []

    def counted():
        for batch in batches_of(values, ages, mask, 4):
            seen.append(int(batch["mask"].sum()))
            yield batch

    feature_moments(counted(), [FRAMES], max_steps=30)
    assert sum(seen[:-2]) < 30 <= sum(seen)
    assert len(seen) < 10


def test_without_any_value_nothing_is_changed():
    mean, variance = feature_moments([], [FRAMES], max_steps=10)["frames"]
    assert mean.tolist() == [0, 0]
    assert variance.tolist() == [1, 1]
