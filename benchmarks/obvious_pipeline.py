"""The Beam pipeline that one writes first: a tf.train.Example per row, a TFRecord file per bucket.

It follows the documentation of Beam and TensorFlow: `ReadFromParquet`, `Map` to an Example padded
to its bucket's length, `Partition`, `WriteToTFRecord`. It is not slowed down on purpose: the
padding is a numpy slice, the values go into the protobuf as one flat list (which is faster than an
array), and only bytes leave the `Map`.

It reads what `lengthwise build` reads and writes the same features, with the boundaries handed to
it. What it does not do is plan, shuffle, cut shards, resume, balance accounts, or leave a manifest.

    python benchmarks/obvious_pipeline.py floats.parquet OUT \
        --sequence features --label label --max-lengths 32,64,128,512
"""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.runners.portability.fn_api_runner import FnApiRunner


class ByBucket(beam.PartitionFn):
    """Sends `(bucket, record)` to the bucket's own collection."""

    def partition_for(self, element: tuple[int, bytes], num_partitions: int) -> int:
        return element[0]


def run(source: str, output: str, *, sequence: str, label: str, max_lengths: list[int]) -> None:
    """Runs the pipeline on this machine, in this process."""

    def to_example(row: dict[str, Any]) -> tuple[int, bytes]:
        bucket = bisect_left(max_lengths, len(row[sequence]))
        steps = np.asarray(row[sequence])
        return bucket, example_of(steps, row[label], sequence, label, max_lengths[bucket])

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        buckets = (
            pipeline
            | "Read" >> beam.io.ReadFromParquet(source)
            | "ToExample" >> beam.Map(to_example)
            | "ByBucket" >> beam.Partition(ByBucket(), len(max_lengths))
        )
        for max_length, bucket in zip(max_lengths, _each(buckets), strict=True):
            _ = (
                bucket
                | f"Bytes{max_length}" >> beam.Values()
                | f"Write{max_length}"
                >> beam.io.WriteToTFRecord(
                    f"{output}/len{max_length:05d}", file_name_suffix=".tfrecord"
                )
            )


def example_of(
    steps: np.ndarray, label_value: int, sequence: str, label: str, max_length: int
) -> bytes:
    """Pads one row and serialises it.

    Args:
        steps: (length,) integers or (length, D) floats.
        label_value: of the row.
        sequence: name of the sequence feature.
        label: name of the label.
        max_length: padded number of steps.
    """
    length = len(steps)
    padded = np.zeros((max_length, *steps.shape[1:]), steps.dtype)
    padded[:length] = steps
    mask = np.zeros(max_length, np.int64)
    mask[:length] = 1
    features = {
        sequence: (_floats if steps.dtype.kind == "f" else _integers)(padded.ravel().tolist()),
        label: _integers([label_value]),
        "length": _integers([length]),
        "mask": _integers(mask.tolist()),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def _floats(values: Any) -> Any:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _integers(values: Any) -> Any:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _each(partitions: Any) -> Sequence[beam.PCollection]:
    # `Partition` returns a tuple of PCollections, which its annotation does not say.
    return tuple(partitions)


def main() -> None:
    parser = argparse.ArgumentParser(description="Parquet to one TFRecord file per bucket.")
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--sequence", required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--max-lengths", required=True, help="inclusive, ascending, by commas")
    options = parser.parse_args()
    run(
        options.source,
        options.output,
        sequence=options.sequence,
        label=options.label,
        max_lengths=[int(length) for length in options.max_lengths.split(",")],
    )


if __name__ == "__main__":
    main()
