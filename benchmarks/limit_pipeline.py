"""The least that writing padded, checksummed records of ragged rows can take, in one process.

No Beam, no plan, no statistics, no validation, no shuffle, no staging, no shards, no commit: each
batch is decoded once, its rows are sorted by bucket, padded, encoded, checksummed and appended to
the one file of their bucket, with the checksum of the file carried along. Boundaries and widths of
integers come from a plan that was made before. The kernels for encoding and checksums are those of
`lengthwise.transforms`; what is around them here is what they cannot do without.

    python benchmarks/limit_pipeline.py floats.parquet out plan.json
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengthwise.dataset.plan import Plan
from lengthwise.transforms.encoding import RowEncoder
from lengthwise.transforms.ragged import RaggedRows

# As large as the batches and the blocks of the build itself.
_BATCH_BYTES = 4 << 20
_BLOCK_BYTES = 2 << 20


def write_records(source: Path, output: Path, plan: Plan) -> int:
    """Writes the records of a Parquet file; returns how many."""
    output.mkdir(parents=True)
    schema = plan.schema
    (sequence,), (label,) = schema.sequences, schema.labels
    layouts = [plan.layout(max_length) for max_length in plan.max_lengths]
    encoders = [RowEncoder(schema, layout) for layout in layouts]
    files = [open(output / f"{t:05d}.tfrecord", "wb", buffering=0) for t in plan.max_lengths]
    checksums = [0] * len(files)
    written = 0
    with pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as parquet:
        group = parquet.metadata.row_group(0)
        batch_rows = max(1, group.num_rows * _BATCH_BYTES // group.total_byte_size)
        for batch in parquet.iter_batches(batch_rows, use_threads=False):
            steps = batch.column(sequence.name)
            offsets = steps.offsets.to_numpy().astype(np.int64)
            values = steps.values.slice(offsets[0], offsets[-1] - offsets[0])
            while pa.types.is_fixed_size_list(values.type):
                values = values.flatten()
            flat = values.to_numpy()
            lengths = np.diff(offsets)
            width = flat.itemsize * sequence.size
            buckets = np.searchsorted(plan.max_lengths, lengths).astype(np.uint8)
            order = np.argsort(buckets, kind="stable")
            as_bytes = pa.Array.from_buffers(
                pa.large_binary(),
                len(lengths),
                [None, pa.py_buffer((offsets - offsets[0]) * width), pa.py_buffer(flat)],
            )
            taken = as_bytes.take(pa.array(order))
            flat = np.frombuffer(taken.buffers()[2], flat.dtype).reshape(-1, *sequence.shape)
            lengths = lengths[order]
            labels = batch.column(label.name).to_numpy()[order]
            starts = np.concatenate(([0], np.cumsum(lengths)))
            ends = np.cumsum(np.bincount(buckets, minlength=len(files)))
            for bucket, (layout, file) in enumerate(zip(layouts, files, strict=True)):
                block_rows = max(1, _BLOCK_BYTES // layout.stride)
                bucket_start = int(ends[bucket - 1]) if bucket else 0
                for first in range(bucket_start, int(ends[bucket]), block_rows):
                    last = min(first + block_rows, int(ends[bucket]))
                    rows = RaggedRows(
                        lengths[first:last],
                        {sequence.name: flat[starts[first] : starts[last]]},
                        {label.name: labels[first:last]},
                    )
                    data = encoders[bucket].encode(rows).data.cast("B")
                    file.write(data)
                    checksums[bucket] = crc32c.crc32c(data, checksums[bucket])
                    written += last - first
    for file in files:
        os.fsync(file.fileno())
        file.close()
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Pads and writes rows, and does nothing else.")
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("plan", type=Path)
    options = parser.parse_args()
    print(write_records(options.source, options.output, Plan.load(options.plan)), "records")


if __name__ == "__main__":
    main()
