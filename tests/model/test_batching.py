"""Batch sizes of buckets."""

from __future__ import annotations

import pytest

from lengthwise.dataset import UsageError
from lengthwise.model import TokenBudget
from lengthwise.model.batching import batch_sizes


def test_a_budget_gives_long_buckets_smaller_batches():
    assert batch_sizes(TokenBudget(1000), [10, 30, 1000]) == (100, 33, 1)


def test_a_budget_rounds_down_to_the_multiple():
    assert batch_sizes(TokenBudget(1000, multiple_of=8), [10, 30]) == (96, 32)


def test_a_row_longer_than_the_budget_is_still_read():
    assert TokenBudget(100, multiple_of=8).batch_size(max_length=101) == 1


def test_a_multiple_that_does_not_fit_gives_one_row():
    assert TokenBudget(100, multiple_of=8).batch_size(max_length=50) == 1


@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_sizes_that_are_no_positive_integer_are_refused(size):
    with pytest.raises(UsageError, match="batch_size must be a positive integer"):
        batch_sizes(size, [10])


@pytest.mark.parametrize("values", [{"steps": 0}, {"steps": 10, "multiple_of": 0}])
def test_budgets_of_nothing_are_refused(values):
    with pytest.raises(UsageError, match="positive integer, not 0"):
        TokenBudget(**values)
