"""`lengthwise build` against the least that the same records can take: CPU time per row.

    limit        `limit_pipeline.py`: decodes the input once, pads, encodes, checksums and writes,
                 with numpy in one process; no Beam, no plan, no shuffle, no staging, no commit
    lengthwise   `lengthwise build --workers 1`, all of it

Both write the same records, in another order, which is checked before the clock starts. Start-up
is taken off by two sizes. The limit is told the boundaries and the widths of integers.

    python benchmarks/build_against_limit.py --kind both --rounds 5
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness import (
    CPU_PER_ROW,
    USER_PER_ROW,
    WALL_PER_ROW,
    Comparison,
    Side,
    compare,
    compare_kinds,
    comparison_parser,
    print_comparison,
)
from lengthwise_build import build_task, source_file
from process_usage import SINGLE_THREAD, Task, call_task, pinned_to, run

CHECKED_ROWS = 4_096
ROWS = {"floats": (8_192, 106_496), "ids": (65_536, 1_048_576)}

_LIMIT = (sys.executable, str(Path(__file__).with_name("limit_pipeline.py")))


def measure(
    kind: str, folder: Path, rows: tuple[int, int], rounds: int, core: int | None
) -> Comparison:
    """Checks that both sides write the same records, then times them."""
    outputs = {side: folder / f"{kind}-{side}" for side in ("limit", "lengthwise")}
    plan = folder / f"{kind}-plan.json"

    def limit(count: int) -> Task:
        argv = [*_LIMIT, str(source_file(folder, kind, count)), str(outputs["limit"]), str(plan)]
        return Task(argv, count, fresh=[outputs["limit"]])

    def lengthwise(count: int, *options: str) -> Task:
        source = source_file(folder, kind, count)
        return build_task(source, outputs["lengthwise"], kind, count, "--workers", "1", *options)

    eight = ("--buckets", "8")
    small, large = rows
    with pinned_to(core):
        # The plan of the largest input holds for the others, which are its first rows.
        run(lengthwise(large, *eight))
        planned = (outputs["lengthwise"] / "plan.json").read_text()
        plan.write_text(planned)
        bounds = ",".join(map(str, json.loads(planned)["max_lengths"]))
        run(limit(CHECKED_ROWS))
        run(lengthwise(CHECKED_ROWS, "--strategy", "fixed", "--boundaries", bounds))
        one, other = (str(output) for output in outputs.values())
        task = call_task("written_records:compare", rows=CHECKED_ROWS, one=one, other=other)
        if run(task).own["records"] != CHECKED_ROWS:
            raise RuntimeError("rows are missing")
    print(f"{kind}: both write the same {CHECKED_ROWS:,} records; buckets {bounds}")
    sides = [
        Side("limit", small=limit(small), large=limit(large)),
        Side("lengthwise", small=lengthwise(small, *eight), large=lengthwise(large, *eight)),
    ]
    # The command asks for this by itself: memory is kept, and not handed back after each batch.
    environment = {**SINGLE_THREAD, "MIMALLOC_PURGE_DELAY": "-1"}
    return compare(sides, CPU_PER_ROW, rounds=rounds, core=core, environment=environment)


def main() -> None:
    parser = comparison_parser("lengthwise build against the least that it could take.", [*ROWS])
    parser.add_argument("--rows-small", type=int, metavar="N", help="small run [by kind]")
    parser.add_argument("--rows-large", type=int, metavar="N", help="large run [by kind]")
    options = parser.parse_args()

    def measure_kind(kind: str, folder: Path) -> Comparison:
        rows = (options.rows_small or ROWS[kind][0], options.rows_large or ROWS[kind][1])
        comparison = measure(kind, folder, rows, options.rounds, options.core)
        for metric in (CPU_PER_ROW, USER_PER_ROW, WALL_PER_ROW):
            print_comparison(comparison.by(metric), title=f"build, {kind}")
        return comparison

    compare_kinds(options, measure_kind)


if __name__ == "__main__":
    main()
