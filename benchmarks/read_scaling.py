"""`read_dataset` over 1, 10 and 100 times the data: memory, and what it costs to begin anywhere.

Rows are token ids of about ten steps, so that many of them fit on a disk. Each size is read in a
process of its own, one epoch whole, and then once more from its last steps. Figures:

    memory       anonymous memory at its peak beyond that before reading; pages of mapped files
                 belong to the system's cache
    first batch  CPU time up to it, without and with the CRC32C of every file
    last batches CPU time to begin ten steps before the end, and the rows gathered for that
    rate         rows over the CPU time of the epoch

    python benchmarks/read_scaling.py --rows 100000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from process_usage import Task, call_task, run
from read_against_others import Peak, anonymous_bytes

TIMES = (1, 10, 100)
BATCH = 64
LAST_STEPS = 10
ROW_GROUP_ROWS = 1 << 16
MEAN_LENGTH = 10


def write_rows(path: str, count: int) -> None:
    """Short rows of token ids with a label."""
    if Path(path).exists():
        return
    unfinished = f"{path}.unfinished"
    schema = pa.schema([("tokens", pa.list_(pa.int32())), ("label", pa.int64())])
    with pq.ParquetWriter(unfinished, schema) as writer:
        for start in range(0, count, ROW_GROUP_ROWS):
            rng = np.random.default_rng(start)
            size = min(ROW_GROUP_ROWS, count - start)
            lengths = np.clip(rng.poisson(MEAN_LENGTH, size), 1, 2 * MEAN_LENGTH)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            tokens = rng.integers(1, 10_000, offsets[-1], dtype=np.int32)
            lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens))
            labels = pa.array(rng.integers(10, size=size))
            writer.write_batch(pa.record_batch([lists, labels], schema=schema))
    Path(unfinished).replace(path)


def prepare(folder: Path, rows: int) -> Path:
    """Builds a dataset of so many rows, unless it is there."""
    source, target = folder / f"rows-{rows}.parquet", folder / f"rows-{rows}"
    if not target.exists():
        run(call_task("read_scaling:write_rows", rows=rows, path=str(source), count=rows))
        program = "import sys; from lengthwise.pipeline.commands import main; sys.exit(main())"
        options = ["--sequence", "tokens", "--label", "label", "--buckets", "4"]
        build = [sys.executable, "-c", program, "build", str(source), str(target)]
        run(Task([*build, *options], rows))
        source.unlink()
    return target


def measure(path: str) -> dict[str, float]:
    """One size in this process."""
    import tensorflow as tf

    from lengthwise.dataset import Manifest
    from lengthwise.model import read_dataset
    from lengthwise.model.epochs import Epochs

    tf.constant(0)
    rows = Manifest.load(path).records("train")
    before = anonymous_bytes()
    with Peak() as peak:
        unchecked = _first_batch_seconds(path, integrity="never")
        checked = _first_batch_seconds(path, integrity="always")
        data = read_dataset(path, batch_size=BATCH, integrity="never")
        started = time.process_time()
        steps = int(data.reduce(np.int64(0), lambda count, *_: count + 1))
        epoch = time.process_time() - started

    gathered = []
    read_together = Epochs.read_together

    def count(self: Any, epoch: int, bucket: int, numbers: np.ndarray) -> list[np.ndarray]:
        arrays = read_together(self, epoch, bucket, numbers)
        gathered.append(len(arrays[0]))
        return arrays

    Epochs.read_together = count
    last = _first_batch_seconds(path, integrity="never", start_step=steps - LAST_STEPS)
    return {
        "rows": rows,
        "memory": peak.bytes - before,
        "unchecked": unchecked,
        "checked": checked,
        "last": last,
        "gathered": sum(gathered),
        "rate": rows / epoch,
    }


def _first_batch_seconds(path: str, **options: Any) -> float:
    from lengthwise.model import read_dataset

    started = time.process_time()
    next(iter(read_dataset(path, batch_size=BATCH, **options)))
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description="read_dataset over 1, 10 and 100 times the data.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=100_000, help="of the smallest dataset")
    parser.add_argument("--folder", type=Path, help="keeps the data [a temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for times in TIMES:
            path = prepare(folder, times * options.rows)
            figures = run(call_task("read_scaling:measure", rows=0, path=str(path))).own
            print(
                f"{int(figures['rows']):>12,} rows: memory {figures['memory'] / 2**20:.0f} MiB, "
                f"first batch {figures['unchecked']:.2f} s, with checksums "
                f"{figures['checked']:.2f} s, last {LAST_STEPS} steps {figures['last']:.2f} s "
                f"({int(figures['gathered']):,} rows gathered), {figures['rate']:,.0f} rows/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
