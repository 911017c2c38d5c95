"""Constants of normalisation, and what they make of values."""

from __future__ import annotations

import numpy as np
import pytest

from lengthwise.dataset import Feature, PlanError
from lengthwise.transforms.normalization import normalization_of, normalize
from lengthwise.transforms.statistics import Summary, summarize

X = Feature("x", "float32")


def constants_of(kind: str, values: np.ndarray, *, low: float = 0.0, high: float = 0.0):
    values = values.astype(np.float32)
    found = summarize(values, np.array([len(values)]), X)
    low, high = min(low, float(values.min())), max(high, float(values.max()))
    return normalization_of(kind, [found], X, low=low, high=high)


@pytest.mark.parametrize("kind", ["zscore", "minmax"])
@pytest.mark.parametrize("value", [1 / 3, 3.3e-5, -1e9, 0.0])
def test_a_value_that_never_changes_becomes_zero_and_is_not_blown_up(kind, value):
    # Rounded sums of many such values have a variance that is not quite 0.
    values = np.full(1999, value, np.float32)
    constants = constants_of(kind, values, high=10.0)
    assert (constants.shift, constants.scale) == ((float(values[0]),), (1.0,))
    assert not normalize(values, constants).any()


def test_a_spread_that_is_lost_to_rounding_divides_by_nothing():
    one = 1 << 1074
    found = Summary(count=2, total=2 * one, squares=2 * one, low=1.0, high=1.0000001)
    constants = normalization_of("zscore", [found], X, low=1.0, high=1.0000001)
    assert (constants.shift, constants.scale) == ((1.0,), (1.0,))


def test_each_kind_is_what_its_name_says():
    values = np.array([1, 2, 3, 6], np.float32)
    by_zscore = normalize(values, constants_of("zscore", values))
    np.testing.assert_allclose([by_zscore.mean(), by_zscore.std()], [0, 1], atol=1e-6)
    by_minmax = normalize(values, constants_of("minmax", values))
    np.testing.assert_allclose(by_minmax, [0, 0.2, 0.4, 1], rtol=1e-6)
    by_log = normalize(values, constants_of("log1p", values))
    np.testing.assert_allclose(by_log, np.log([2, 3, 4, 7]), rtol=1e-6)


def test_constants_that_make_a_value_infinite_are_refused():
    near = np.array([1, np.nextafter(np.float32(1), np.float32(2))])
    for bounds in ({"high": 3e38}, {"low": -3e38}):
        with pytest.raises(PlanError, match=r"--normalize x=minmax: values between .* infinite"):
            constants_of("minmax", near, **bounds)
    assert constants_of("minmax", near, high=3e30).scale[0] > 1e6
