"""Options of reading that say nothing of a format are refused, not passed over."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import LengthwiseError, PlanOptions, SourceOptions, UsageError
from lengthwise.dataset.tfrecord import write_records
from lengthwise.pipeline import FeatureNames, build, make_plan
from lengthwise.pipeline.inputs import open_input
from tests.pipeline.sources import example_protos as protos


def write_all_formats(folder: Path) -> dict[str, Path]:
    """The same sequences of integers in a file of each format."""
    table = pa.table({"x": [[1, 2], [3]]})
    pq.write_table(table, folder / "a.parquet")
    with pa.ipc.new_file(str(folder / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "a.jsonl").write_text('{"x": [1, 2]}\n{"x": [3]}\n')
    for suffix, comma in (("csv", ","), ("tsv", "\t")):
        lines = (("id", "x"), ("a", "1"), ("a", "2"), ("b", "3"))
        (folder / f"a.{suffix}").write_text("".join(comma.join(line) + "\n" for line in lines))
    (folder / "a.txt").write_text("1 2\n3\n")
    records = [protos.example_of({"x": values}) for values in ([1, 2], [3])]
    write_records(folder / "a.tfrecord", records)
    return {path.suffix[1:]: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("option", "values", "known"),
    [
        ("--group-by", {"group_by": "id"}, {"csv", "tsv"}),
        ("--tokens", {"tokens": "bytes"}, {"txt"}),
        ("--type", {"types": {"x": "float"}}, {"csv", "tsv", "jsonl"}),
        ("--shape", {"shapes": {"x": (1,)}}, {"parquet", "arrow", "jsonl", "tfrecord"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_that_a_format_does_not_know_is_refused(tmp_path, option, values, known):
    for suffix, path in write_all_formats(tmp_path).items():
        grouped = {"group_by": "id"} if suffix in ("csv", "tsv") else {}
        reading = SourceOptions(**{**grouped, **values})
        try:
            open_input([str(path)], FeatureNames(sequences=("x",)), reading)
            said = ""
        except LengthwiseError as reason:
            said = str(reason)
        assert said.startswith(f"{option} is for ") == (suffix not in known), (suffix, said)
        assert suffix in known or f"{path} is " in said


def test_an_option_of_reading_may_be_for_one_of_several_files(tmp_path):
    files = write_all_formats(tmp_path)
    inputs, names = [str(files["csv"]), str(files["jsonl"])], FeatureNames(sequences=("x",))
    assert open_input(inputs, names, SourceOptions(group_by="id")).schema.names == ("x",)
    with pytest.raises(UsageError, match=r"--tokens is for text; .*a\.csv is csv: leave it out"):
        open_input(inputs, names, SourceOptions(group_by="id", tokens="bytes"))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--split", "train=0.5,test=0.5"), ("--split-by", "x"), ("--split-column", "part")],
)
def test_splits_are_not_drawn_where_every_input_has_its_own(run, tmp_path, option, value):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"x": [1], "part": "dev"}\n')
    inputs = f"train={tmp_path}/a.jsonl", f"test={tmp_path}/b.jsonl"
    code, _, error = run("build", *inputs, tmp_path / "out", option, value)
    assert code == 2 and not (tmp_path / "out").exists()
    assert f"{option} is given, but every input has a split of its own, {tmp_path}/a" in error
    code, _, error = run("build", inputs[0], inputs[1][5:], tmp_path / "out", option, value)
    assert "has a split of its own" not in error


def test_a_plan_that_drew_splits_is_of_another_input_than_one_with_its_own(run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"x": [1]}\n{"x": [2]}\n')
    plan = tmp_path / "plan.json"
    run("plan", tmp_path / "a.jsonl", "-o", plan, "--split", "train=0.999,test=0.001")
    inputs = f"train={tmp_path}/a.jsonl", f"test={tmp_path}/b.jsonl"
    code, _, error = run("build", *inputs, tmp_path / "out", "--plan", plan)
    assert code == 1 and "the plan is of another input: in split 'test'" in error


def test_grouping_of_what_is_no_csv_is_wrong_usage_and_leaves_nothing(run, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": [1, 2], "id": 1}\n')
    arguments = (tmp_path / "a.jsonl", tmp_path / "out", "--group-by", "id", "--order-by", "t")
    code, _, error = run("build", *arguments)
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert error.strip().splitlines() == [
        f"lengthwise: --group-by is for csv, tsv; {tmp_path}/a.jsonl is jsonl: leave it out, or "
        "say --format"
    ]


def test_what_a_plan_says_of_reading_need_not_be_known(tmp_path):
    files = write_all_formats(tmp_path)
    reading = SourceOptions(group_by="id", types={"x": "int"})
    names = FeatureNames(sequences=("x",))
    plan = make_plan([files["csv"]], names=names, options=PlanOptions(), reading=reading)
    assert build([files["jsonl"]], tmp_path / "out", plan=plan).records("train") == 2
