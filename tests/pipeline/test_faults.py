"""Bad input gets one clear line, a non-zero exit, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipeline.conftest import folder_digest, ragged_table


def one_line(error: str) -> str:
    lines = error.strip().splitlines()
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


def check_refused(run, tmp_path: Path, *arguments: object, code: int = 1) -> str:
    """Builds into a new folder; returns the one line that says why not."""
    out = tmp_path / "out"
    found, output, error = run("build", *arguments[:1], out, *arguments[1:])
    assert found == code, error
    assert output == ""
    assert not out.exists()
    return one_line(error)


def test_missing_column(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(5))
    line = check_refused(run, tmp_path, path, "--sequence", "nowhere")
    assert "a.parquet: no column 'nowhere'; columns are: frames, tokens" in line


@pytest.mark.parametrize(
    ("option", "column", "says"),
    [
        ("--sequence", "label", "not a list of steps"),
        ("--context", "tokens", "a list of steps; name it with --sequence"),
    ],
)
def test_column_in_the_wrong_role(run, write_input, tmp_path, option, column, says):
    path = write_input("a.parquet", ragged_table(5))
    line = check_refused(run, tmp_path, path, "--sequence", "frames", option, column)
    assert says in line
    assert f"'{column}'" in line


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[b"a"], [b"b"]]),
        pa.array([[[1], [2, 3]], [[4]]]),
        pa.array([[{"x": 1}], [{"x": 2}]]),
    ],
    ids=["bytes", "ragged steps", "structs"],
)
def test_column_of_a_type_that_cannot_be_stored(run, write_input, tmp_path, values):
    path = write_input("a.parquet", pa.table({"x": values}))
    line = check_refused(run, tmp_path, path, "--sequence", "x")
    assert "a.parquet: column 'x' is list<" in line


def test_files_whose_columns_differ(run, write_input, tmp_path):
    write_input("a.parquet", pa.table({"x": [[1, 2]]}))
    write_input("b.parquet", pa.table({"x": [[1.5, 2.5]]}))
    line = check_refused(run, tmp_path, tmp_path / "in", "--sequence", "x")
    assert "b.parquet: column 'x' is x: float32 (steps,), elsewhere it is x: int64" in line


def test_sequence_features_of_different_lengths(run, write_input, tmp_path):
    table = pa.table({"x": [[1, 2], [3, 4], [5]], "y": [[1, 2], [3], [4]]})
    path = write_input("a.parquet", table)
    line = check_refused(run, tmp_path, path)
    assert "1 faulty row (1 × sequence features of different lengths)" in line
    assert f"{path}: row 1: sequence features of different lengths" in line


def test_null_sequence_is_named_by_its_row_in_the_file(run, write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1]] * 70 + [None]}), row_group_size=30)
    line = check_refused(run, tmp_path, path, "--empty", "error")
    assert f"{path}: row 70: null sequence" in line


def test_null_label(run, write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1], [2]], "y": [0, None]}))
    line = check_refused(run, tmp_path, path, "--label", "y", "--sequence", "x")
    assert "row 1: null context or label" in line


def test_infinite_value(run, write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1.0], [2.0, float("inf")]]}))
    assert "row 1: infinite, or beyond float32" in check_refused(run, tmp_path, path)


def test_many_faults_are_counted_and_the_first_are_named(run, write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1]] + [None] * 9}))
    line = check_refused(run, tmp_path, path, "--empty", "error")
    assert "9 faulty rows (9 × null sequence)" in line
    assert "row 5" in line
    assert "row 6" not in line
    assert "and 4 more" in line


def test_file_without_a_byte(run, tmp_path):
    path = tmp_path / "empty.parquet"
    path.touch()
    assert f"{path}: not a readable Parquet file" in check_refused(run, tmp_path, path)


def test_file_without_a_row(run, write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": pa.array([], pa.list_(pa.int64()))}))
    assert f"{path}: the input has no rows" in check_refused(run, tmp_path, path)


def test_only_empty_rows(run, write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": pa.array([[], []], pa.list_(pa.int64()))}))
    assert "no row is left" in check_refused(run, tmp_path, path)


def test_folder_without_data(run, tmp_path):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "notes.txt").write_text("no data")
    assert "nothing: no input file" in check_refused(run, tmp_path, tmp_path / "nothing")


def test_input_that_is_not_there(run, tmp_path):
    line = check_refused(run, tmp_path, tmp_path / "nowhere" / "*.parquet")
    assert "nowhere/*.parquet: no such file or folder" in line


def test_a_file_that_is_no_parquet(run, tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("id,value\n1,2\n" * 100)
    assert f"{path}: not a readable Parquet file" in check_refused(run, tmp_path, path)


def test_a_file_whose_pages_are_damaged(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(400), row_group_size=400)
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    line = check_refused(run, tmp_path, path, "--sequence", "frames")
    assert f"{path}: row group 0 cannot be read" in line


def test_output_that_holds_something_else(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(5))
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    code, _, error = run("build", path, out)
    assert code == 1
    assert "holds something that is no dataset (thesis.tex" in one_line(error)
    assert folder_digest(out).keys() == {"thesis.tex"}


def test_output_with_a_manifest_of_somebody_else(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(5))
    out = tmp_path / "out"
    out.mkdir()
    (out / "dataset.json").write_text("{}")
    code, _, error = run("build", path, out)
    assert code == 1
    assert "was not written by Lengthwise" in one_line(error)
    assert (out / "dataset.json").read_text() == "{}"


def test_output_that_is_a_file(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(5))
    out = tmp_path / "out"
    out.write_text("mine")
    code, _, error = run("build", path, out)
    assert code == 1
    assert "is a file, not a folder" in one_line(error)


def test_foreign_files_beside_a_dataset_survive_a_rebuild(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(5))
    out = tmp_path / "out"
    assert run("build", path, out)[0] == 0
    (out / "notes.txt").write_text("mine")
    assert run("build", path, out, "--seed", 1)[0] == 0
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--split", "train=0.5,val=0.4"], "add up to 0.9, not to 1"),
        (["--split", "train"], "is not NAME=FRACTION"),
        (["--split", "../x=1"], "cannot name a split"),
        (["--strategy", "fixed"], "--boundaries and --strategy fixed go together"),
        (["--strategy", "fixed", "--boundaries", "8,4"], "must ascend"),
        (["--boundaries", "8,x"], "is not a list of lengths"),
        (["--buckets", "0"], "neither 'auto' nor a number"),
        (["--shard-size", "lots"], "is not a size"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_wrong_usage_exits_with_2(run, write_input, tmp_path, arguments, says):
    path = write_input("a.parquet", ragged_table(5))
    code, _, error = run("build", path, tmp_path / "out", *arguments)
    assert code == 2
    assert says in error
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(run, write_input, tmp_path, monkeypatch):
    from lengthwise.pipeline import exchange

    path = write_input("a.parquet", ragged_table(20))
    whole = exchange.write_shard

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr(exchange, "write_shard", full)
    code, _, error = run("build", path, tmp_path / "out")
    assert code == 1
    assert "No space left on device" in one_line(error)
    monkeypatch.setattr(exchange, "write_shard", whole)
    assert run("build", path, tmp_path / "out")[0] == 0
    assert run("verify", tmp_path / "out")[0] == 0


def test_a_file_that_vanishes_between_rows(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(5))
    pq.write_table(ragged_table(5), tmp_path / "gone.parquet")
    code, _, error = run(
        "build", path, tmp_path / "gone.parquet", tmp_path / "missing", tmp_path / "out"
    )
    assert code == 1
    assert "missing: no such file" in one_line(error)


def test_a_null_vector_in_parquet_says_what_to_write(run, write_input, tmp_path):
    vectors = pa.array([[[1.0, 2.0], None]], pa.list_(pa.list_(pa.float32(), 2)))
    path = write_input("a.parquet", pa.table({"x": vectors}))
    assert "write NaN values in its place" in check_refused(run, tmp_path, path)


def test_a_dataset_of_labels_alone(run, write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(5))
    line = check_refused(run, tmp_path, path, "--label", "tokens", "--label", "frames")
    assert "every sequence is a label" in line
