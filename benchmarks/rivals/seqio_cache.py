"""SeqIO: the offline cache of a task, made by its own command `seqio_cache_tasks` on Beam.

Written: a `tf.train.Example` per row without padding, in TFRecords, after two Reshuffles; files
with features, rows and tokens; a file COMPLETED at the end. No mask, no length, no plan, no
checksum of what is written, no fixed order of the rows.

A task reads rows by a `FunctionDataSource`, the only one that is not bound to a file format.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import seqio
import tensorflow as tf
from rivals import parquet_rows

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# The command imports this module and is told by the environment what to read.
SOURCE = "RIVALS_SOURCE"
SHARDS = 4


def _task_name(kind: str) -> str:
    return f"rows_{kind}"


def _register(kind: str) -> None:
    name = parquet_rows.SEQUENCE[kind]
    dtype = tf.dtypes.as_dtype(parquet_rows.DTYPE[kind])
    shape = (None, parquet_rows.WIDTH) if kind == "floats" else (None,)

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> Any:
        def generate() -> Iterator[dict[str, Any]]:
            for steps, label in parquet_rows.rows(os.environ[SOURCE], kind):
                yield {name: steps, "label": [label]}

        signature = {name: tf.TensorSpec(shape, dtype), "label": tf.TensorSpec((1,), tf.int64)}
        return tf.data.Dataset.from_generator(generate, output_signature=signature)

    steps = (
        seqio.ContinuousFeature(dtype=dtype, rank=2, add_eos=False)
        if kind == "floats"
        else seqio.Feature(seqio.PassThroughVocabulary(30_000), dtype=dtype, add_eos=False)
    )
    seqio.TaskRegistry.add(
        _task_name(kind),
        source=seqio.FunctionDataSource(dataset, splits=["train"]),
        preprocessors=[seqio.CacheDatasetPlaceholder()],
        output_features={
            name: steps,
            "label": seqio.Feature(seqio.PassThroughVocabulary(10), dtype=tf.int64, add_eos=False),
        },
    )


for _kind in parquet_rows.SEQUENCE:
    _register(_kind)


def write(kind: str, source: str, output: str) -> None:
    """Parquet to a cached task."""
    here = Path(__file__).parents[1]
    command = [
        str(Path(sys.executable).with_name("seqio_cache_tasks")),
        f"--tasks={_task_name(kind)}",
        f"--output_cache_dir={output}",
        "--module_import=rivals.seqio_cache",
        f"--min_shards={SHARDS}",
        f"--pipeline_options=--runner={RUNNER}",
    ]
    subprocess.run(command, check=True, env={**os.environ, SOURCE: source, "PYTHONPATH": str(here)})


def count(kind: str, output: str) -> dict[str, int]:
    """Rows and steps of what was written."""
    seqio.add_global_cache_dirs([output])
    task = seqio.get_mixture_or_task(_task_name(kind))
    data = task.get_dataset(sequence_length=None, split="train", use_cached=True, shuffle=False)
    lengths = [len(row[parquet_rows.SEQUENCE[kind]]) for row in data.as_numpy_iterator()]
    return {"rows": len(lengths), "steps": sum(lengths)}
