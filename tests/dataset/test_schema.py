"""The features of a dataset, found in Arrow columns."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import Feature, PlanError, Schema, SchemaError
from lengthwise.dataset.document import Fields
from lengthwise.dataset.schema import DTYPES, feature_from_arrow

TOKENS = Feature("tokens", "int64")


def columns(**types):
    return pa.schema(list(types.items()))


def reread(schema):
    items = [
        Fields(item, place=f"plan.json: schema[{i}]", error=PlanError)
        for i, item in enumerate(schema.to_json())
    ]
    return Schema.from_json(items)


FLOATS = [pa.float16(), pa.float32(), pa.float64()]
INTEGERS = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.bool_()),
]


@pytest.mark.parametrize("type_", FLOATS + INTEGERS, ids=str)
def test_floats_become_float32_and_integers_and_bools_int64(type_):
    dtype = "float32" if type_ in FLOATS else "int64"

    assert Schema.from_arrow(columns(x=pa.list_(type_))).features == (Feature("x", dtype),)


@pytest.mark.parametrize(
    ("type_", "feature"),
    [
        (pa.large_list(pa.int32()), Feature("x", "int64")),
        (pa.list_(pa.list_(pa.float32(), 12)), Feature("x", "float32", (12,))),
        (pa.large_list(pa.list_(pa.list_(pa.int8(), 3), 2)), Feature("x", "int64", (2, 3))),
        (pa.float64(), Feature("x", "float32", sequence=False)),
        (pa.list_(pa.list_(pa.float32(), 3), 2), Feature("x", "float32", (2, 3), sequence=False)),
    ],
    ids=str,
)
def test_shapes_come_from_nested_lists(type_, feature):
    assert feature_from_arrow(pa.field("x", type_), label=False, place="in.parquet") == feature


def test_without_names_every_list_column_is_a_sequence():
    found = Schema.from_arrow(
        columns(b=pa.list_(pa.int8()), a=pa.list_(pa.float32()), id=pa.int64(), text=pa.string())
    )

    assert found.names == ("a", "b")


def test_labels_and_contexts_are_as_named():
    schema = Schema.from_arrow(
        columns(x=pa.list_(pa.float32()), tag=pa.list_(pa.int8()), y=pa.int8(), age=pa.float32()),
        labels=["tag", "y"],
        contexts=["age"],
    )

    assert [feature.name for feature in schema.sequences] == ["tag", "x"]
    assert [feature.name for feature in schema.contexts] == ["age", "y"]
    assert [feature.name for feature in schema.labels] == ["tag", "y"]
    assert schema["tag"] == Feature("tag", "int64", label=True)


def test_a_label_per_step_may_be_the_only_sequence():
    schema = Schema.from_arrow(columns(tag=pa.list_(pa.int8()), id=pa.int8()), labels=["tag"])

    assert schema.features == (Feature("tag", "int64", label=True),)


def test_columns_that_nobody_asks_for_may_be_of_any_type():
    schema = Schema.from_arrow(
        columns(x=pa.list_(pa.int8()), words=pa.list_(pa.string())), sequences=["x"]
    )

    assert schema.names == ("x",)


X, Y = ("x", pa.list_(pa.int8())), ("y", pa.int8())


@pytest.mark.parametrize(
    ("fields", "names", "message"),
    [
        ([Y], {}, "no column is a list, so there is no sequence; columns are: y"),
        ([Y], {"labels": ["y"]}, "no column is a list"),
        ([X, Y], {"sequences": ["z"]}, "no column 'z'; columns are: x, y"),
        ([X, Y], {"labels": ["z"]}, "no column 'z'; columns are: x, y"),
        ([X, X], {"sequences": ["x"]}, "more than one column named 'x'"),
        ([X, X], {}, "more than one column named 'x'"),
        ([X, Y, Y], {"labels": ["y"]}, "more than one column named 'y'"),
        ([X, Y], {"labels": ["y"], "contexts": ["y"]}, "'y' is named more than once"),
        ([X, Y], {"sequences": ["x"], "labels": ["x"]}, "'x' is named more than once"),
        ([X, Y], {"sequences": ["y"]}, "'y' is int8, not a list of steps; name it with --context"),
        ([X, Y], {"contexts": ["x"]}, "list of steps; name it with --sequence"),
        ([X, Y], {"sequences": [], "labels": ["y"]}, "no sequence feature"),
        ([("x", pa.list_(pa.binary()))], {}, "binary cannot be stored; give numbers, bools or"),
        ([("x", pa.list_(pa.null()))], {}, "null cannot be stored"),
        (
            [("x", pa.list_(pa.timestamp("s")))],
            {},
            "cannot be stored; give numbers, bools or strings",
        ),
        ([("x", pa.list_(pa.list_(pa.int8())))], {}, "steps of varying size cannot be stored"),
        ([("x", pa.list_(pa.list_(pa.int8(), 0)))], {}, r"shape (0,) cannot be stored"),
        ([("mask", pa.list_(pa.int8()))], {}, "'mask': the name is taken by Lengthwise"),
        ([("x__observed", pa.list_(pa.int8()))], {}, "the name is taken by Lengthwise"),
    ],
)
def test_columns_that_do_not_fit_are_named(fields, names, message):
    with pytest.raises(SchemaError) as error:
        Schema.from_arrow(pa.schema(fields), place="in.parquet", **names)

    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "int64"), "'' cannot name a feature"),
        (("a\nb", "int64"), r"'a\nb' cannot name a feature"),
        (("length", "int64"), "the name is taken"),
        (("x", "float64"), "dtype 'float64' is none of"),
        (("x", "int64", (0,)), "shape (0,) cannot be stored"),
        (("x", "int64", (3, -1)), "shape (3, -1) cannot be stored"),
        (("x", "int64", (1 << 13, 1 << 12)), "cannot be stored"),
    ],
)
def test_features_that_cannot_be_stored_are_refused(arguments, message):
    with pytest.raises(SchemaError) as error:
        Feature(*arguments)

    assert message in str(error.value)


@pytest.mark.parametrize(
    "features",
    [
        (TOKENS, TOKENS),
        (TOKENS, Feature("frames", "float32")),
        (Feature("ü", "int64"), Feature("z", "int64")),
    ],
)
def test_features_are_unique_and_in_the_order_of_their_names_bytes(features):
    with pytest.raises(SchemaError, match="unique and sorted"):
        Schema(features)


def test_a_schema_has_a_sequence():
    with pytest.raises(SchemaError, match="no sequence feature"):
        Schema((Feature("x", "int64", sequence=False),))


def test_an_unknown_feature_is_named_with_those_there_are():
    with pytest.raises(SchemaError, match="no feature 'x'; there are: tokens"):
        Schema((TOKENS,))["x"]


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        (TOKENS, "tokens: int64 (steps,)"),
        (Feature("x", "float32", (2, 3)), "x: float32 (steps, 2, 3)"),
        (Feature("x", "float32", (2,), sequence=False), "x: float32 (2,)"),
        (Feature("y", "int64", sequence=False, label=True), "y: int64 scalar label"),
    ],
)
def test_features_are_described_for_people(feature, text):
    assert feature.describe() == text
    assert str(Schema((Feature("a", "int64"), feature))) == f"a: int64 (steps,)\n{text}"


@given(
    st.lists(
        st.builds(
            Feature,
            st.text("abcäß –", min_size=1, max_size=5),
            st.sampled_from(DTYPES),
            st.lists(st.integers(1, 5), max_size=3).map(tuple),
            sequence=st.booleans(),
            label=st.booleans(),
        ),
        max_size=5,
        unique_by=lambda feature: feature.name,
    )
)
def test_what_is_written_is_read_back(features):
    features = sorted([*features, TOKENS], key=lambda feature: feature.name.encode())
    schema = Schema(tuple(features))

    assert reread(schema) == schema


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("name", 3, "'name' must be str"),
        ("name", "mask", "the name is taken"),
        ("dtype", "string", "dtype 'string' is none of"),
        ("shape", [0], "'shape' must hold integers in [1,"),
        ("shape", [True], "'shape' must hold integers"),
        ("shape", [1 << 24, 2], "cannot be stored"),
        ("shape", 3, "'shape' must be list"),
        ("sequence", 1, "'sequence' must be bool"),
        ("label", None, "'label' must be bool"),
    ],
)
def test_malformed_features_are_named_with_their_place(member, value, message):
    item = {**Schema((TOKENS,)).to_json()[0], member: value}

    with pytest.raises(PlanError) as error:
        Schema.from_json([Fields(item, place="plan.json: schema[0]", error=PlanError)])

    assert str(error.value).startswith("plan.json: schema[0]: ")
    assert message in str(error.value)
