"""Where the time of `lengthwise build` goes: CPU µs per row of each stage.

Builds in this process with one worker, twice, and times the stages as they call each other in the
second build. The time of a stage is its own, without that of the stages it calls; what no stage has
is Beam, reports, planning and commit, most of which does not grow with the rows.

    python benchmarks/profile_build.py --kind floats --rows 106496
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from ragged_data import KINDS, SEQUENCE, ensure_file
from rich.console import Console
from rich.table import Table

# Stage -> the functions that it is made of, as the modules that call them name them.
STAGES = {
    "decode the input": ("pipeline.ingest:read_unit",),
    "row keys, splits, tallies": (
        "pipeline.ingest:keys_of",
        "pipeline.ingest:splits_of",
        "pipeline.ingest:tally_by_split",
    ),
    "validate": ("pipeline.ingest:ragged_rows",),
    "statistics of lengths": ("pipeline.ingest:measure",),
    "statistics of values": ("pipeline.measuring:summarize",),
    "pack": ("pipeline.ingest:pack_rows",),
    "sort by length": ("pipeline.ingest:_sorted_by_length",),
    "write to staging": ("pipeline.ingest:_ingest",),
    "refer to rows": ("pipeline.exchange:refer_to_rows",),
    "find the rows of a shard": ("pipeline.exchange:_places_of_shard",),
    "gather rows": ("pipeline.exchange:gather_rows",),
    "order rows": ("pipeline.exchange:write_shard_of",),
    "view rows": ("pipeline.exchange:unpack_rows",),
    "pad, mask, encode": ("transforms.encoding:RowEncoder.splice",),
    "checksums of records": ("transforms.encoding:seal_frames",),
    "write, checksum of files, sync": ("pipeline.exchange:write_shard",),
}


class Stopwatch:
    """CPU seconds of stages that call each other, each without those that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._threads = threading.local()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the time of this thread to a stage, and none of it to the one around it."""
        stack: list[str] = self._threads.__dict__.setdefault("stack", [])
        self._switch(stack)
        stack.append(name)
        try:
            yield
        finally:
            self._switch(stack)
            stack.pop()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same as one of a stage, on the clock; generators too."""

        # Keeps the name, by which Beam pickles the functions that it is handed.
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                result = function(*args, **kwargs)
            return self._steps(name, result) if isinstance(result, Iterator) else result

        return timed

    def _steps(self, name: str, steps: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.stage(name):
                try:
                    step = next(steps)
                except StopIteration:
                    return
            yield step

    def _switch(self, stack: list[str]) -> None:
        now = time.thread_time()
        if stack:
            self.seconds[stack[-1]] += now - self._threads.since
        self._threads.since = now


@contextlib.contextmanager
def stages_timed() -> Iterator[Stopwatch]:
    """Puts the stages of the build on the clock."""
    stopwatch = Stopwatch()
    with contextlib.ExitStack() as patches:
        for name, functions in STAGES.items():
            for function in functions:
                module_name, path = function.split(":")
                owner: Any = importlib.import_module(f"lengthwise.{module_name}")
                *classes, attribute = path.split(".")
                for class_name in classes:
                    owner = getattr(owner, class_name)
                timed = stopwatch.wrap(name, getattr(owner, attribute))
                patches.enter_context(mock.patch.object(owner, attribute, timed))
        yield stopwatch


def profile(kind: str, rows: int, folder: Path) -> tuple[dict[str, float], float]:
    """Builds twice; returns CPU seconds by stage and of the whole second build."""
    from lengthwise.dataset.options import PlanOptions
    from lengthwise.pipeline.building import build
    from lengthwise.pipeline.inputs import FeatureNames

    source = folder / f"{kind}-{rows}.parquet"
    ensure_file(str(source), kind, rows)
    names = FeatureNames(sequences=(SEQUENCE[kind],), labels=("label",))
    # The first build meets cold caches, and modules that are imported at their first use.
    build([source], folder / "first", names=names, options=PlanOptions(num_buckets=8))
    with stages_timed() as stopwatch:
        started = time.process_time()
        build([source], folder / "second", names=names, options=PlanOptions(num_buckets=8))
        whole = time.process_time() - started
    return stopwatch.seconds, whole


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of a build goes.")
    parser.add_argument("--kind", choices=KINDS, default="floats")
    parser.add_argument("--rows", type=int, default=106_496)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        seconds, whole = profile(options.kind, options.rows, Path(folder))
    seconds["everything else"] = whole - sum(seconds.values())

    table = Table(title=f"lengthwise build, {options.rows:,} rows of {options.kind}")
    table.add_column("stage")
    table.add_column("CPU µs per row", justify="right")
    table.add_column("share", justify="right")
    for stage, spent in {**seconds, "whole build": whole}.items():
        table.add_row(stage, f"{spent / options.rows * 1e6:.3f}", f"{spent / whole:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
