"""What a plan learns from rows: of which rows, and what it refuses to learn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lengthwise.dataset import PlanError, PlanOptions, SchemaError
from lengthwise.pipeline import FeatureNames, build
from tests.pipeline.conftest import records_of

ONE = PlanOptions(num_buckets=1, align=1)


def strings(rows: list) -> pa.Array:
    return pa.array(rows, pa.list_(pa.string()))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"split_column": "part", "normalize": {"x": "zscore"}}, "constants of 'x'"),
        ({"split_column": "part", "fill": "mean"}, "constants of 'x'"),
        ({"split_column": "part"}, "the vocabulary of 'w'"),
        ({"splits": {"train": 0.0, "val": 1.0}}, "the vocabulary of 'w'"),
    ],
)
def test_a_training_split_without_rows_teaches_nothing(write_input, tmp_path, options, names):
    table = pa.table({"x": [[1.0, 2.0], [3.0]], "w": [["a", "b"], ["c"]], "part": ["fit", "test"]})
    sequences = (names[-2],)
    with pytest.raises(PlanError, match=f"split 'train' has no rows, and {names} would come"):
        build(
            [write_input("a.parquet", table)],
            tmp_path / "out",
            names=FeatureNames(sequences=sequences),
            options=PlanOptions(**options),
        )
    assert not (tmp_path / "out").exists()


def test_nothing_is_asked_of_a_training_split_that_teaches_nothing(write_input, tmp_path):
    table = pa.table({"x": [[1.0, 2.0], [3.0]], "w": [["a"], ["b"]], "part": ["fit", "test"]})
    path = write_input("a.parquet", table)
    options = PlanOptions(split_column="part")
    names = FeatureNames(sequences=("x",))
    assert build([path], tmp_path / "x", names=names, options=options).splits == ("fit", "test")
    names, given = FeatureNames(sequences=("w",)), {"w": ("b", "a")}
    build([path], tmp_path / "w", names=names, options=options, vocabularies=given)


@pytest.mark.parametrize(
    ("kind", "train", "val", "fill", "says"),
    [
        ("log1p", [1.0, 2.0], [-1.0], "zero", "the least value is -1, and log"),
        ("log1p", [1.0, None], [0.0], -2.0, "the least value is -2, and log"),
        ("minmax", [1.0, 1.0000001], [3e38], "zero", "values between 1 and 3e\\+38 become inf"),
        ("minmax", [1.0, 1.0000001], [-3e38], "zero", "values between -3e\\+38 and 1 become inf"),
        ("zscore", [1e-42, 2e-42], [1.0], "zero", "become infinite, as those of the training"),
    ],
)
def test_values_of_any_split_stay_finite_or_are_refused(
    write_input, tmp_path, kind, train, val, fill, says
):
    type_ = pa.list_(pa.float32())
    inputs = [
        f"{split}={write_input(f'{split}.parquet', pa.table({'x': pa.array([row], type_)}))}"
        for split, row in (("train", train), ("val", val))
    ]
    with pytest.raises(PlanError, match=says):
        build(inputs, tmp_path / "out", options=PlanOptions(normalize={"x": kind}, fill=fill))


def test_a_class_of_rows_and_steps_that_are_left_out_is_none(write_input, tmp_path):
    table = pa.table(
        {
            "w": strings([["a", "b"], [], ["c", None, "d", "e"], ["f"]]),
            "t": strings([["P", "Q"], [], ["Q", "M", "P", "cut"], ["x", "y"]]),
            "y": ["yes", "dropped", "no", "faulty"],
            "row": [0, 1, 2, 3],
        }
    )
    names = FeatureNames(sequences=("w",), labels=("t", "y"), contexts=("row",))
    options = PlanOptions(
        num_buckets=1, align=1, max_length=3, overlong="truncate_end", max_rejected="1"
    )
    path = write_input("a.parquet", table)
    manifest = build([path], tmp_path / "out", names=names, options=options)
    rows = records_of(manifest, "train")
    order = np.argsort(rows["row"])
    assert rows["row"][order].tolist() == [0, 2]
    assert rows["y"][order].tolist() == [1, 0]
    assert rows["t"][order].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert rows["mask"][order].tolist() == [[True, True, False], [True, False, True]]


def test_the_last_rows_of_a_file_may_all_be_left_out(write_input, tmp_path):
    table = pa.table({"w": [["a"], ["b"], []], "y": ["p", "q", "never seen before"]})
    path = write_input("a.parquet", table)
    names = FeatureNames(sequences=("w",), labels=("y",))
    manifest = build([path], tmp_path / "out", names=names, options=ONE, batch_rows=1)
    assert manifest.accounts["train"].dropped == {"empty sequence": 1}
    assert sorted(records_of(manifest, "train")["y"].tolist()) == [0, 1]


@pytest.mark.parametrize("role", ["token", "label"])
def test_a_file_may_have_no_string_at_all(write_input, tmp_path, role):
    names = FeatureNames(sequences=("w",), labels=("t",))
    tables = [{"w": [["a"]], "t": [["P"]]}, {"w": [["b"]], "t": [["P"]]}]
    tables[1]["w" if role == "token" else "t"] = [[None]]
    paths = [
        write_input(f"{n}.parquet", pa.table({k: strings(v) for k, v in columns.items()}))
        for n, columns in enumerate(tables)
    ]
    rows = records_of(build(paths, tmp_path / "out", names=names, options=ONE), "train")
    assert sorted(rows["mask"][:, 0].tolist()) == [False, True]
    assert rows["w"][~rows["mask"]].tolist() == [0]


def test_a_class_that_a_given_vocabulary_lacks_is_refused(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1], [2]], "y": ["p", "q"]}))
    names = FeatureNames(labels=("y",))
    with pytest.raises(PlanError, match=r"^feature 'y': the class 'q' is not in its vocabulary; "):
        build([path], tmp_path / "out", names=names, vocabularies={"y": ("p",)})
    manifest = build([path], tmp_path / "out", names=names, vocabularies={"y": ("o", "q", "p")})
    rows = records_of(manifest, "train")
    assert dict(zip(rows["x"][:, 0].tolist(), rows["y"].tolist(), strict=True)) == {1: 2, 2: 1}


def test_a_vocabulary_of_what_is_no_strings_is_refused(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1]], "w": [["a"]]}))
    for name, says in (("x", "'x', which is no strings"), ("v", "no feature 'v'; there are: w, x")):
        with pytest.raises((PlanError, SchemaError), match=says):
            build([path], tmp_path / "out", vocabularies={name: ("a",)})
    assert not (tmp_path / "out").exists()
