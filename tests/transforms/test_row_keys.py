"""Row keys decide split, shard and order: they must never change."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import PlanError
from lengthwise.transforms import assign_shards, assign_splits, row_keys

FILES = st.text(min_size=1, max_size=12)
SEEDS = st.integers(0, 2**63 - 1)

# Pinned: another value would move rows of existing datasets to other splits and shards.
GOLDEN_FIRST = [
    18084540467167579814,
    13885321612992172121,
    16113950116069622210,
    4587267031877158500,
]
GOLDEN_FAR = [8828373356077971910, 12848114362661752309, 13019047442187260699]
GOLDEN_SPLITS = "TtvTvTvTtttTTtttvTvTTTTTTTTvTTvvTTTTtvTv"
GOLDEN_SHARDS = [6, 5, 6, 1, 5, 6, 4, 5, 6, 1, 6, 3, 2, 0, 0, 1, 3, 1, 4, 3]


def test_keys_are_those_of_the_first_release():
    assert row_keys(0, "a.parquet", 0, 4).tolist() == GOLDEN_FIRST
    assert row_keys(2**63 - 1, "folder/ü 1.parquet", 10**12, 3).tolist() == GOLDEN_FAR


def test_splits_are_those_of_the_first_release():
    keys = row_keys(3, "a.parquet", 0, 40)

    drawn = assign_splits(keys, {"test": 0.2, "train": 0.5, "val": 0.3})

    assert "".join("tTv"[split] for split in drawn) == GOLDEN_SPLITS


def test_shards_are_those_of_the_first_release():
    assert assign_shards(row_keys(0, "a.parquet", 0, 20), 7).tolist() == GOLDEN_SHARDS


def splitmix64(state):
    """The finaliser as published, in plain integers."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def test_the_mixer_is_splitmix64():
    # The first numbers of SplitMix64 with seed 1234567, as given with the published source.
    gamma = 0x9E3779B97F4A7C15
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix64((1234567 + n * gamma) % 2**64) for n in (1, 2, 3)] == published

    first, *others = row_keys(0, "a", 0, 6).tolist()
    state = unmixed(first)
    assert others == [splitmix64((state + n * gamma) % 2**64) for n in range(1, 6)]


def unmixed(key):
    """The state that the finaliser mixed into this key."""

    def unshifted(value, bits):
        state = value
        for _ in range(64 // bits):
            state = value ^ state >> bits
        return state

    state = unshifted(key, 31) * pow(0x94D049BB133111EB, -1, 2**64) % 2**64
    state = unshifted(state, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64) % 2**64
    return unshifted(state, 30)


@given(SEEDS, FILES, st.integers(0, 2**40), st.lists(st.integers(0, 50), max_size=6))
def test_keys_do_not_depend_on_batches(seed, file, first_row, batches):
    whole = row_keys(seed, file, first_row, sum(batches))
    parts = []
    for rows in batches:
        parts.append(row_keys(seed, file, first_row, rows))
        first_row += rows

    assert whole.dtype == np.uint64
    np.testing.assert_array_equal(np.concatenate([*parts, whole[:0]]), whole)


def test_keys_of_a_file_never_collide():
    assert len(np.unique(row_keys(0, "a", 0, 100_000))) == 100_000


def test_keys_differ_by_seed_and_by_file():
    keys = [row_keys(seed, file, 0, 100) for seed in (0, 1, 10) for file in ("a", "0a", "b/a", "ü")]

    assert len(np.unique(np.concatenate(keys))) == len(keys) * 100


def test_names_of_files_need_not_be_text():
    keys = row_keys(0, os.fsdecode(b"\xff.parquet"), 0, 3)

    assert len(set(keys.tolist()) | set(row_keys(0, os.fsdecode(b"\xfe.parquet"), 0, 3))) == 6


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 1.0},
        {"test": 0.1, "train": 0.8, "val": 0.1},
        {"a": 0.001, "b": 0.999},
        {"empty": 0.0, "full": 1.0, "none": 0.0},
    ],
)
def test_splits_get_their_fractions_within_binomial_bounds(fractions):
    rows = 200_000
    drawn = assign_splits(row_keys(1, "a.parquet", 0, rows), fractions)

    counts = np.bincount(drawn, minlength=len(fractions))
    for count, fraction in zip(counts, fractions.values(), strict=True):
        # Five standard deviations: one false alarm in two million.
        assert abs(count - rows * fraction) <= 5 * math.sqrt(rows * fraction * (1 - fraction))


def test_the_split_of_a_row_does_not_depend_on_the_other_rows():
    keys = row_keys(0, "a", 0, 1000)
    fractions = {"a": 0.3, "b": 0.7}

    one_by_one = [assign_splits(keys[i : i + 1], fractions)[0] for i in range(1000)]

    np.testing.assert_array_equal(assign_splits(keys, fractions), one_by_one)


def test_the_order_within_a_split_does_not_depend_on_the_split():
    keys = row_keys(0, "a", 0, 100_000)
    val = keys[assign_splits(keys, {"train": 0.9, "val": 0.1}) == 1]

    # Keys of one split are spread over the whole range like those of all rows.
    counts, _ = np.histogram(val / 2**64, bins=10, range=(0, 1))
    expected = len(val) / 10
    assert (abs(counts - expected) < 5 * math.sqrt(expected)).all()


def test_there_may_be_256_splits_and_no_more():
    keys = row_keys(0, "a", 0, 100_000)

    drawn = assign_splits(keys, {f"s{i}": 1 / 256 for i in range(256)})
    assert np.unique(drawn).tolist() == list(range(256))
    with pytest.raises(PlanError, match="257 splits are more than 256"):
        assign_splits(keys, {f"s{i}": 1 / 257 for i in range(257)})


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(1, 2**31 - 1))
def test_shards_hold_equal_ranges_of_keys_in_order(keys, num_shards):
    keys = np.array(sorted([0, *keys, 2**64 - 1]), np.uint64)

    shards = assign_shards(keys, num_shards)

    assert shards[0] == 0 and shards[-1] == num_shards - 1
    assert (np.diff(shards) >= 0).all()
    for key, shard in zip(keys.tolist(), shards.tolist(), strict=True):
        # Ranges are cut at multiples of 2**32.
        assert shard == (key >> 32 << 32) * num_shards // 2**64


def test_shards_are_filled_evenly():
    counts = np.bincount(assign_shards(row_keys(0, "a", 0, 100_000), 10))

    assert len(counts) == 10
    assert (abs(counts - 10_000) < 5 * math.sqrt(10_000)).all()


def test_no_rows_have_no_keys_splits_or_shards():
    keys = row_keys(0, "a", 5, 0)

    assert len(keys) == len(assign_splits(keys, {"a": 1.0})) == len(assign_shards(keys, 3)) == 0
