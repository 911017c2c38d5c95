"""The plan: readable, editable, complete, and never trusted."""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import (
    Feature,
    FeatureStatistics,
    LengthwiseError,
    Plan,
    PlanError,
    PlanOptions,
    Schema,
    SourceOptions,
)
from lengthwise.dataset.options import MAX_LENGTH, check_split_name

SCHEMA = Schema(
    (
        Feature("frames", "float32", (2,)),
        Feature("speaker", "int64", sequence=False, label=True),
        Feature("tokens", "int64"),
    )
)
STATISTICS = {
    "frames": FeatureStatistics(40, 2, 0.5, 1.25, -3.5, 2.25),
    "speaker": FeatureStatistics(7, 0, 1.0, 0.5, -1, 3, values={-1: 3, 0: 2, 3: 2}),
    "tokens": FeatureStatistics(20, 1, 100.0, 9.0, 0, 300),
}
PLAN = Plan(
    schema=SCHEMA,
    options=PlanOptions(num_buckets=3, align=4, splits={"train": 0.75, "val": 0.25}, seed=7),
    max_lengths=(4, 8, 12),
    histograms={"train": {1: 2, 4: 1, 5: 3, 12: 1}, "val": {2: 1}},
    statistics=STATISTICS,
)


PLANNED = SourceOptions(group_by="id", types={"x": "int"}, shapes={"x": (2,)})
READING = SourceOptions().to_json()


def load(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan.json")
        path.write_text(text, encoding="utf-8")
        try:
            return Plan.load(path)
        except LengthwiseError as error:
            # The place comes first; the rest of the message is told without the folder.
            prefix = f"{path}: "
            assert str(error).startswith(prefix)
            raise type(error)(str(error).removeprefix(prefix)) from None
        finally:
            assert [path.name for path in Path(folder).iterdir()] == ["plan.json"]


def edited(**changes):
    """The text of the plan with members changed, `a__b=value` for a member of a member."""
    document = json.loads(PLAN.dumps())
    for path, value in changes.items():
        *parents, last = path.split("__")
        parent = document
        for name in parents:
            parent = parent[name]
        if value is ...:
            del parent[last]
        else:
            parent[last] = value
    return json.dumps(document)


def test_what_is_written_is_read_back():
    assert load(PLAN.dumps()) == PLAN


READINGS = st.none() | st.builds(
    SourceOptions,
    format=st.none() | st.sampled_from(["csv", "text"]),
    group_by=st.text(max_size=3),
    order_by=st.none() | st.text(max_size=3),
    types=st.dictionaries(st.text(max_size=3), st.sampled_from(["int", "float"]), max_size=2),
    shapes=st.dictionaries(st.text(max_size=3), st.sampled_from([(2,), (3, 4)]), max_size=2),
)
FRACTIONS = st.lists(st.integers(1, 100), min_size=1, max_size=4)


@st.composite
def plans(draw):
    max_lengths = sorted(draw(st.sets(st.integers(1, 60), min_size=1, max_size=5)))
    parts = draw(FRACTIONS)
    splits = {f"split{i}": part / sum(parts) for i, part in enumerate(parts)}
    options = PlanOptions(
        num_buckets=draw(st.none() | st.integers(1, 9)),
        align=draw(st.integers(1, 64)),
        max_length=draw(st.none() | st.integers(1, MAX_LENGTH)),
        overlong=draw(st.sampled_from(["error", "drop", "truncate_end", "truncate_start"])),
        empty=draw(st.sampled_from(["drop", "error"])),
        splits=splits,
        seed=draw(st.integers(0, 2**63 - 1)),
        shard_size=draw(st.integers(1, 3000)),
    )
    histograms = st.dictionaries(st.integers(1, max_lengths[-1]), st.integers(1, 50))
    return dataclasses.replace(
        PLAN,
        options=options,
        max_lengths=tuple(max_lengths),
        reading=draw(READINGS),
        histograms={split: dict(sorted(draw(histograms).items())) for split in splits},
    )


@given(plans())
def test_any_plan_is_read_back(plan):
    again = load(plan.dumps())

    assert again == plan
    assert again.dumps() == plan.dumps()


@given(plans())
def test_rows_shards_and_padding_are_those_counted_row_by_row(plan):
    slots = steps = 0
    shards = {}
    for split, histogram in plan.histograms.items():
        rows = dict.fromkeys(plan.max_lengths, 0)
        own_slots = own_steps = 0
        for length in (length for length, count in histogram.items() for _ in range(count)):
            end = min(t for t in plan.max_lengths if length <= t)
            rows[end] += 1
            own_slots += end
            own_steps += length
        assert plan.bucket_rows(split) == rows
        assert plan.padding_fraction(split) == pytest.approx(
            (own_slots - own_steps) / own_slots if own_slots else 0
        )
        slots, steps = slots + own_slots, steps + own_steps
        for end, count in rows.items():
            if count:
                size = count * plan.layout(end).stride
                wanted = -(-size // plan.options.shard_size)
                shards[split, end] = min(wanted, count)
    assert plan.padding_fraction() == pytest.approx((slots - steps) / slots if slots else 0)
    assert plan.shard_counts() == shards


def test_shards_take_at_most_their_size_on_average():
    plan = dataclasses.replace(PLAN, histograms={"train": {3: 1000}})
    stride = plan.layout(4).stride

    for size, count in ((1000 * stride, 1), (1000 * stride - 1, 2), (100 * stride, 10)):
        options = dataclasses.replace(plan.options, shard_size=size)
        assert dataclasses.replace(plan, options=options).shard_counts() == {("train", 4): count}


def test_there_are_never_more_shards_than_rows():
    options = dataclasses.replace(PLAN.options, shard_size=1)
    plan = dataclasses.replace(PLAN, options=options)

    assert plan.shard_counts() == {
        ("train", 4): 3,
        ("train", 8): 3,
        ("train", 12): 1,
        ("val", 4): 1,
    }


def test_widths_follow_from_the_values():
    assert PLAN.widths == {"speaker": 10, "tokens": 2}
    assert PLAN.layout(8)["tokens"].width == 2


def test_a_split_without_rows_has_no_padding_and_no_shards():
    plan = dataclasses.replace(PLAN, histograms={"train": {}, "val": {}})

    assert plan.padding_fraction("train") == plan.padding_fraction() == 0
    assert plan.shard_counts() == {}


def test_an_unknown_split_is_named_with_those_there_are():
    with pytest.raises(PlanError, match="no split 'test'; there are: train, val"):
        PLAN.padding_fraction("test")


def test_boundaries_may_be_edited_by_hand():
    plan = load(edited(max_lengths=[5, 20]))

    assert plan.bucket_rows("train") == {5: 6, 20: 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_buckets": 0}, "--buckets is 0; it must be at least 1"),
        ({"align": 0}, "--align is 0; it must be at least 1"),
        ({"align": 2**40}, f"--align is {2**40}; it must be at most {MAX_LENGTH}"),
        ({"max_length": 0}, "--max-length is 0; it must be at least 1"),
        ({"max_length": MAX_LENGTH + 1}, "it must be at most"),
        ({"shard_size": 0}, "--shard-size is 0; it must be at least 1"),
        ({"seed": -1}, "--seed is -1; it must be at least 0"),
        ({"seed": 2**63}, f"--seed is {2**63}; it must be at most {2**63 - 1}"),
        ({"strategy": "best"}, "--strategy is 'best'; it must be one of optimal, quantile"),
        ({"overlong": "keep"}, "--overlong is 'keep'; it must be one of error, drop"),
        ({"empty": "keep"}, "--empty is 'keep'; it must be one of drop, error"),
        ({"padding": "both"}, "--padding is 'both'; it must be one of right, left"),
        ({"nan": "drop"}, "--nan is 'drop'; it must be one of missing, keep, error"),
        ({"compression": "zip"}, "--compression is 'zip'; it must be one of none, gzip"),
        ({"fill": "median"}, "--fill is 'median'; it must be one of zero, forward, mean"),
        ({"fill": float("nan")}, "--fill is nan; it must be a finite number of 32 bits"),
        ({"fill": -3.5e38}, "--fill is -3.5e+38; it must be a finite number of 32 bits"),
        ({"pad_value": 1e39}, "--pad-value is 1e+39; it must be a finite number of 32 bits"),
        ({"normalize": {"x": "rank"}}, "--normalize x is 'rank'; it must be one of zscore"),
        ({"overlong": "split"}, "--overlong split needs --max-length"),
        ({"overlap": 1}, "--overlap is 1; it must be below --max-length, with --overlong split"),
        ({"overlap": 4, "max_length": 4, "overlong": "split"}, "--overlap is 4; it must be below"),
        ({"overlap": -1}, "--overlap is -1; it must be at least 0"),
        ({"split_by": "a", "split_column": "b"}, "--split-by and --split-column exclude each"),
        ({"max_rejected": "some"}, "--max-rejected is 'some'; write a number of rows, as 10"),
        ({"max_rejected": "-1"}, "--max-rejected is '-1'; write a number of rows"),
        ({"vocab_size": 2}, "--vocab-size is 2; it must be at least 3"),
        ({"min_count": 0}, "--min-count is 0; it must be at least 1"),
        ({"strategy": "fixed"}, "--boundaries and --strategy fixed go together"),
        ({"boundaries": (8,)}, "--boundaries and --strategy fixed go together"),
        ({"strategy": "fixed", "boundaries": (8, 8)}, "--boundaries must ascend"),
        ({"strategy": "fixed", "boundaries": (0, 8)}, "0 follows 0"),
        ({"strategy": "fixed", "boundaries": (8, MAX_LENGTH + 1)}, "must ascend within [1,"),
        ({"splits": {}}, "no split: give at least one"),
        ({"splits": {"train": 0.5}}, "add up to 0.5, not to 1"),
        ({"splits": {"train": 1.5, "val": -0.5}}, "'train': the fraction 1.5 is not within [0, 1]"),
        ({"splits": {"train": float("nan")}}, "the fraction nan is not within"),
        ({"splits": {"a b": 1.0}}, "'a b' cannot name a split"),
        ({"splits": {f"s{i}": 1 / 257 for i in range(257)}}, "257 splits are more than 256"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(PlanError) as error:
        PlanOptions(**options)

    assert message in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_buckets": 1, "align": 1, "max_length": 1, "shard_size": 1},
        {"fill": -3.4028234663852886e38, "pad_value": 3.4028234663852886e38},
        {"max_length": 2, "overlong": "split", "overlap": 1, "vocab_size": 3},
        {"max_length": MAX_LENGTH, "align": MAX_LENGTH, "seed": 2**63 - 1},
        {"strategy": "fixed", "boundaries": (1, MAX_LENGTH)},
        {"splits": {"train": 1, "val": 0}},
        {"splits": {f"s{i}": 1 / 256 for i in range(256)}},
        {"splits": dict.fromkeys(("a", "b", "c"), 1 / 3)},
    ],
)
def test_options_at_their_limits_are_taken_and_read_back(options):
    plan = dataclasses.replace(PLAN, options=PlanOptions(**options))

    assert load(plan.dumps()).options == plan.options


@pytest.mark.parametrize("name", ["train", "Val-2", "2021_q1", "x" * 64])
def test_folder_names_can_name_splits(name):
    check_split_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "a\\b", "a.b", "a b", "a:b", "-a", "_a", "é", "x" * 65, "a\n", "a\0b"],
)
def test_other_names_cannot_name_splits(name):
    with pytest.raises(PlanError, match="cannot name a split: use letters, digits"):
        check_split_name(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "lengthwise-dataset"}, "not a plan of Lengthwise"),
        ({"format": ...}, "not a plan of Lengthwise"),
        ({"version": 2}, "version 2 of the plan is not known here; plan again"),
        ({"version": "1"}, "'version' must be int, found '1'"),
        ({"version": True}, "'version' must be int, found True"),
        ({"version": ...}, "'version' is missing"),
        ({"schema": ...}, "'schema' is missing"),
        ({"schema": []}, "no sequence feature"),
        ({"schema": SCHEMA.to_json()[::-1]}, "unique and sorted"),
        ({"schema": [1]}, "schema[0]: expected an object, found int"),
        ({"options": []}, "'options' must be dict, found a list"),
        ({"options__align": 0}, "options: --align is 0"),
        ({"options__seed": 1.0}, "options: 'seed' must be int, found 1.0"),
        ({"options__seed": 2**63}, "options: 'seed' is 9223372036854775808"),
        ({"options__num_buckets": "auto"}, "options: 'num_buckets' must be int, found 'auto'"),
        ({"options__strategy": "best"}, "options: --strategy is 'best'"),
        ({"options__boundaries": [1]}, "options: --boundaries and --strategy fixed"),
        ({"options__boundaries": [-1]}, "options: 'boundaries' must hold integers"),
        ({"options__splits": {"../x": 1}}, "options: '../x' cannot name a split"),
        ({"options__splits__train": 10**400}, "options: splits: 'train' is 1000"),
        ({"options__splits__train": True}, "options: splits: 'train' must be float, found True"),
        ({"max_lengths": []}, "max_lengths: there must be at least one bucket"),
        ({"max_lengths": [8, 4, 12]}, "max_lengths must ascend within"),
        ({"max_lengths": [0, 12]}, "'max_lengths' must hold integers in [1,"),
        ({"max_lengths": [4, 2**25]}, "'max_lengths' must hold integers in [1,"),
        ({"max_lengths": [4, 11]}, "the longest row has 12 steps, the last bucket ends at 11"),
        ({"histograms__train": []}, "histograms: 'train' must be dict"),
        ({"histograms__train": {"a": 1}}, "histograms: train: must map lengths to rows"),
        ({"histograms__train": {"1": 1, "01": 1}}, "histograms: train: must map lengths to rows"),
        ({"histograms__train": {"1_0": 1}}, "histograms: train: must map lengths to rows"),
        ({"histograms__train": {"9" * 5000: 1}}, "histograms: train: must map lengths to rows"),
        ({"histograms__train": {"0": 1}}, "histograms: train: lengths must lie within [1,"),
        ({"histograms__train": {str(2**25): 1}}, "lengths must lie within [1,"),
        ({"histograms__train": {"3": -1}}, "histograms: train: '3' is -1"),
        ({"histograms": {"../x": {}}}, "'../x' cannot name a split"),
        ({"histograms": {"../x: train": {}}}, "'../x: train' cannot name a split"),
        ({"statistics__tokens": ...}, "statistics of feature 'tokens' are missing"),
        ({"statistics__tokens__count": -1}, "statistics: tokens: 'count' is -1"),
        ({"statistics__tokens__mean": None}, "statistics: tokens: 'mean' must be float"),
        ({"statistics__tokens__low": -(2**63) - 1}, "'tokens': low -9223372036854775809 and"),
        ({"statistics__tokens__high": 2**63}, "are no range of integers of 64 bits"),
        ({"statistics__tokens__high": -1}, "low 0 and high -1 are no range of integers"),
        ({"statistics__tokens__high": 0.5}, "low 0 and high 0.5 are no range of integers"),
        ({"statistics__speaker__values": {"a": 1}}, "speaker: 'values' must map integers"),
        ({"statistics__speaker__values": {"1": 1, "+1": 1}}, "speaker: 'values' must map"),
        ({"reading": []}, "'reading' must be dict, found a list"),
        ({"reading": {}}, "reading: 'types' is missing"),
        ({"reading": {**READING, "format": "pickle"}}, "reading: format 'pickle' is none of"),
        ({"reading": {**READING, "types": {"x": 1}}}, "reading: types: 'x' must be str, found 1"),
        ({"reading": {**READING, "types": {"x": "list"}}}, "reading: type 'list' of 'x' is none"),
        ({"reading": {**READING, "shapes": {"x": [0]}}}, "of 'x': sizes are integers from 1"),
        ({"reading": {**READING, "shapes": {"x": [1] * 99}}}, "at most 16 of them"),
        ({"reading": {**READING, "order_by": "t"}}, "reading: --order-by orders the lines"),
        ({"reading": {**READING, "max_row_bytes": 0}}, "must be at least 1"),
        ({"statistics__speaker__values": {"1": -1}}, "speaker: values: '1' is -1"),
    ],
)
def test_malformed_plans_are_refused_with_the_place(changes, message):
    with pytest.raises(PlanError) as error:
        load(edited(**changes))

    assert message in str(error.value)


def test_numbers_past_the_largest_double_are_refused():
    with pytest.raises(PlanError, match="statistics: frames: 'mean' is inf, not a finite number"):
        load(PLAN.dumps().replace('"mean": 0.5', '"mean": 1e999'))


@settings(max_examples=300)
@given(st.data())
def test_a_hostile_plan_is_refused_or_whole(mutated, data):
    plan = dataclasses.replace(PLAN, reading=PLANNED)
    document = data.draw(mutated(json.loads(plan.dumps())))
    text = json.dumps(document).replace('"<infinity>"', "1e999")
    try:
        plan = load(text)
    except LengthwiseError as error:
        assert str(error).isprintable()
        return
    # What is believed can be used.
    assert set(plan.widths.values()) <= set(range(1, 11))
    assert all(count >= 1 for count in plan.shard_counts().values())
    assert 0 <= plan.padding_fraction() < 1
    assert sum(map(sum, (plan.bucket_rows(split).values() for split in plan.histograms))) == sum(
        sum(histogram.values()) for histogram in plan.histograms.values()
    )
    assert load(plan.dumps()) == plan
