"""Where buckets end: the optimum against brute force, and what every strategy promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import PlanError
from lengthwise.dataset.options import MAX_LENGTH
from lengthwise.transforms import (
    Buckets,
    choose_buckets,
    fixed_boundaries,
    geometric_boundaries,
    length_histogram,
    optimal_boundaries,
    padding_curve,
    padding_fraction,
    quantile_boundaries,
    width_boundaries,
)
from lengthwise.transforms.boundaries import STRATEGIES

ALTERNATIVES = (quantile_boundaries, geometric_boundaries, width_boundaries)
# Counts so small that boundaries differ by a slot or two: a rounding of the envelope shows.
TIGHT = st.dictionaries(st.integers(1, 20), st.integers(1, 3), min_size=1, max_size=9)
SMALL = st.dictionaries(st.integers(1, 20), st.integers(1, 30), min_size=1, max_size=8)


def slots_of(histogram, boundaries):
    """Slots that rows take, counted one length at a time."""
    return sum(
        rows * min(end for end in boundaries if length <= end) for length, rows in histogram.items()
    )


def aligned(length, align):
    return -(-length // align) * align


def least_slots(histogram, num_buckets, align):
    """The fewest slots over all sets of boundaries."""
    ends = sorted({aligned(length, align) for length in histogram})
    return min(
        slots_of(histogram, [*chosen, ends[-1]])
        for size in range(min(num_buckets, len(ends)))
        for chosen in itertools.combinations(ends[:-1], size)
    )


@st.composite
def large_histograms(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(1, 3000))
    kind = draw(st.sampled_from(["lognormal", "uniform", "two humps"]))
    if kind == "lognormal":
        lengths = rng.lognormal(4, draw(st.floats(0.1, 1.5)), rows)
    elif kind == "uniform":
        lengths = rng.integers(1, 1000, rows)
    else:
        lengths = rng.normal(np.where(rng.random(rows) < 0.9, 30, 700), 20)
    return length_histogram(np.clip(lengths, 1, 5000).astype(int))


@settings(max_examples=600)
@given(TIGHT | SMALL, st.integers(1, 6), st.sampled_from([1, 1, 2, 5]))
def test_the_optimum_is_that_of_brute_force(histogram, num_buckets, align):
    boundaries = optimal_boundaries(histogram, num_buckets, align)

    assert slots_of(histogram, boundaries) == least_slots(histogram, num_buckets, align)


@given(large_histograms(), st.integers(1, 20), st.sampled_from([1, 8]))
def test_the_optimum_is_never_worse_than_any_alternative(histogram, num_buckets, align):
    best = slots_of(histogram, optimal_boundaries(histogram, num_buckets, align))

    for alternative in ALTERNATIVES:
        assert best <= slots_of(histogram, alternative(histogram, num_buckets, align))


@given(large_histograms() | SMALL, st.integers(1, 20), st.sampled_from([1, 3, 8, 512]))
def test_boundaries_of_every_strategy_hold_every_row(histogram, num_buckets, align):
    longest = aligned(max(histogram), align)
    for find in STRATEGIES.values():
        boundaries = find(histogram, num_buckets, align)

        assert 1 <= len(boundaries) <= num_buckets
        assert boundaries == sorted(set(boundaries))
        assert boundaries[0] > 0 and boundaries[-1] == longest
        assert all(end % align == 0 for end in boundaries)
        assert all(type(end) is int for end in boundaries)


@given(SMALL, st.integers(1, 4))
def test_as_many_optimal_buckets_as_asked_for_or_no_padding_of_aligned_steps(histogram, align):
    ends = sorted({aligned(length, align) for length in histogram})

    for num_buckets in range(1, len(ends) + 3):
        boundaries = optimal_boundaries(histogram, num_buckets, align)
        assert len(boundaries) == min(num_buckets, len(ends))
    assert boundaries == ends


@given(large_histograms(), st.sampled_from([1, 8]))
def test_more_buckets_never_pad_more(histogram, align):
    curve = padding_curve(histogram, align=align, most=12)

    fractions = [point.padding_fraction for point in curve]
    assert fractions == sorted(fractions, reverse=True)
    for num_buckets, point in enumerate(curve, 1):
        assert list(point.max_lengths) == optimal_boundaries(histogram, num_buckets, align)
        assert point.padding_fraction == padding_fraction(histogram, point.max_lengths)


@pytest.mark.parametrize("strategy", ["quantile", "geometric", "width"])
def test_every_strategy_has_a_curve(strategy):
    histogram = {3: 5, 9: 2, 17: 9, 40: 1}

    curve = padding_curve(histogram, strategy=strategy, align=4, most=10)

    assert [list(point.max_lengths) for point in curve] == [
        STRATEGIES[strategy](histogram, k, 4) for k in (1, 2, 3, 4)
    ]


@given(SMALL, st.integers(1, 4))
def test_padding_fraction_is_counted_over_all_slots(histogram, align):
    boundaries = optimal_boundaries(histogram, 3, align)
    slots = slots_of(histogram, boundaries)
    steps = sum(length * rows for length, rows in histogram.items())

    assert padding_fraction(histogram, boundaries) == pytest.approx((slots - steps) / slots)


def test_padding_fraction_of_nothing_is_zero():
    assert padding_fraction({}, [4]) == 0


def test_rows_longer_than_the_last_boundary_have_no_padding_fraction():
    with pytest.raises(PlanError, match="the longest row has 9 steps, the last bucket ends at 8"):
        padding_fraction({3: 1, 9: 1}, [4, 8])


def test_quantiles_give_each_bucket_as_many_rows():
    assert quantile_boundaries(dict.fromkeys(range(1, 101), 7), 4) == [25, 50, 75, 100]
    assert quantile_boundaries({1: 1, 2: 1, 3: 98}, 4) == [3]


def test_geometric_boundaries_grow_by_one_factor():
    assert geometric_boundaries({1: 1, 2**24: 1}, 25) == [2**k for k in range(25)]
    assert geometric_boundaries({1: 1, 10**6: 1}, 7) == [10**k for k in range(7)]
    assert geometric_boundaries({5: 3}, 4) == [5]


def test_width_boundaries_stand_at_equal_distances():
    assert width_boundaries({1: 1, 100: 1}, 4) == [25, 50, 75, 100]
    assert width_boundaries({1: 1, 10: 1}, 3) == [4, 7, 10]


def test_fixed_boundaries_are_kept_or_aligned():
    assert fixed_boundaries({2: 10, 9: 5}, [4, 8, 12]) == [4, 8, 12]
    assert fixed_boundaries({2: 10, 9: 5}, [3, 4, 10], align=4) == [4, 12]


@pytest.mark.parametrize(
    ("boundaries", "message"),
    [
        ([4, 8], "the longest row has 9 steps, the last of --boundaries is 8: add a boundary"),
        ([], "there must be at least one bucket"),
        ([8, 4, 16], "--boundaries must ascend"),
        ([-5, 16], "-5 follows 0"),
    ],
)
def test_fixed_boundaries_that_do_not_hold_every_row_are_refused(boundaries, message):
    with pytest.raises(PlanError) as error:
        fixed_boundaries({2: 10, 9: 5}, boundaries)

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("histogram", "num_buckets", "align", "message"),
    [
        ({}, 4, 1, "the length histogram is empty"),
        ({3: 0}, 4, 1, "the length histogram is empty"),
        ({0: 1, 3: 1}, 4, 1, "must be at least 1, found length 0"),
        ({3: -1}, 4, 1, "with -1 rows at the least"),
        ({3: 1}, 0, 1, "num_buckets and align must be at least 1, got 0 and 1"),
        ({3: 1}, 1, 0, "num_buckets and align must be at least 1, got 1 and 0"),
        ({3: 1}, 1, 2**70, f"must be at most {MAX_LENGTH}"),
        ({2**70: 1}, 1, 1, f"must be at most {MAX_LENGTH}"),
    ],
)
@pytest.mark.parametrize("find", [*STRATEGIES.values()])
def test_what_has_no_boundaries_is_refused(find, histogram, num_buckets, align, message):
    with pytest.raises(PlanError) as error:
        find(histogram, num_buckets, align)

    assert message in str(error.value)


def test_lengths_without_rows_do_not_count():
    for find in STRATEGIES.values():
        assert find({2: 3, 5: 0, 7: 1, 99: 0}, 3) == find({2: 3, 7: 1}, 3)


def test_huge_counts_of_rows_do_not_overflow():
    histogram = {1: 2**40, 1000: 2**40, 10_000: 2**40}

    assert optimal_boundaries(histogram, 3) == [1, 1000, 10_000]
    assert optimal_boundaries(histogram, 2) == [1000, 10_000]


def test_twenty_thousand_lengths_are_no_obstacle():
    rng = np.random.default_rng(0)
    histogram = dict(enumerate(rng.integers(1, 1000, 20_000).tolist(), 1))

    boundaries = optimal_boundaries(histogram, 16)

    assert len(boundaries) == 16
    assert boundaries[-1] == 20_000
    # The optimum for almost equal counts is close to equal widths, and not worse.
    assert slots_of_many(histogram, boundaries) <= slots_of_many(
        histogram, width_boundaries(histogram, 16)
    )


def slots_of_many(histogram, boundaries):
    lengths = np.array(list(histogram))
    return int(
        (np.array(boundaries)[np.searchsorted(boundaries, lengths)] * [*histogram.values()]).sum()
    )


def points(*fractions):
    return [Buckets((i + 1,), fraction) for i, fraction in enumerate(fractions)]


def test_buckets_are_added_while_each_saves_half_a_percent_of_all_slots():
    curve = points(0.5, 0.3, 0.2, 0.194, 0.190, 0.0)

    assert choose_buckets(curve, rows=10**6) == curve[3]


def test_all_buckets_of_the_curve_are_taken_while_each_saves_enough():
    curve = points(0.5, 0.3, 0.1)

    assert choose_buckets(curve, rows=10**6) == curve[-1]


@pytest.mark.parametrize(("rows", "buckets"), [(1, 1), (127, 1), (128, 2), (200, 3), (10**6, 4)])
def test_there_are_no_more_buckets_than_batches_can_be_filled_of(rows, buckets):
    curve = points(0.5, 0.3, 0.2, 0.1)

    assert choose_buckets(curve, rows=rows) == curve[buckets - 1]
