"""Time and memory of `lengthwise build` when the rows grow tenfold, at default options.

Each size is built from a Parquet file of its own, written row group by row group. Time and CPU
time are of the whole command, start-up included; memory is the largest process, with the pages of
mapped files that it touched. Inputs and outputs are deleted as soon as they are measured.

    python benchmarks/build_scaling.py --kind ids --rows 200000 2000000 --rounds 3
    python benchmarks/build_scaling.py --kind ids --rows 20000000 --rounds 1
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from lengthwise_build import build_task, source_file
from process_usage import Usage, run
from ragged_data import KINDS
from rich.console import Console
from rich.table import Table


def measure(
    kind: str, sizes: list[int], rounds: int, folder: Path
) -> tuple[dict[int, list[Usage]], dict[int, int]]:
    """Usage of every round and bytes of the dataset, by rows."""
    output = folder / "out"
    usages: dict[int, list[Usage]] = {rows: [] for rows in sizes}
    nbytes = {}
    keep = rounds > 1
    for number in range(1, rounds + 1):
        for rows in sizes:
            source = source_file(folder, kind, rows)
            usage = run(build_task(source, output, kind, rows, "--workers", "1"), environment={})
            usages[rows].append(usage)
            nbytes[rows] = sum(path.stat().st_size for path in output.rglob("*.tfrecord"))
            print(
                f"round {number}: {rows:,} rows, {nbytes[rows] / 2**30:.2f} GiB: "
                f"{usage.wall_seconds:.1f} s, CPU {usage.cpu_seconds:.1f} s, "
                f"largest process {usage.peak_rss / 2**20:,.0f} MiB, "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            shutil.rmtree(output)
            if not keep:
                source.unlink()
    return usages, nbytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time and memory of a build as its rows grow.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kind", choices=KINDS, default="ids")
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where files are made [a temporary folder]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        usages, nbytes = measure(options.kind, options.rows, options.rounds, Path(temporary))

    table = Table(title=f"lengthwise build, {options.kind}, medians of {options.rounds}")
    for heading in ("rows", "dataset", "wall", "× first", "CPU", "× first", "memory", "× first"):
        table.add_column(heading, justify="right")
    first = usages[options.rows[0]]
    for rows, own in usages.items():
        cells = [f"{rows:,}", f"{nbytes[rows] / 2**30:.2f} GiB"]
        for name, scale, unit in (
            ("wall_seconds", 1, "s"),
            ("cpu_seconds", 1, "s"),
            ("peak_rss", 2**20, "MiB"),
        ):
            value, least = (
                statistics.median(getattr(usage, name) for usage in side) for side in (own, first)
            )
            cells += [f"{value / scale:,.1f} {unit}", f"{value / least:.2f}"]
        table.add_row(*cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
