"""Lengthwise's readers against the loaders of others: sequences per second of one core.

All sides read the same rows in padded batches of 64 with a mask, in another order each epoch, in a
loop of Python as a training loop is, each in an environment of its own (`rivals/environments`):

    lengthwise tf       `read_dataset`, elements as tensors of TensorFlow
    lengthwise numpy    `as_numpy`
    lengthwise torch    `torch_batches` in a `DataLoader`; "+ worker": with one worker process
    torch               `DataLoader` over rows in memory, batches of similar length, `pad_sequence`
    huggingface torch   `datasets` with_format("torch") in the same `DataLoader`
    huggingface numpy   with_format("numpy"), a query per batch, padded with NumPy
    mosaic              `StreamingDataset(shuffle=True)` in a `DataLoader`; not grouped by length

The rate is rows over the CPU time of the whole process tree, start-up taken off: the slope between
one epoch and several. The first batch is timed from the call that opens the data, imports left out.
Padding is the share of steps in the batches that are not real.

    benchmarks/rivals/environments ENVIRONMENTS
    python benchmarks/read_against_rivals.py ENVIRONMENTS --rounds 3
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build_against_rivals import BASELINE as WRITTEN_BY_US
from build_against_rivals import KINDS, QUIET, Contest
from harness import (
    Comparison,
    Metric,
    Side,
    compare,
    compare_kinds,
    comparison_parser,
    print_comparison,
    spread,
)
from process_usage import Task, Usage, call_task, run

ROWS = {"floats": 20_000, "ids": 60_000}
BASELINE = "lengthwise tf"


@dataclass(frozen=True)
class Reader:
    """A side: environment, function, whose files it reads, and epochs of the long run."""

    environment: str
    function: str
    files: str
    floats: int
    ids: int
    options: dict[str, Any] = field(default_factory=dict)


_WORKER = {"workers": 1}
READERS = {
    "lengthwise tf": Reader("", "lengthwise_readers:read_tf", WRITTEN_BY_US, 60, 30),
    "lengthwise numpy": Reader("", "lengthwise_readers:read_numpy", WRITTEN_BY_US, 60, 40),
    "lengthwise torch": Reader("torch", "lengthwise_readers:read_torch", WRITTEN_BY_US, 60, 40),
    "lengthwise torch + worker": Reader(
        "torch", "lengthwise_readers:read_torch", WRITTEN_BY_US, 20, 20, _WORKER
    ),
    "torch": Reader("torch", "torch_loader:read", "", 12, 6),
    "torch + worker": Reader("torch", "torch_loader:read", "", 12, 6, _WORKER),
    "huggingface torch": Reader("huggingface", "huggingface:read_torch", "huggingface", 2, 2),
    "huggingface torch + worker": Reader(
        "huggingface", "huggingface:read_torch", "huggingface", 2, 2, _WORKER
    ),
    "huggingface numpy": Reader("huggingface", "huggingface:read_numpy", "huggingface", 2, 2),
    "mosaic": Reader("mosaic", "mosaic:read", "mosaic", 5, 4),
    "mosaic + worker": Reader("mosaic", "mosaic:read", "mosaic", 5, 4, _WORKER),
}


def _rate(large: Usage, small: Usage | None) -> float:
    assert small is not None
    return (large.rows - small.rows) / (large.cpu_seconds - small.cpu_seconds)


RATE = Metric("sequences per CPU second", _rate, higher_is_better=True)


def read_task(contest: Contest, name: str, epochs: int) -> Task:
    """So many epochs of one side."""
    reader, rows = READERS[name], ROWS[contest.kind]
    source = contest.output(reader.files) if reader.files else contest.source(rows)
    python = contest.environments / reader.environment / "bin" / "python"
    return call_task(
        f"rivals.{reader.function}",
        rows=epochs * rows,
        python=python if reader.environment else sys.executable,
        kind=contest.kind,
        source=str(source),
        epochs=epochs,
        **reader.options,
    )


def measure(contest: Contest, names: list[str], *, rounds: int, core: int | None) -> Comparison:
    """Writes what the sides read, times them, and compares what they read."""
    for writer in sorted({READERS[name].files for name in names} - {""}):
        run(contest.write(writer, ROWS[contest.kind]), environment=QUIET)
    sides = [
        Side(
            name,
            small=read_task(contest, name, 1),
            large=read_task(contest, name, 1 + vars(READERS[name])[contest.kind]),
        )
        for name in names
    ]
    comparison = compare(sides, RATE, rounds=rounds, core=core, environment=QUIET)
    seen = {name: _own(comparison, name, "steps") for name in names}
    if len(set(seen.values())) > 1:
        raise RuntimeError(f"the sides did not read the same steps: {seen}")
    return comparison


def print_result(kind: str, comparison: Comparison) -> None:
    print_comparison(comparison, title=f"reading, {kind} ({BASELINE} is the baseline)")
    for side in comparison.runs:
        padding = 1 - _own(comparison, side, "steps") / _own(comparison, side, "slots")
        small = [usage for _, usage in comparison.runs[side] if usage]
        first = [usage.own["first_batch_seconds"] for usage in small]
        peak = statistics.median(usage.peak_rss for usage in small) / 2**20
        print(
            f"{kind}: {side}: first batch {spread(first)} s, padding {padding:.1%}, "
            f"largest process {peak:,.0f} MiB"
        )


def _own(comparison: Comparison, side: str, name: str) -> int:
    return comparison.runs[side][0][0].own[name]


def main() -> None:
    parser = comparison_parser(
        "Lengthwise's readers against other loaders: sequences per CPU second.", KINDS, rounds=3
    )
    parser.add_argument("environments", type=Path, help="the folder of rivals/environments")
    parser.add_argument("--sides", nargs="+", choices=list(READERS), default=list(READERS))
    options = parser.parse_args()

    def measure_kind(kind: str, folder: Path) -> Comparison:
        contest = Contest(kind, folder, options.environments.absolute())
        names = list(dict.fromkeys([BASELINE, *options.sides]))
        comparison = measure(contest, names, rounds=options.rounds, core=options.core)
        print_result(kind, comparison)
        return comparison

    compare_kinds(options, measure_kind)


if __name__ == "__main__":
    main()
