"""What may go wrong around a build: one clear line, the old dataset whole, no half state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import (
    InputError,
    Manifest,
    OutputError,
    PlanError,
    PlanOptions,
    SourceOptions,
    verify,
)
from lengthwise.pipeline import Execution, FeatureNames, build, building, make_plan
from lengthwise.pipeline.runners import run_pipeline
from tests.pipeline.conftest import folder_digest, ragged_table

NAMES = FeatureNames(sequences=("frames", "tokens"), labels=("label",))

# Every reason that a file can give for leaving out a row, and the row.
FAULTS = {
    '{"x": [[1, 2]], "y": [1], "n": 1': "broken line",
    '{"x": [["a", 2]], "y": [1], "n": 1}': "wrong type",
    '{"x": [[1, 2], [3]], "y": [1, 2], "n": 1}': "ragged inner vectors",
    '{"x": [[1, 2]], "y": [1, 2], "n": 1}': "sequence features of different lengths",
    '{"x": [[1, 2]], "y": [9223372036854775808], "n": 1}': "integer out of range",
    '{"x": [[1, 1e39]], "y": [1], "n": 1}': "infinite, or beyond float32",
    '{"x": [[1, 2]], "y": [1]}': "null context or label",
    f'{{"x": [{", ".join(["[1, 2]"] * 300)}], "y": [1], "n": 1}}': "row too large",
}


def test_every_fault_of_a_row_is_listed_with_its_place_and_reason(tmp_path):
    good = '{"x": [[0.5, 2]], "y": [1], "n": 1}'
    path = tmp_path / "a.jsonl"
    lines = [line for fault in FAULTS for line in (good, fault)]
    path.write_text("\n".join(lines) + "\n")
    manifest = build(
        [path],
        tmp_path / "out",
        names=FeatureNames(sequences=("x", "y"), contexts=("n",)),
        options=PlanOptions(max_rejected="50%"),
        reading=SourceOptions(max_row_bytes=1000),
    )
    account = manifest.accounts["train"]
    assert account.rejected == dict.fromkeys(FAULTS.values(), 1)
    assert (account.read, account.written) == (len(lines), len(FAULTS))
    listed = pq.read_table(tmp_path / "out" / "rejected" / "part-00000.parquet").to_pylist()
    assert [(row["file"], row["row"], row["reason"]) for row in listed] == [
        ("a.jsonl", 2 * number + 1, reason) for number, reason in enumerate(FAULTS.values())
    ]
    assert all(row["raw"] for row in listed)


def test_the_text_of_a_long_rejected_row_takes_no_more_memory_than_is_shown(tmp_path):
    steps = 1_000_000
    offsets = pa.array([0, steps], pa.int32())
    values = np.arange(steps, dtype=np.int32)
    table = pa.table({"x": pa.ListArray.from_arrays(offsets, pa.array(values)), "y": ["a" * 2000]})
    pq.write_table(table, tmp_path / "a.parquet")
    names = FeatureNames(sequences=("x",), labels=("y",))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="row 0: overlong sequence"):
            build(
                [tmp_path / "a.parquet"],
                tmp_path / "o",
                names=names,
                options=PlanOptions(max_length=9),
            )
        assert tracemalloc.get_traced_memory()[1] < 24 * steps
    finally:
        tracemalloc.stop()


def test_a_row_longer_than_any_record_is_rejected_by_name(tmp_path):
    steps = 2**24 + 1
    offsets = pa.array([0, 2, steps + 2], pa.int32())
    table = pa.table({"x": pa.ListArray.from_arrays(offsets, pa.array(np.zeros(steps + 2, bool)))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 1: more steps than a record can have"):
        build([tmp_path / "a.parquet"], tmp_path / "out")
    options = PlanOptions(max_rejected="1")
    manifest = build([tmp_path / "a.parquet"], tmp_path / "out", options=options)
    assert manifest.accounts["train"].rejected == {"more steps than a record can have": 1}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch, suffix, what):
    path = tmp_path / f"a.{suffix}"
    out = tmp_path / "out"

    def write(value: int) -> None:
        if suffix == "jsonl":
            path.write_text(f'{{"x": [{value}]}}\n' * 9)
        else:
            pq.write_table(pa.table({"x": [[value]] * 9}), path)

    write(1)
    build([path], out)
    digest = folder_digest(out)
    whole = building.ingest

    def meanwhile(*arguments, **options):
        if what == "gone":
            path.unlink()
            return whole(*arguments, **options)
        found = whole(*arguments, **options)
        write(2)
        os.utime(path, ns=(1, 1))
        return found

    monkeypatch.setattr(building, "ingest", meanwhile)
    says = "was changed while it was read" if what == "changed" else f"a.{suffix}: "
    with pytest.raises(InputError, match=says):
        build([path], out, options=PlanOptions(seed=1))
    assert folder_digest(out) == digest
    with pytest.raises(InputError, match=r"a\.\w+: "):
        write(1)
        build([path], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_that_changes_or_vanishes_between_plan_and_build(write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(30, seed=1))
    plan = make_plan([path], names=NAMES, options=PlanOptions())
    other = ragged_table(30, seed=1).set_column(
        1, "tokens", pa.array([[7] * len(row) for row in ragged_table(30, seed=1)["tokens"]])
    )
    write_input("a.parquet", other.cast(ragged_table(1).schema))
    with pytest.raises(PlanError, match="feature 'tokens' has other values; plan again"):
        build([path], tmp_path / "out", plan=plan)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.parquet: no such file"):
        build([path], tmp_path / "out", plan=plan)
    assert not (tmp_path / "out").exists()


def test_staged_rows_of_a_file_that_was_replaced_in_secret_are_not_believed(tmp_path, monkeypatch):
    """The same size and the same time of change, but other content."""
    path, out = tmp_path / "a.jsonl", tmp_path / "out"

    def write(value: int) -> None:
        path.write_text(f'{{"x": [{value}]}}\n' * 9)
        os.utime(path, ns=(1, 1))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write(1)
    with monkeypatch.context() as patched:
        patched.setattr(building, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            build([path], out)
    write(2)
    build([path], out)
    build([path], tmp_path / "fresh")
    assert folder_digest(out) == folder_digest(tmp_path / "fresh")


def test_an_error_of_a_worker_is_said_in_its_own_words():
    def fail(_: int) -> None:
        raise PlanError("a.parquet: row 1: does not fit")

    with pytest.raises(PlanError) as error:
        run_pipeline(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(fail), Execution())
    assert str(error.value) == "a.parquet: row 1: does not fit"


# Builds with a limit on the size of any file that is written, as a disk that fills up.
_LIMITED = """
import json, resource, signal, sys
inputs, out, limit = json.loads(sys.argv[1])
from lengthwise.pipeline.commands import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = ["lengthwise", "build", *inputs, out, "--sequence", "frames", "--sequence", "tokens",
            "--seed", "1"]
main()
"""


@pytest.mark.parametrize("limit", [0, 3_000, 60_000])
def test_a_disk_that_fills_up_at_any_stage_is_one_line(tmp_path, write_input, limit):
    path = write_input("a.parquet", ragged_table(600, seed=1), row_group_size=300)
    out = tmp_path / "out"
    old = build([path], out, names=FeatureNames(sequences=("frames", "tokens")))
    digest = folder_digest(out)
    arguments = json.dumps([[str(path)], str(out), limit])
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "File too large" in done.stderr and "while running" not in done.stderr
    now = {name: made for name, made in folder_digest(out).items() if ".staging" not in name}
    assert now == digest
    assert Manifest.load(out).fingerprint == old.fingerprint
    build([path], out, names=FeatureNames(sequences=("frames", "tokens")))
    assert folder_digest(out) == digest
    assert verify(out) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no such file system here")
def test_an_output_where_nothing_can_be_written(run, write_input):
    path = write_input("a.parquet", ragged_table(5))
    for out in ("/proc/lengthwise-out", "/proc/self"):
        code, output, error = run("build", path, out)
        assert (code, output) == (1, "")
        assert len(error.strip().splitlines()) == 1
        assert out in error


def test_a_folder_that_may_not_be_written_to_is_refused_before_anything_is_read(
    tmp_path, write_input, monkeypatch
):
    path, out = write_input("a.parquet", ragged_table(5)), tmp_path / "out"
    out.mkdir()
    # The superuser, who runs tests in containers, may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="out: cannot be written to; choose another"):
        build([path], out)
    assert not any(out.iterdir())


def test_a_vocabulary_of_a_feature_whose_name_is_a_path_stays_in_its_folder(tmp_path, write_input):
    name = "../../evil"
    path = write_input("a.parquet", pa.table({name: [["a", "../b", "c\nd"]]}))
    build([path], tmp_path / "out")
    inside = {found.relative_to(tmp_path).parts[0] for found in tmp_path.rglob("*")}
    assert inside == {"in", "out"}
    (listed,) = (tmp_path / "out" / "vocabulary").iterdir()
    assert listed.read_text().splitlines() == ["../b", "a", "c\\nd"]


def test_a_file_name_that_is_not_utf8_is_one_line(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        pq.write_table(ragged_table(5), folder / "good.parquet")
        os.rename(os.fsencode(folder / "good.parquet"), os.fsencode(folder) + b"/b\xff.parquet")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    code, _, error = run("build", folder, tmp_path / "out")
    assert code == 1
    assert len(error.strip().splitlines()) == 1
    assert r"b\udcff.parquet': the file's name is not UTF-8; rename it" in error
    assert not (tmp_path / "out").exists()


def test_a_format_that_is_given_goes_before_content_and_suffix(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('{"x": [1, 2]}\n{"x": [3]}\n')
    manifest = build([path], tmp_path / "out", reading=SourceOptions(format="jsonl"))
    assert manifest.records("train") == 2
    path.write_bytes(b"PAR1 is a word\n")
    manifest = build([path], tmp_path / "text", reading=SourceOptions(format="text"))
    assert manifest.records("train") == 1
