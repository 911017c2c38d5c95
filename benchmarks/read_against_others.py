"""`read_dataset` against the usual ways to feed ragged rows to TensorFlow, in sequences/s per core.

All sides read the same rows in batches of 64, on one core, and are consumed by the same loop:

    bucketed     TFRecordDataset of unpadded Examples, parse_single_example, then
                 `bucket_by_sequence_length` with the boundaries of the dataset
    pool sort    the same file; batches of 64 · 64 rows parsed at once, sorted by length, cut
    parsed       the dataset's own padded files: TFRecordDataset, batch, parse_example
    lengthwise   `read_dataset`

Only lengthwise shuffles; the others read in the order of the file, which costs them nothing. The
rate is rows over the CPU time of the whole process, start-up taken off: the slope between one pass
and several. The first batch costs the CPU time from the call that makes the dataset, imports left
out; for lengthwise that includes the CRC32C of every file. Memory is the anonymous memory at its
peak beyond that before reading: the pages of mapped files belong to the system's cache.
`read_scaling.py` has the same for 1, 10 and 100 times the data.

    python benchmarks/read_against_others.py --kind both --json result.json
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import (
    Comparison,
    Side,
    compare,
    compare_kinds,
    comparison_parser,
    own,
    print_comparison,
    spread,
)
from process_usage import Task, call_task, run

ROWS = {"floats": 60_000, "ids": 200_000}
SEQUENCE = {"floats": "features", "ids": "tokens"}
RIVALS = ("bucketed", "pool sort", "parsed")
BATCH = 64
POOL_BATCHES = 64
WIDTH = 16
# Passes over the data that are timed, by how fast a side is.
PASSES = {"lengthwise": 6, "parsed": 3, "pool sort": 4, "bucketed": 1}
# The slowest sides read so many rows only.
MOST_ROWS = {"bucketed": 20_000, "pool sort": 40_000}

RATE = own("sequences_per_second", higher_is_better=True)
FIRST_BATCH = own("first_batch_seconds", higher_is_better=False)


def measure(side: str, kind: str, folder: str) -> dict[str, float]:
    """One side in this process: rate, time to the first batch, memory."""
    import tensorflow as tf

    from lengthwise.model import read_dataset  # noqa: F401  Not to be timed.

    tf.constant(0)  # TensorFlow starts here, for every side alike.
    before = anonymous_bytes()
    with Peak() as peak:
        started = time.process_time()
        once, rows = _dataset(side, kind, Path(folder), 1)
        next(iter(once))
        first_batch = time.process_time() - started
        _cpu_seconds(once)
        several, _ = _dataset(side, kind, Path(folder), PASSES[side] + 1)
        seconds = _cpu_seconds(several) - _cpu_seconds(once)
    return {
        "sequences_per_second": PASSES[side] * rows / seconds,
        "first_batch_seconds": first_batch,
        "memory": peak.bytes - before,
        "rows": rows,
    }


def _dataset(side: str, kind: str, folder: Path, passes: int) -> tuple[Any, int]:
    """A dataset of so many passes, and the rows of one."""
    from lengthwise.dataset import Manifest
    from lengthwise.model import read_dataset

    manifest = Manifest.load(folder / kind)
    rows = min(manifest.records("train"), MOST_ROWS.get(side, sys.maxsize))
    if side == "lengthwise":
        return read_dataset(manifest, batch_size=BATCH, epochs=passes), rows
    make: Callable[..., Any] = {
        "bucketed": _bucketed,
        "pool sort": _pool_sort,
        "parsed": _parsed,
    }[side]
    data = make(kind, manifest, str(folder / f"{kind}.tfrecord"), rows)
    return (data.repeat(passes) if passes > 1 else data).prefetch(8), rows


def _bucketed(kind: str, manifest: Any, path: str, rows: int) -> Any:
    import tensorflow as tf

    name, shape, dtype = _sequence(kind)
    features = {
        name: tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: Any) -> Any:
        row = tf.io.parse_single_example(record, features)
        length = tf.shape(row[name])[0]
        return {name: row[name], "length": length, "mask": tf.ones([length], tf.bool)}, row["label"]

    # Any, because TensorFlow's stubs take an element for one argument.
    parsed: Any = tf.data.TFRecordDataset(path).take(rows).map(parse)
    return parsed.bucket_by_sequence_length(
        lambda row, _: row["length"],
        [max_length + 1 for max_length in manifest.max_lengths[:-1]],
        [BATCH] * len(manifest.max_lengths),
    )


def _pool_sort(kind: str, manifest: Any, path: str, rows: int) -> Any:
    import tensorflow as tf

    name, shape, dtype = _sequence(kind)
    features = {
        name: tf.io.RaggedFeature(dtype),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    values_per_step = WIDTH if shape else 1

    def sort(records: Any) -> Any:
        parsed = tf.io.parse_example(records, features)
        order = tf.argsort(parsed[name].row_lengths())
        return tf.gather(parsed[name], order), tf.gather(parsed["label"], order)

    def cut(values: Any, label: Any) -> Any:
        def batch(start: Any) -> Any:
            part = values[start : start + BATCH]
            length = tf.cast(part.row_lengths() // values_per_step, tf.int32)
            padded = part.to_tensor()
            if shape:
                padded = tf.reshape(padded, [tf.size(length), -1, WIDTH])
            row = {name: padded, "length": length, "mask": tf.sequence_mask(length)}
            return row, label[start : start + BATCH]

        starts = tf.range(0, tf.size(label, tf.int64), BATCH)
        return tf.data.Dataset.from_tensor_slices(starts).map(batch)

    pools: Any = tf.data.TFRecordDataset(path).take(rows).batch(BATCH * POOL_BATCHES)
    return pools.map(sort).flat_map(cut)


def _parsed(kind: str, manifest: Any, path: str, rows: int) -> Any:
    import tensorflow as tf

    name, shape, dtype = _sequence(kind)

    def bucket(max_length: int) -> Any:
        features = {
            name: tf.io.FixedLenFeature([max_length, *shape], dtype),
            "mask": tf.io.FixedLenFeature([max_length], tf.int64),
            "length": tf.io.FixedLenFeature([], tf.int64),
            "label": tf.io.FixedLenFeature([], tf.int64),
        }
        files = [str(manifest.path_of(s)) for s in manifest.shards_of("train", max_length)]
        return (
            tf.data.TFRecordDataset(files)
            .batch(BATCH)
            .map(lambda records: tf.io.parse_example(records, features))
        )

    records = [
        sum(shard.records for shard in manifest.shards_of("train", max_length))
        for max_length in manifest.max_lengths
    ]
    return tf.data.Dataset.sample_from_datasets(
        [bucket(max_length) for max_length in manifest.max_lengths],
        [count / sum(records) for count in records],
        seed=0,
    )


def _sequence(kind: str) -> tuple[str, list[int], Any]:
    import tensorflow as tf

    return SEQUENCE[kind], *{"floats": ([WIDTH], tf.float32), "ids": ([], tf.int64)}[kind]


def _cpu_seconds(data: Any) -> float:
    started = time.process_time()
    data.reduce(0, lambda count, *_: count + 1).numpy()
    return time.process_time() - started


class Peak:
    """Watches the anonymous memory of this process."""

    def __enter__(self) -> Peak:
        self.bytes = anonymous_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.bytes = max(self.bytes, anonymous_bytes())


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def write_unpadded(kind: str, folder: str) -> None:
    """The rows of a dataset, shuffled, as Examples without padding in one file."""
    import tensorflow as tf

    from lengthwise.model import as_numpy

    path = Path(folder) / f"{kind}.tfrecord"
    if path.exists():
        return
    name, rows = SEQUENCE[kind], 0
    with tf.io.TFRecordWriter(f"{path}.unfinished") as writer:
        for features, label in as_numpy(Path(folder) / kind, batch_size=8):
            for values, length, number in zip(
                features[name], features["length"], label, strict=True
            ):
                example = tf.train.Example()
                feature = example.features.feature
                values = values[:length].ravel().tolist()
                target = feature[name].float_list if kind == "floats" else feature[name].int64_list
                target.value.extend(values)
                feature["label"].int64_list.value.append(number)
                writer.write(example.SerializeToString())
                rows += 1
            if rows >= max(MOST_ROWS.values()):
                break
    Path(f"{path}.unfinished").replace(path)


def prepare(kind: str, folder: Path, rows: int) -> None:
    """Builds what the sides read, unless it is there."""
    source = folder / f"{kind}.parquet"
    run(call_task("ragged_data:ensure_file", rows=rows, path=str(source), kind=kind, count=rows))
    program = "import sys; from lengthwise.pipeline.commands import main; sys.exit(main())"
    options = ["--sequence", SEQUENCE[kind], "--label", "label", "--buckets", "8"]
    if not (folder / kind).exists():
        build = [sys.executable, "-c", program, "build", str(source), str(folder / kind)]
        run(Task([*build, *options], rows))


def compare_readers(kind: str, folder: Path, *, rounds: int, core: int | None) -> Comparison:
    """Times all sides of one kind of data."""
    prepare(kind, folder, ROWS[kind])
    run(call_task("read_against_others:write_unpadded", rows=0, kind=kind, folder=str(folder)))
    sides = [
        Side(
            name,
            call_task(
                "read_against_others:measure",
                rows=ROWS[kind],
                side=name,
                kind=kind,
                folder=str(folder),
            ),
        )
        for name in ("lengthwise", *RIVALS)
    ]
    return compare(sides, RATE, rounds=rounds, core=core)


def print_result(comparison: Comparison, kind: str) -> None:
    print_comparison(comparison, title=f"reading, {kind} (lengthwise is the baseline)")
    for side in RIVALS:
        pairs = zip(comparison.values("lengthwise"), comparison.values(side), strict=True)
        print(f"{kind}: lengthwise reads {spread([a / b for a, b in pairs])} times {side}")
    for side in comparison.runs:
        first = statistics.median(comparison.by(FIRST_BATCH).values(side))
        memory = statistics.median(large.own["memory"] for large, _ in comparison.runs[side])
        print(f"{kind}: {side}: first batch {first:.2f} s, memory {memory / 2**20:,.0f} MiB")


def main() -> None:
    parser = comparison_parser("read_dataset against other readers: sequences/s per core.", [*ROWS])
    options = parser.parse_args()

    def measure_kind(kind: str, folder: Path) -> Comparison:
        comparison = compare_readers(kind, folder, rounds=options.rounds, core=options.core)
        print_result(comparison, kind)
        return comparison

    compare_kinds(options, measure_kind)


if __name__ == "__main__":
    main()
