"""Random orders that are computed, not kept."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lengthwise.model.permutation import Permutation


@settings(max_examples=60)
@given(st.integers(0, 3000), st.integers(0, 10))
@example(0, 0)
@example(1, 0)
@example(2**10 + 1, 0)
def test_each_number_comes_once(n, seed):
    order = Permutation(n, (seed,))
    assert len(order) == n
    assert sorted(order[np.arange(n)].tolist()) == list(range(n))


def test_any_place_can_be_asked_for():
    order = Permutation(1000, (3,))
    everything = order[np.arange(1000)]
    some = np.array([999, 0, 17, 17])
    assert order[some].tolist() == everything[some].tolist()


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_of_a_few_are_as_likely(n):
    orders, each = math.factorial(n), 60
    counts = Counter(
        tuple(Permutation(n, (seed, 1))[np.arange(n)].tolist()) for seed in range(orders * each)
    )
    chi_square = sum((counts[order] - each) ** 2 / each for order in counts)
    chi_square += each * (orders - len(counts))
    degrees = orders - 1
    assert chi_square < degrees + 3.5 * math.sqrt(2 * degrees)


def test_neighbours_end_up_anywhere():
    n = 100_000
    order = Permutation(n, (0, 0))[np.arange(n)]
    place = np.empty(n)
    place[order] = np.arange(n)
    distance = np.abs(np.diff(place)) / n
    # Two random places on a line are a third of it apart on average; the standard error is 0.0008.
    assert abs(distance.mean() - 1 / 3) < 0.003
    for quantile in (0.01, 0.1, 0.5, 0.9):
        assert abs(np.quantile(distance, quantile) - (1 - np.sqrt(1 - quantile))) < 0.004
    # What stands side by side in the order was no nearer on disk than by chance, nor in step.
    steps, counts = np.unique(np.diff(order), return_counts=True)
    assert np.mean(np.abs(steps) < n / 100) < 0.02
    assert counts.max() <= 8


def test_orders_of_two_epochs_have_nothing_in_common():
    n = 100_000
    one, two = (Permutation(n, (0, epoch))[np.arange(n)] for epoch in range(2))
    assert (one == two).sum() <= 8  # One is expected.
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.015
    assert abs(np.corrcoef(one, np.arange(n))[0, 1]) < 0.015


def test_what_is_kept_grows_with_the_root_of_the_rows():
    for n in (10**4, 10**6, 10**8):
        order = Permutation(n, (0,))
        kept = sum(value.nbytes for value in vars(order).values() if isinstance(value, np.ndarray))
        assert kept <= 2 * 128 * math.sqrt(n)


def test_the_order_is_the_same_on_every_machine():
    assert Permutation(8, (1, 2, 3))[np.arange(8)].tolist() == [0, 5, 7, 4, 1, 3, 2, 6]
