"""Faulty rows that are left out: all of them listed in order, however many, in little memory."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import OutputError, PlanOptions, SourceOptions
from lengthwise.dataset.manifest import REJECTED_NAME, STAGING_NAME
from lengthwise.pipeline import Execution, FeatureNames, build, building, commit, planning, rejected
from tests.pipeline.conftest import folder_digest
from tests.pipeline.test_commit import build_and_stop

NAMES = FeatureNames(sequences=("x",))
ALL = PlanOptions(max_rejected="100%")


def write_rows(path: Path, rows: int, *, note: str = "") -> list[tuple[int, str]]:
    """Lines of which most are faulty, found at two stages of reading; what is to be listed."""
    faulty = {2: ("broken line", "{"), 3: ("infinite, or beyond float32", '{"x": [1.5, 1e300]')}
    lines, listed = [], []
    for row in range(rows):
        reason, start = faulty.get(row % 4 if row % 5 else 2, ("", '{"x": [1.5]'))
        lines.append(f'{start}, "note": "{note}{row}"}}' if reason != "broken line" else start)
        if reason:
            listed.append((row, reason))
    path.write_text("\n".join(lines) + "\n")
    return listed


def changed_since_it_was_built(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    """An input, the dataset that was built of it before it had more rows, and its files."""
    path, out = folder / "a.jsonl", folder / "out"
    write_rows(path, 30)
    build([path], out, names=NAMES, options=ALL)
    write_rows(path, 50)
    return path, out, folder_digest(out)


def test_all_are_listed_in_the_order_of_the_input_however_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(rejected, "_ORDERED_ROWS", 7)
    monkeypatch.setattr(commit, "_ROW_GROUP_ROWS", 16)
    (tmp_path / "in").mkdir()
    first = write_rows(tmp_path / "in" / "a.jsonl", 90)
    second = write_rows(tmp_path / "in" / "b.jsonl", 41)
    for name, unit_bytes, batch_rows, workers in (
        ("whole", 1 << 20, None, 1),
        ("pieces", 200, 3, 1),
        ("processes", 500, None, 2),
    ):
        manifest = build(
            [tmp_path / "in"],
            tmp_path / name,
            names=NAMES,
            options=ALL,
            reading=SourceOptions(unit_bytes=unit_bytes),
            batch_rows=batch_rows,
            execution=Execution(workers=workers),
        )
        file = pq.ParquetFile(tmp_path / name / REJECTED_NAME)
        found = file.read().to_pylist()
        assert [(row["file"], row["row"], row["reason"]) for row in found] == [
            *(("a.jsonl", *row) for row in first),
            *(("b.jsonl", *row) for row in second),
        ]
        assert sum(manifest.accounts["train"].rejected.values()) == len(found)
        assert file.metadata.num_row_groups == -(-len(found) // 16)
        assert folder_digest(tmp_path / name) == folder_digest(tmp_path / "whole")


def test_neither_reports_nor_memory_grow_with_what_is_rejected(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    reports, peaks = [], []
    for rows in (4_000, 20_000):
        row = f'{{"x": [1.5, 1e300], "note": "{"words " * 150}"}}\n'
        path.write_text('{"x": [1.5], "note": ""}\n' + row * rows)
        names, out = FeatureNames(sequences=("x",), contexts=("note",)), tmp_path / f"{rows}"
        tracemalloc.start()
        build_and_stop(monkeypatch, building, "commit", [path], out, names=names, options=ALL)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        (report,) = (out / STAGING_NAME).rglob("units/*.json")
        reports.append(report.stat().st_size)
    assert reports[1] < reports[0] + 1000
    assert peaks[1] < peaks[0] + (4 << 20)


def test_the_list_is_written_in_pieces_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(rejected, "_ORDERED_ROWS", 500)
    allocated = []

    def write(path, schema, tables, **_):
        # Of one table at a time, and of none before.
        allocated.extend((table.num_rows, pa.total_allocated_bytes() - before) for table in tables)
        Path(path).touch()

    monkeypatch.setattr(commit, "write_row_groups", write)
    write_rows(tmp_path / "a.jsonl", 10_000, note="many words " * 80)
    before = pa.total_allocated_bytes()
    build([tmp_path / "a.jsonl"], tmp_path / "out", names=NAMES, options=ALL)
    assert [rows for rows, _ in allocated] == [500] * 12
    assert max(nbytes for _, nbytes in allocated) < 300_000


@pytest.mark.parametrize(("most", "staged"), [("0", 0), ("7", 7), ("100%", 1000)])
def test_no_more_is_staged_than_can_be_let_through(tmp_path, monkeypatch, most, staged):
    path, out = tmp_path / "a.jsonl", tmp_path / "out"
    path.write_text('{"x": [1]}\n' + "{broken\n" * 1000)
    options = PlanOptions(max_rejected=most)
    build_and_stop(monkeypatch, planning, "merged_findings", [path], out, options=options)
    files = list((out / STAGING_NAME).rglob("*.rejected.arrow"))
    assert len(files) == (staged > 0)
    assert sum(pa.ipc.open_file(file).read_all().num_rows for file in files) == staged


def test_a_list_that_was_lost_from_staging_leaves_the_old_dataset(tmp_path, monkeypatch):
    path, out, digest = changed_since_it_was_built(tmp_path)
    build_and_stop(monkeypatch, commit, "write_text", [path], out, names=NAMES, options=ALL)
    (staged,) = (out / STAGING_NAME).rglob("*.rejected.arrow")
    staged.unlink()
    with pytest.raises(OutputError, match="staged rows are damaged; delete this folder"):
        build([path], out, names=NAMES, options=ALL)
    assert {name: made for name, made in folder_digest(out).items() if name in digest} == digest


def test_a_disk_that_is_full_before_the_list_is_whole_leaves_the_old_dataset(tmp_path, monkeypatch):
    path, out, digest = changed_since_it_was_built(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(commit, "write_row_groups", full)
        with pytest.raises(OSError, match="No space left"):
            build([path], out, names=NAMES, options=ALL)
    assert {name: made for name, made in folder_digest(out).items() if name in digest} == digest
    build([path], out, names=NAMES, options=ALL)
    raw = pq.read_table(out / REJECTED_NAME)["raw"].to_pylist()
    assert raw[:2] == ["{", "{"] and json.loads(raw[2]) == {"x": [1.5, 1e300]}
