"""Files that are whole or not there, and the four transforms in somebody else's pipeline."""

import os
import stat

import apache_beam as beam
import crc32c
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that

from lengthwise.dataset import Schema
from lengthwise.dataset.tfrecord import frame_matrix, read_records
from lengthwise.transforms import (
    BucketByLength,
    EncodeExamples,
    PadToBucket,
    WriteTFRecords,
    WrittenFile,
    write_shard,
)
from lengthwise.transforms.writing import write_text


def block(*rows):
    return frame_matrix(np.array([list(row) for row in rows], np.uint8).reshape(len(rows), -1))


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


class Fault(Exception):
    pass


def failing_blocks():
    yield block(b"abc")
    raise Fault


def test_a_shard_holds_its_blocks_in_order(tmp_path):
    path = tmp_path / "deep/er/a.tfrecord"

    written = write_shard(path, iter([block(b"abc", b"def"), block(b"x"), block(b"ghi")]))

    data = path.read_bytes()
    assert list(read_records(path)) == [b"abc", b"def", b"x", b"ghi"]
    assert written == WrittenFile(str(path), 4, len(data), crc32c.crc32c(data))
    assert files_in(tmp_path) == {"deep/er/a.tfrecord": data}


def test_empty_blocks_and_no_blocks_are_written_too(tmp_path):
    empty = np.empty((0, 19), np.uint8)

    assert write_shard(tmp_path / "a", [empty, block(b"abc"), empty]).records == 1
    assert write_shard(tmp_path / "b", []) == WrittenFile(str(tmp_path / "b"), 0, 0, 0)
    assert files_in(tmp_path) == {"a": block(b"abc").tobytes(), "b": b""}


def test_a_shard_of_that_name_is_replaced(tmp_path):
    path = tmp_path / "a"
    write_shard(path, [block(b"abc", b"def")])

    write_shard(path, [block(b"x")])

    assert files_in(tmp_path) == {"a": block(b"x").tobytes()}


def test_a_fault_on_the_way_leaves_neither_file_nor_temporary(tmp_path):
    with pytest.raises(Fault):
        write_shard(tmp_path / "a", failing_blocks())

    assert files_in(tmp_path) == {}


def test_a_fault_on_the_way_leaves_the_old_file(tmp_path):
    write_shard(tmp_path / "a", [block(b"old")])

    with pytest.raises(Fault):
        write_shard(tmp_path / "a", failing_blocks())

    assert files_in(tmp_path) == {"a": block(b"old").tobytes()}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_fault_at_the_end_leaves_the_old_file(tmp_path, monkeypatch, step):
    write_shard(tmp_path / "a", [block(b"old")])
    write_text(tmp_path / "b", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        write_shard(tmp_path / "a", [block(b"new")])
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "b", "new")

    assert files_in(tmp_path) == {"a": block(b"old").tobytes(), "b": b"old"}


def test_data_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        status = os.fstat(descriptor)
        events.append("sync folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
        fsync(descriptor)

    def recorded_replace(source, target):
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)

    write_shard(tmp_path / "a", [block(b"abc")])
    write_text(tmp_path / "b", "text")

    assert events == [19, "rename", 4, "rename", "sync folder"]


def test_text_is_written_as_utf_8_and_nothing_else(tmp_path):
    write_text(tmp_path / "a", "ä\r\n–\n")

    assert files_in(tmp_path) == {"a": "ä\r\n–\n".encode()}


def write_with_beam(folder, elements, **options):
    """Runs the transform alone; returns its counters."""
    pipeline = beam.Pipeline(runner=FnApiRunner())
    written = pipeline | beam.Create(elements) | WriteTFRecords(folder, **options)
    assert_that(written, check_files)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("lengthwise"))
    return {counter.key.metric.name: counter.committed for counter in counters["counters"]}


def check_files(written):
    for file in written:
        with open(file.path, "rb") as opened:
            data = opened.read()
        assert (file.nbytes, file.crc32c) == (len(data), crc32c.crc32c(data))
        assert file.records == len(list(read_records(file.path)))


def some_blocks():
    rng = np.random.default_rng(0)
    return [
        (max_length, frame_matrix(rng.integers(0, 256, (rows, max_length), np.uint8)))
        for max_length in (4, 64)
        for rows in (1, 5, 2, 9)
    ]


@pytest.mark.parametrize("num_shards", [1, 3])
def test_the_same_blocks_give_the_same_files_in_any_order(tmp_path, num_shards):
    elements = some_blocks()

    counters = write_with_beam(tmp_path / "a", elements, num_shards=num_shards)
    write_with_beam(tmp_path / "b", elements[::-1], num_shards=num_shards)

    files = files_in(tmp_path / "a")
    assert files == files_in(tmp_path / "b")
    assert counters == {
        "records_written": 34,
        "bytes_written": sum(len(data) for data in files.values()),
    }
    for max_length in (4, 64):
        own = {name: data for name, data in files.items() if name.startswith(f"len{max_length:05}")}
        assert set(own) <= {
            f"len{max_length:05}-{i:05}-of-{num_shards:05}.tfrecord" for i in range(num_shards)
        }
        together = sorted(b"".join(own.values()))
        assert together == sorted(
            b"".join(records.tobytes() for t, records in elements if t == max_length)
        )


def test_blocks_may_repeat_be_empty_or_not_contiguous(tmp_path):
    records = block(b"abc", b"def", b"ghi", b"jkl")

    write_with_beam(tmp_path, [(8, records[::2]), (8, records[::2]), (8, records[:0])])

    (path,) = tmp_path.iterdir()
    assert list(read_records(path)) == [b"abc", b"ghi"] * 2


def test_there_is_at_least_one_shard(tmp_path):
    with pytest.raises(ValueError, match="num_shards must be at least 1, got 0"):
        WriteTFRecords(tmp_path, num_shards=0)


def test_the_four_transforms_make_a_dataset_that_tensorflow_reads(tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 13, 60).tolist()
    rows = {
        "frames": [rng.normal(size=(n, 2)).astype(np.float32).tolist() for n in lengths],
        "tokens": [rng.integers(0, 50_000, n).tolist() for n in lengths],
        "id": list(range(60)),
        "speaker": rng.integers(-1, 9, 60).tolist(),
    }
    # Some steps are missing.
    for i in range(0, 60, 7):
        if lengths[i] > 2:
            rows["tokens"][i][1] = None
    columns = pa.schema(
        [
            ("frames", pa.list_(pa.list_(pa.float32(), 2))),
            ("tokens", pa.list_(pa.int32())),
            ("id", pa.int64()),
            ("speaker", pa.int8()),
        ]
    )
    table = pa.table(rows, columns)
    schema = Schema.from_arrow(columns, labels=["speaker"], contexts=["id"])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create([table.slice(0, 25), table.slice(25)])
            | BucketByLength([4, 8], schema=schema, overlong="drop")
            | PadToBucket(schema)
            | EncodeExamples(schema, widths={"id": 1, "speaker": 10, "tokens": 3})
            | WriteTFRecords(tmp_path, num_shards=2)
        )

    found = set()
    for max_length in (4, 8):
        names = sorted(map(str, tmp_path.glob(f"len{max_length:05}-*.tfrecord")))
        spec = {
            "frames": tf.io.FixedLenFeature((max_length, 2), tf.float32),
            "tokens": tf.io.FixedLenFeature((max_length,), tf.int64),
            "id": tf.io.FixedLenFeature((), tf.int64),
            "speaker": tf.io.FixedLenFeature((), tf.int64),
            "mask": tf.io.FixedLenFeature((max_length,), tf.int64),
            "length": tf.io.FixedLenFeature((), tf.int64),
        }
        for serialized in tf.data.TFRecordDataset(names).batch(7):
            batch = {k: v.numpy() for k, v in tf.io.parse_example(serialized, spec).items()}
            for n, row in enumerate(batch["id"].tolist()):
                found.add(row)
                length = lengths[row]
                observed = [token is not None for token in rows["tokens"][row]]
                tokens = [token or 0 for token in rows["tokens"][row]]
                frames = np.where(np.array(observed)[:, None], rows["frames"][row], 0)
                assert max_length - 4 < length <= max_length
                assert batch["length"][n] == length
                assert batch["speaker"][n] == rows["speaker"][row]
                padding = max_length - length
                assert batch["mask"][n].tolist() == observed + [False] * padding
                assert batch["tokens"][n].tolist() == tokens + [0] * padding
                assert batch["frames"][n].tolist() == frames.tolist() + [[0, 0]] * padding
    assert found == {row for row, length in enumerate(lengths) if 0 < length <= 8}
