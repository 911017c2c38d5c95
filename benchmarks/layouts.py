"""What each layout on disk costs: strided or canonical records, plain or gzip shards.

For each of the four, from the same Parquet file (`ragged_data.py`), on one core, CPU time:

    build     `lengthwise.pipeline.build`, all of it, of what is already imported: µs per row
    bytes     of the shards, per row
    open      what a reader does before the first batch but for building its graph: comparing the
              CRC32C of the files, finding canonical records, unpacking gzip: µs per row
    tf.data   an epoch of `read_dataset`, batches of 64, after the first one: sequences/s
    NumPy     the same epoch by `as_numpy`: sequences/s

All in one process, the layouts in turn, in rounds; ratios are taken within a round, against strided
records without compression. Floats are normal deviates, which gzip cannot make smaller, so that of
them it saves the padding alone; ids follow Zipf's law.

    python benchmarks/layouts.py --kind both --rounds 3
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Comparison, Pair, compare_kinds, comparison_parser, own, spread
from process_usage import SINGLE_THREAD, Usage, call_task, pinned_to, run
from rich.console import Console
from rich.table import Table

SEQUENCE = {"floats": "features", "ids": "tokens"}
ROWS = {"floats": 16_384, "ids": 65_536}
WARM_UP_ROWS = 2_048
BATCH_SIZE = 64
LAYOUTS: dict[str, dict[str, Any]] = {
    "strided": {},
    "strided, gzip": {"compression": "gzip"},
    "canonical": {"canonical": True},
    "canonical, gzip": {"canonical": True, "compression": "gzip"},
}
METRICS = {
    "build, µs/row": own("build", higher_is_better=False),
    "bytes/row": own("bytes", higher_is_better=False),
    "open, µs/row": own("open", higher_is_better=False),
    "tf.data, rows/s": own("tf_data", higher_is_better=True),
    "NumPy, rows/s": own("numpy", higher_is_better=True),
}


def measure(kind: str, source: str, layout: dict[str, Any]) -> dict[str, float]:
    """Builds and reads one layout; the figures by metric."""
    from lengthwise.dataset import PlanOptions
    from lengthwise.model import read_dataset
    from lengthwise.model.numpy_reader import as_numpy
    from lengthwise.model.shards import open_split
    from lengthwise.pipeline import FeatureNames, build

    names = FeatureNames(sequences=(SEQUENCE[kind],), labels=("label",))
    options = PlanOptions(num_buckets=8, **layout)
    out = Path(tempfile.mkdtemp(dir=Path(source).parent))
    try:
        start = time.process_time()
        manifest = build([source], out / "dataset", names=names, options=options)
        built = time.process_time() - start
        rows = manifest.records("train")

        start = time.process_time()
        # Held, so that what is unpacked is not unpacked again.
        buckets = open_split(manifest, "train")
        opened = time.process_time() - start

        batches = iter(read_dataset(manifest, batch_size=BATCH_SIZE, seed=1))
        next(batches)
        start = time.process_time()
        read = sum(len(label) for _, label in batches)
        tf_data = read / (time.process_time() - start)

        arrays = iter(as_numpy(manifest, batch_size=BATCH_SIZE, seed=1))
        next(arrays)
        start = time.process_time()
        read = sum(len(label) for _, label in arrays)
        numpy = read / (time.process_time() - start)
        del buckets
        return {
            "build": built / rows * 1e6,
            "bytes": sum(shard.nbytes for shard in manifest.shards) / rows,
            "open": opened / rows * 1e6,
            "tf_data": tf_data,
            "numpy": numpy,
        }
    finally:
        shutil.rmtree(out)


def compare_layouts(kind: str, folder: Path, *, rounds: int, core: int | None) -> Comparison:
    """Measures all layouts of one kind of data, in turn, after a warm-up of each."""
    sources = {}
    for rows in (WARM_UP_ROWS, ROWS[kind]):
        sources[rows] = str(folder / f"{kind}-{rows}.parquet")
        run(
            call_task(
                "ragged_data:ensure_file", rows=rows, path=sources[rows], kind=kind, count=rows
            )
        )
    runs: dict[str, list[Pair]] = {name: [] for name in LAYOUTS}
    with pinned_to(core):
        for layout in LAYOUTS.values():
            measure(kind, sources[WARM_UP_ROWS], layout)
        for number in range(1, rounds + 1):
            for name, layout in LAYOUTS.items():
                figures = measure(kind, sources[ROWS[kind]], layout)
                runs[name].append((Usage(ROWS[kind], 0, 0, 0, 0, figures), None))
                print(f"round {number}: {kind}, {name}: {figures}", flush=True)
    return Comparison(METRICS["build, µs/row"], runs)


def print_figures(comparison: Comparison, kind: str) -> None:
    """Medians, and below them how many times better than strided ones, with the spread."""
    table = Table(title=f"{kind}: medians; times better than strided (least–most)")
    table.add_column("layout")
    for name in METRICS:
        table.add_column(name, justify="right")
    for side in LAYOUTS:
        by_metric = [comparison.by(metric) for metric in METRICS.values()]
        medians = [f"{statistics.median(by.values(side)):,.3g}" for by in by_metric]
        ratios = [spread(by.ratios(side)) for by in by_metric]
        table.add_row(side, *(f"{m}\n{r}" for m, r in zip(medians, ratios, strict=True)))
    Console(width=130).print(table)


def main() -> None:
    parser = comparison_parser(
        "What each layout on disk costs to build, to keep and to read.", [*ROWS], rounds=3
    )
    options = parser.parse_args()
    # Read when they are first imported, which the measuring does.
    os.environ.update(SINGLE_THREAD, TF_CPP_MIN_LOG_LEVEL="3")

    def measure_kind(kind: str, folder: Path) -> Comparison:
        comparison = compare_layouts(kind, folder, rounds=options.rounds, core=options.core)
        print_figures(comparison, kind)
        return comparison

    compare_kinds(options, measure_kind)


if __name__ == "__main__":
    main()
