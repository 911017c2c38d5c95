"""Two workers against one: wall time of `lengthwise build`.

Both sides build the same dataset, and every shard is compared by its checksum. Nothing is pinned,
so the machine needs two cores that have nothing else to do; the load that the machine had is
printed, and CPU time beside the wall time: workers that share a core take no more of it, but wait.

    python benchmarks/build_workers.py --kind floats --rows 400000
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from harness import CPU_PER_ROW, WALL_PER_ROW, Side, compare, print_comparison
from lengthwise_build import build_task, source_file
from ragged_data import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Wall time of a build with two workers against one.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kind", choices=KINDS, default="floats")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rows-small", type=int, default=16_384, help="taken off as start-up")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def side(workers: int) -> Side:
            output = folder / f"workers-{workers}"
            sizes = {}
            for rows in (options.rows_small, options.rows):
                source = source_file(folder, options.kind, rows)
                sizes[rows] = build_task(
                    source, output, options.kind, rows, "--buckets", "8", "--workers", str(workers)
                )
            name = f"{workers} worker{'s' if workers > 1 else ''}"
            return Side(name, large=sizes[options.rows], small=sizes[options.rows_small])

        sides = [side(1), side(options.workers)]
        before = os.getloadavg()[0]
        comparison = compare(sides, WALL_PER_ROW, rounds=options.rounds)
        one, other = (
            json.loads((folder / name / "dataset.json").read_text())["shards"]
            for name in ("workers-1", f"workers-{options.workers}")
        )
        if one != other:
            raise RuntimeError("the two datasets differ")
    print_comparison(comparison, title=f"build, {options.kind}, wall time")
    print_comparison(comparison.by(CPU_PER_ROW), title=f"build, {options.kind}, CPU time")
    print(f"load of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
