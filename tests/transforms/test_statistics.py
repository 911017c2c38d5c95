"""Statistics come out the same to the last bit, whatever the order in which rows are merged."""

import json
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import Feature
from lengthwise.transforms import Summary, summarize
from lengthwise.transforms import statistics as module
from lengthwise.transforms.statistics import exact_sum

FRAMES = Feature("frames", "float32")
VECTORS = Feature("vectors", "float32", (3,))
TOKENS = Feature("tokens", "int64")
LABEL = Feature("label", "int64", sequence=False, label=True)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)


def summary_of(rows, feature=FRAMES, dtype=np.float32):
    """The summary of rows given as lists of steps; None is a missing step."""
    steps = [step for row in rows for step in row]
    observed = np.array([step is not None for step in steps], bool)
    zero = np.zeros(feature.shape)
    values = np.array([zero if step is None else step for step in steps], dtype)
    lengths = np.array([len(row) for row in rows], np.int64)
    return summarize(
        values.reshape(-1, *feature.shape), lengths, feature, None if observed.all() else observed
    )


def bits_of(summary, feature=FRAMES):
    """The statistics as they stand in the plan, to the last digit."""
    return json.dumps(summary.statistics(feature).to_json())


@given(st.lists(DOUBLES, max_size=50))
def test_doubles_are_added_exactly(values):
    expected = sum(map(Fraction, values)) * 2**1074

    assert exact_sum(np.array(values, np.float64)) == expected


def test_the_smallest_and_the_largest_doubles_are_added_exactly():
    tiny, huge = 5e-324, 1.7976931348623157e308
    values = [tiny, huge, -3 * tiny, huge, 2.0**-1022, -(2.0**-1022), 1.0, -huge, -huge]

    assert exact_sum(np.array(values)) == (1 << 1074) - 2


def test_many_doubles_of_one_exponent_are_added_exactly():
    value = np.nextafter(2.0, 1.0)
    values = np.full(1 << 16, value)

    assert exact_sum(values) == Fraction(value) * 2 ** (16 + 1074)
    assert exact_sum(-values) == -exact_sum(values)


ROWS = st.lists(st.lists(st.none() | FLOAT32, min_size=1, max_size=6), min_size=1, max_size=10)


@given(ROWS, st.randoms())
def test_any_order_and_any_grouping_of_rows_gives_the_same_bits(rows, random):
    expected = bits_of(summary_of(rows))
    random.shuffle(rows)
    cuts = sorted(random.choices(range(len(rows) + 1), k=3))
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    summaries = [summary_of(part) if part else Summary() for part in parts]
    random.shuffle(summaries)
    while len(summaries) > 1:
        summaries.append(summaries.pop(0).merged(summaries.pop(0)))

    assert bits_of(summaries[0]) == expected


def test_the_order_of_addition_would_matter_to_floats():
    # What the test above would not notice on harmless numbers.
    values = np.random.default_rng(0).lognormal(0, 9, 1000)
    rows = [[value] for value in np.float32(values)]

    assert sum(values) != sum(values[::-1])
    assert bits_of(summary_of(rows)) == bits_of(summary_of(rows[::-1]))


@given(ROWS)
def test_statistics_are_those_of_the_observed_values(rows):
    values = [float(np.float32(step)) for row in rows for step in row if step is not None]
    statistics = summary_of(rows).statistics(FRAMES)

    assert statistics.count == len(values)
    assert statistics.missing == sum(step is None for row in rows for step in row)
    assert statistics.low == min(values, default=0)
    assert statistics.high == max(values, default=0)
    if not values:
        assert statistics.mean == statistics.variance == 0
        return
    scale = max(map(abs, values))
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    assert statistics.mean == pytest.approx(mean, rel=1e-12, abs=scale * 1e-12)
    assert statistics.variance == pytest.approx(variance, rel=1e-12, abs=scale**2 * 1e-12)
    assert statistics.variance >= 0


@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=1), min_size=1, max_size=8))
def test_statistics_of_integers_are_rounded_once(rows):
    values = [Fraction(step) for row in rows for step in row]
    mean = sum(values) / len(values)

    statistics = summary_of(rows, TOKENS, np.int16).statistics(TOKENS)

    assert statistics.mean == float(mean)
    assert statistics.variance == float(sum((v - mean) ** 2 for v in values) / len(values))
    assert (statistics.low, statistics.high) == (min(values), max(values))
    assert type(statistics.low) is type(statistics.high) is int


def test_the_ends_of_int64_are_kept():
    statistics = summary_of([[-(2**63), 2**63 - 1]], TOKENS, np.int64).statistics(TOKENS)

    assert (statistics.low, statistics.high) == (-(2**63), 2**63 - 1)


def test_unsigned_and_small_integers_do_not_wrap():
    statistics = summary_of([[255, 255, 255]], TOKENS, np.uint8).statistics(TOKENS)

    assert (statistics.mean, statistics.variance) == (255, 0)


def test_missing_steps_do_not_count_as_zeros():
    statistics = summary_of([[5.0, None, 7.0], [None]]).statistics(FRAMES)

    assert (statistics.count, statistics.missing) == (2, 2)
    assert (statistics.mean, statistics.variance) == (6, 1)
    assert (statistics.low, statistics.high) == (5, 7)


def test_a_feature_that_is_never_observed_has_no_values():
    statistics = summary_of([[None, None], [None]]).statistics(FRAMES)

    assert (statistics.count, statistics.missing) == (0, 3)
    assert statistics.mean == statistics.variance == statistics.low == statistics.high == 0


def test_every_element_of_a_vector_counts():
    statistics = summary_of([[[1, 2, 3], None], [[4, 5, 6]]], VECTORS).statistics(VECTORS)

    assert (statistics.count, statistics.missing) == (6, 3)
    assert (statistics.mean, statistics.low, statistics.high) == (3.5, 1, 6)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_rows_are_summed_by_themselves_however_many_fit_into_a_block(monkeypatch, size):
    rng = np.random.default_rng(size)
    lengths = rng.integers(1, 50, 200)
    values = rng.lognormal(0, 9, lengths.sum()).astype(np.float32)
    whole = summarize(values, lengths, FRAMES)

    monkeypatch.setattr(module, "_BLOCK_VALUES", size)

    assert bits_of(summarize(values, lengths, FRAMES)) == bits_of(whole)
    for first in (0, 100):
        part = summarize(values[lengths[:first].sum() :], lengths[first:], FRAMES)
        rest = summarize(values[: lengths[:first].sum()], lengths[:first], FRAMES)
        assert bits_of(part.merged(rest)) == bits_of(whole)


def test_a_row_longer_than_a_block_is_summed():
    values = np.ones(module._BLOCK_VALUES + 5, np.float32)

    statistics = summarize(values, np.array([len(values) - 1, 1]), FRAMES).statistics(FRAMES)

    assert (statistics.mean, statistics.variance) == (1, 0)


def test_labels_are_counted_by_value():
    values = np.random.default_rng(0).integers(-3, 5, 500).astype(np.int8)
    ones = np.ones(250, np.int64)

    summary = summarize(values[:250], ones, LABEL).merged(summarize(values[250:], ones, LABEL))

    assert summary.statistics(LABEL).values == dict(sorted(Counter(values.tolist()).items()))
    assert list(summary.statistics(LABEL).values) == sorted(set(values.tolist()))


def test_labels_per_step_are_counted_where_observed():
    tag = Feature("tag", "int64", label=True)

    assert summary_of([[1, None, 1], [2]], tag, np.int64).statistics(tag).values == {1: 2, 2: 1}


def test_only_labels_of_integers_are_counted():
    target = Feature("target", "float32", sequence=False, label=True)

    assert summary_of([[1], [2]], TOKENS, np.int64).statistics(TOKENS).values is None
    assert summary_of([[1.0], [2.0]], target).statistics(target).values is None


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_labels_with_too_many_values_are_not_counted_in_any_order(order):
    def summarized(values):
        return summarize(np.array(values), np.ones(len(values), np.int64), LABEL)

    parts = [summarized(range(3000)), summarized(range(2000, 4096)), summarized([4096])]

    assert len(parts[0].merged(parts[1]).values) == 4096
    merged = Summary()
    for part in parts[order]:
        merged = merged.merged(part)
    assert merged.values is None
    assert merged.merged(summarized([1])).statistics(LABEL).values is None
    assert summarized(range(4097)).values is None


@given(ROWS)
def test_a_summary_is_read_back_from_json(rows):
    summary = summary_of(rows)

    again = Summary.from_json(json.loads(json.dumps(summary.to_json())))

    assert again == summary


def test_a_summary_of_labels_is_read_back_from_json():
    for values in ([5, -7, 5], range(5000)):
        summary = summarize(np.array(values), np.ones(len(values), np.int64), LABEL)

        assert Summary.from_json(json.loads(json.dumps(summary.to_json()))) == summary


def test_a_summary_of_nothing_changes_nothing():
    summary = summary_of([[1.0, None], [2.0]])

    assert summary.merged(Summary()) == Summary().merged(summary) == summary


@given(st.lists(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=6), min_size=1))
def test_integers_are_added_exactly(rows):
    summary = summary_of(rows, TOKENS, np.int32)
    values = [value for row in rows for value in row]

    assert summary.total == sum(values) << 1074
    assert summary.squares == sum(value * value for value in values) << 1074


@pytest.mark.parametrize("largest", [2**18, 2**40])
def test_integers_are_added_the_same_way_alone_and_together(largest):
    # The larger ones do not fit into what doubles add exactly.
    values = np.random.default_rng(0).integers(-largest, largest, 300_000)
    rows = np.full(3_000, 100)
    whole = summarize(values, rows, TOKENS)
    parts = [
        summarize(values[first : first + 100], np.array([100]), TOKENS)
        for first in range(0, 300_000, 100)
    ]
    merged = Summary()
    for part in parts:
        merged = merged.merged(part)

    assert (merged.total, merged.squares) == (whole.total, whole.squares)
