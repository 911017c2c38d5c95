"""All formats give the same rows, and so the same bytes of a dataset."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import InputError, PlanOptions
from lengthwise.dataset.tfrecord import write_records
from lengthwise.pipeline import Execution, FeatureNames, build
from lengthwise.pipeline.commands import source_options
from lengthwise.pipeline.sources import FORMATS, TOKENS, SourceOptions
from tests.pipeline.conftest import folder_digest, ragged_table
from tests.pipeline.sources import example_protos as protos
from tests.pipeline.sources.conftest import read_all

TABLE = ragged_table(120, seed=1).drop_columns(["row"])
NAMES = FeatureNames(sequences=("frames", "tokens"), labels=("label",), contexts=("weight",))
OPTIONS = PlanOptions(num_buckets=3, shard_size=20_000, splits={"train": 0.8, "val": 0.2})


def write_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=17)


def write_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=31)


def json_lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()).encode()


def write_sequence_examples(path: Path) -> None:
    write_records(
        path,
        [
            protos.sequence_example_of(
                {"label": [row["label"]], "weight": [row["weight"]]},
                {"frames": row["frames"], "tokens": [[token] for token in row["tokens"]]},
            )
            for row in TABLE.to_pylist()
        ],
    )


def write_examples(path: Path) -> None:
    write_records(
        path,
        [
            protos.example_of(
                {
                    "label": [row["label"]],
                    "weight": [row["weight"]],
                    "frames": np.ravel(row["frames"]).tolist(),
                    "tokens": row["tokens"],
                }
            )
            for row in TABLE.to_pylist()
        ],
    )


WRITERS: dict[str, tuple[Callable[[Path], object], SourceOptions]] = {
    "parquet": (lambda path: pq.write_table(TABLE, path, row_group_size=50), SourceOptions()),
    "arrow": (write_arrow, SourceOptions()),
    "stream": (write_stream, SourceOptions()),
    "feather": (lambda path: pyarrow.feather.write_feather(TABLE, str(path)), SourceOptions()),
    "jsonl": (lambda path: path.write_bytes(json_lines()), SourceOptions(format="jsonl")),
    "jsonl.gz": (
        lambda path: path.write_bytes(gzip.compress(json_lines())),
        SourceOptions(format="jsonl"),
    ),
    "jsonl.zst": (
        lambda path: path.write_bytes(pa.compress(json_lines(), codec="zstd", asbytes=True)),
        SourceOptions(format="jsonl"),
    ),
    "tfrecord": (write_examples, SourceOptions(shapes={"frames": (3,)})),
    "sequence examples": (write_sequence_examples, SourceOptions()),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reference")
    pq.write_table(TABLE, folder / "rows")
    build([folder / "rows"], folder / "out", names=NAMES, options=OPTIONS)
    return records_of(folder / "out")


def records_of(out: Path) -> dict[str, str]:
    """The digests of all shards, without the name of the build, which knows the input's bytes."""
    return {
        name.partition("/")[2]: digest
        for name, digest in folder_digest(out).items()
        if name.endswith(".tfrecord")
    }


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("unit_bytes", [32 << 20, 10_000])
def test_the_same_rows_in_any_format_give_the_same_records(tmp_path, reference, name, unit_bytes):
    write, reading = WRITERS[name]
    write(tmp_path / "rows")
    options = SourceOptions(format=reading.format, shapes=reading.shapes, unit_bytes=unit_bytes)
    build([tmp_path / "rows"], tmp_path / "out", names=NAMES, options=OPTIONS, reading=options)
    assert len(reference) > 4
    assert records_of(tmp_path / "out") == reference


def write_long_form(path: Path, table: pa.Table, columns: list[str]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "step", *columns])
        for number, row in enumerate(table.to_pylist()):
            steps = len(row["tokens"])
            # Backwards, for --order-by to put right.
            for step in reversed(range(steps)):
                values = [row[c][step] if isinstance(row[c], list) else row[c] for c in columns]
                writer.writerow([f"r{number}", step, *values])


def test_csv_in_long_form_gives_the_same_records(tmp_path):
    table = TABLE.drop_columns(["frames"])
    names = FeatureNames(sequences=("tokens",), labels=("label",), contexts=("weight",))
    for kind in ("parquet", "csv"):
        (tmp_path / kind).mkdir()
    pq.write_table(table, tmp_path / "parquet" / "rows")
    write_long_form(tmp_path / "csv" / "rows", table, ["tokens", "label", "weight"])
    reading = SourceOptions(format="csv", group_by="row", order_by="step", unit_bytes=5_000)
    for kind, options in (("parquet", None), ("csv", reading)):
        build(
            [tmp_path / kind / "rows"],
            tmp_path / f"out-{kind}",
            names=names,
            options=OPTIONS,
            reading=options,
        )
    assert records_of(tmp_path / "out-csv") == records_of(tmp_path / "out-parquet")


def test_two_workers_read_any_format_alike(tmp_path, reference):
    (tmp_path / "rows").write_bytes(json_lines())
    build(
        [tmp_path / "rows"],
        tmp_path / "out",
        names=NAMES,
        options=OPTIONS,
        reading=SourceOptions(format="jsonl", unit_bytes=10_000),
        execution=Execution(workers=2),
    )
    assert records_of(tmp_path / "out") == reference


def test_parquet_and_json_lines_go_together(tmp_path, reference):
    half = TABLE.num_rows // 2
    lines = json_lines().splitlines(keepends=True)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.jsonl").write_bytes(b"".join(lines[half:]))
    pq.write_table(TABLE.slice(0, half), tmp_path / "in" / "a.parquet")
    inputs = [tmp_path / "in" / "a.parquet", tmp_path / "in" / "b.jsonl"]
    manifest = build(inputs, tmp_path / "out", names=NAMES, options=OPTIONS)
    assert sum(account.written for account in manifest.accounts.values()) == TABLE.num_rows
    with pytest.raises(InputError, match=r"files of several formats: jsonl .*, parquet .*--format"):
        build([tmp_path / "in"], tmp_path / "out2", names=NAMES)


def test_the_command_line_reads_all_formats(run, tmp_path):
    (tmp_path / "a.csv").write_text("id,t,x\na,1,5\na,0,4\nb,0,7\n")
    code, printed, error = run(
        "build", tmp_path / "a.csv", tmp_path / "out", "--group-by", "id", "--order-by", "t",
        "--sequence", "x",
    )  # fmt: skip
    assert code == 0, error
    (tmp_path / "a.txt").write_text("abc\nde\n")
    code, printed, error = run(
        "plan", tmp_path / "a.txt", "-o", tmp_path / "p", "--tokens", "bytes"
    )
    assert code == 0, error
    assert "tokens: int64 (steps,)" in printed
    write_examples(tmp_path / "a.tfrecord")
    code, printed, error = run(
        "plan", tmp_path / "a.tfrecord", "-o", tmp_path / "p", "--shape", "frames=3"
    )
    assert code == 0, error
    assert "frames: float32 (steps, 3)" in printed
    (tmp_path / "b.jsonl").write_text('{"x": [1, 2]}\n')
    code, printed, _ = run(
        "plan", tmp_path / "b.jsonl", "-o", tmp_path / "p", "--type", "x=float", "--format", "jsonl"
    )
    assert code == 0
    assert "x: float32 (steps,)" in printed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shape", "x"], "is not NAME=D or NAME=DxD"),
        (["--shape", "x=a"], "is no shape: write sizes, as in 12 or 4x3"),
        (["--shape", "x=0"], "sizes are integers from 1"),
        (["--shape", "x=1", "--shape", "x=2"], "--shape is given twice for 'x'"),
        (["--type", "x=int", "--type", "x=float"], "--type is given twice for 'x'"),
        (["--normalize", "x=zscore", "--normalize", "x=minmax"], "given twice for 'x'"),
        (["--vocabulary", "x=a", "--vocabulary", "x=b"], "--vocabulary is given twice for 'x'"),
        (["--type", "x=number"], "type 'number' of 'x' is none of int, float, bool, string"),
        (["--order-by", "t"], "give --group-by as well"),
        (["--format", "xml"], "is not one of"),
    ],
)
def test_wrong_options_are_wrong_usage(run, tmp_path, options, says):
    (tmp_path / "a.jsonl").write_text('{"x": [1, 2]}\n')
    code, _, error = run("plan", tmp_path / "a.jsonl", "-o", tmp_path / "p", *options)
    assert code == 2
    assert says in " ".join(error.split())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shape", "y=2"], "no column 'y', which was given a shape or a type; columns are: x"),
        (["--type", "y=int"], "no column 'y', which was given a shape or a type; columns are: x"),
        (["--shape", "x=3x4"], "list<item: int64>, which has no steps of shape 3x4"),
    ],
)
def test_shapes_and_types_of_what_is_not_there_are_refused(run, tmp_path, options, says):
    (tmp_path / "a.jsonl").write_text('{"x": [1, 2]}\n')
    code, _, error = run("plan", tmp_path / "a.jsonl", "-o", tmp_path / "p", *options)
    assert code == 1
    assert says in error


def test_the_command_line_knows_the_formats_that_there_are():
    assert source_options.FORMATS == FORMATS
    assert source_options.TOKENS == TOKENS


def test_broken_rows_are_counted_and_named(run, tmp_path):
    lines = json_lines().splitlines(keepends=True)
    lines[50] = b"{broken\n"
    lines[70] = lines[70].replace(b'"frames": [[', b'"frames": [[1.0], [')
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    code, _, error = run(
        "build", tmp_path / "a.jsonl", tmp_path / "out", "--sequence", "frames",
        "--sequence", "tokens",
    )  # fmt: skip
    assert code == 1
    assert "2 faulty rows (1 × broken line, 1 × ragged inner vectors)" in error
    assert "a.jsonl: row 50: broken line" in error
    assert "row 70: ragged inner vectors" in error


def test_content_tells_the_format_before_the_suffix(tmp_path):
    write_arrow(tmp_path / "a.parquet")
    assert read_all(tmp_path / "a.parquet").source.format == "arrow"
    write_examples(tmp_path / "a.jsonl")
    assert read_all(tmp_path / "a.jsonl").source.format == "tfrecord"
    (tmp_path / "a.dat").write_bytes(json_lines())
    with pytest.raises(InputError, match="neither content nor suffix tell the format; say it with"):
        read_all(tmp_path / "a.dat")
    assert len(read_all(tmp_path / "a.dat", SourceOptions(format="jsonl")).rows) == 120
