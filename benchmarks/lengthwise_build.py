"""The `lengthwise build` of the benchmarks: its inputs and its commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from process_usage import Task, call_task, run
from ragged_data import SEQUENCE

_COMMAND = (
    sys.executable,
    "-c",
    "import sys; from lengthwise.pipeline.commands import main; sys.exit(main())",
)


def columns(kind: str) -> list[str]:
    """The options that name the columns of a kind of data."""
    return ["--sequence", SEQUENCE[kind], "--label", "label"]


def source_file(folder: Path, kind: str, rows: int) -> Path:
    """An input file, made unless it is there; it stays for the next time."""
    path = folder / f"{kind}-{rows}.parquet"
    # In another process: what this one has in memory is counted to those that it starts.
    run(call_task("ragged_data:ensure_file", rows=rows, path=str(path), kind=kind, count=rows))
    return path


def build_task(source: Path, output: Path, kind: str, rows: int, *options: str) -> Task:
    """All of `lengthwise build`, into a folder that is deleted before."""
    argv = [*_COMMAND, "build", str(source), str(output), *columns(kind), *options]
    return Task(argv, rows, fresh=[output])


def planned_max_lengths(output: Path) -> str:
    """The boundaries of a dataset, by commas."""
    plan = json.loads((output / "plan.json").read_text())
    return ",".join(str(max_length) for max_length in plan["max_lengths"])
