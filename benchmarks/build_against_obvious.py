"""`lengthwise build` against the Beam pipeline that one writes first, in CPU time per row.

Both sides read the same Parquet files (`ragged_data.py`) on Beam's FnApiRunner, on one core:

    obvious      `obvious_pipeline.py`: an Example per row, Partition, WriteToTFRecord. It is told
                 the boundaries of the buckets.
    lengthwise   `lengthwise build --workers 1`, all of it: the plan, which finds the boundaries,
                 the global shuffle, shards, checksums of records and files, accounts, manifest.

Before the clock starts both build one small file with the same boundaries, and what they wrote is
compared record by record; afterwards the records of the timed outputs are counted.

    python benchmarks/build_against_obvious.py --kind both --json result.json
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import (
    CPU_PER_ROW,
    USER_PER_ROW,
    Comparison,
    Side,
    compare,
    compare_kinds,
    comparison_parser,
    print_comparison,
)
from lengthwise_build import build_task, columns, planned_max_lengths, source_file
from process_usage import Task, call_task, pinned_to, run

BUCKETS = 8
CHECKED_ROWS = 4_096

# Rows of the small and of the large run: few, but enough that start-up does not blur the slope.
# A side that is faster needs more of them; the slopes can be compared all the same.
ROWS = {
    "floats": {"obvious": (1_024, 13_312), "lengthwise": (8_192, 106_496)},
    "ids": {"obvious": (4_096, 86_016), "lengthwise": (65_536, 1_048_576)},
}

_OBVIOUS = (sys.executable, str(Path(__file__).with_name("obvious_pipeline.py")))


@dataclass(frozen=True)
class Contest:
    """The commands of both sides for one kind of data, in one folder."""

    kind: str
    folder: Path

    def output(self, side: str) -> Path:
        return self.folder / f"{self.kind}-{side}"

    def obvious(self, rows: int, max_lengths: str) -> Task:
        """The obvious pipeline, which is told the boundaries."""
        output = self.output("obvious")
        source = source_file(self.folder, self.kind, rows)
        argv = [*_OBVIOUS, str(source), str(output), *columns(self.kind)]
        return Task([*argv, "--max-lengths", max_lengths], rows, fresh=[output])

    def lengthwise(self, rows: int, *options: str) -> Task:
        """The whole of `lengthwise build`."""
        source = source_file(self.folder, self.kind, rows)
        output = self.output("lengthwise")
        return build_task(source, output, self.kind, rows, "--workers", "1", *options)


def measure(
    contest: Contest, *, rows: Mapping[str, tuple[int, int]], rounds: int, core: int | None
) -> Comparison:
    """Checks both sides, times them, and counts what they wrote.

    Args:
        contest: the kind of data and the place.
        rows: side -> rows of its small and of its large run.
        rounds: measured rounds.
        core: to pin everything to.
    """
    chosen = ("--buckets", str(BUCKETS))
    with pinned_to(core):
        run(contest.lengthwise(rows["lengthwise"][1], *chosen))
        max_lengths = planned_max_lengths(contest.output("lengthwise"))
        check_same_records(contest, max_lengths)
    print(f"{contest.kind}: both write the same {CHECKED_ROWS:,} records; buckets {max_lengths}")

    small, large = rows["obvious"]
    obvious = Side(
        "obvious",
        small=contest.obvious(small, max_lengths),
        large=contest.obvious(large, max_lengths),
    )
    small, large = rows["lengthwise"]
    lengthwise = Side(
        "lengthwise",
        small=contest.lengthwise(small, *chosen),
        large=contest.lengthwise(large, *chosen),
    )
    comparison = compare([obvious, lengthwise], CPU_PER_ROW, rounds=rounds, core=core)
    for side in (obvious, lengthwise):
        folder = str(contest.output(side.name))
        written = run(call_task("written_records:count", rows=0, folder=folder)).own["records"]
        if written != side.large.rows:
            raise RuntimeError(f"{side.name} wrote {written} records of {side.large.rows} rows")
    return comparison


def check_same_records(contest: Contest, max_lengths: str) -> None:
    """Raises RuntimeError unless both sides make the same records of the same rows."""
    run(contest.obvious(CHECKED_ROWS, max_lengths))
    run(contest.lengthwise(CHECKED_ROWS, "--strategy", "fixed", "--boundaries", max_lengths))
    found = run(
        call_task(
            "written_records:compare",
            rows=CHECKED_ROWS,
            one=str(contest.output("obvious")),
            other=str(contest.output("lengthwise")),
        )
    )
    if found.own["records"] != CHECKED_ROWS:
        raise RuntimeError(f"{found.own['records']} records were made of {CHECKED_ROWS} rows")


def main() -> None:
    parser = comparison_parser(
        "lengthwise build against the obvious Beam pipeline: CPU time per row.", [*ROWS]
    )
    for option, run_of in (
        ("--rows-small", "small run of lengthwise"),
        ("--rows-large", "large run of lengthwise"),
        ("--obvious-rows-small", "small run of obvious"),
        ("--obvious-rows-large", "large run of obvious"),
    ):
        parser.add_argument(option, type=int, metavar="N", help=f"{run_of} [by kind]")
    options = parser.parse_args()

    def measure_kind(kind: str, folder: Path) -> Comparison:
        obvious, lengthwise = ROWS[kind]["obvious"], ROWS[kind]["lengthwise"]
        rows = {
            "obvious": (
                options.obvious_rows_small or obvious[0],
                options.obvious_rows_large or obvious[1],
            ),
            "lengthwise": (
                options.rows_small or lengthwise[0],
                options.rows_large or lengthwise[1],
            ),
        }
        contest = Contest(kind, folder)
        comparison = measure(contest, rows=rows, rounds=options.rounds, core=options.core)
        print_comparison(comparison, title=f"build, {kind}")
        print_comparison(comparison.by(USER_PER_ROW), title=f"build, {kind}, kernel left out")
        return comparison

    compare_kinds(options, measure_kind)


if __name__ == "__main__":
    main()
