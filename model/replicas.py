"""Datasets under `tf.distribute`: every replica its own share of each step."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from lengthwise.dataset import Manifest, UsageError
from lengthwise.model.reader import read_dataset


def distribute_dataset(
    strategy: tf.distribute.Strategy,
    path: str | os.PathLike[str] | Manifest,
    split: str = "train",
    **options: Any,
) -> tf.distribute.DistributedDataset:
    """Reads a split under a strategy: at each step all replicas have the same bucket.

    Give `pad_remainder=True` or `drop_remainder=True` if all replicas should have as many rows.

    Args:
        strategy: MirroredStrategy, MultiWorkerMirroredStrategy or another one that is synchronous.
        path: the dataset folder or its manifest.
        split: name of the split.
        options: those of `read_dataset`; `batch_size` is per replica; `num_replicas` and `replica`
            come from the strategy.

    Returns:
        A distributed dataset for `strategy.run` or `model.fit`; one step of it holds one batch for
        every replica.

    Raises:
        UsageError: `num_replicas` or `replica` was given.
        LengthwiseError: see `read_dataset`.
    """
    given = {"num_replicas", "replica"} & options.keys()
    if given:
        raise UsageError(f"{given.pop()} comes from the strategy; leave it out")
    manifest = path if isinstance(path, Manifest) else Manifest.load(path)

    def read(context: tf.distribute.InputContext) -> tf.data.Dataset:
        # A worker deals its elements out to its own replicas, one after another.
        local = context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * local
        parts = [
            read_dataset(
                manifest,
                split,
                num_replicas=context.num_replicas_in_sync,
                replica=replica,
                **options,
            )
            for replica in range(first, first + local)
        ]
        return parts[0] if local == 1 else _in_turns(parts)

    return strategy.distribute_datasets_from_function(read)


def _in_turns(parts: list[tf.data.Dataset]) -> tf.data.Dataset:
    """One element of each, again and again; all have as many."""
    elements = len(parts) * int(parts[0].cardinality())
    turns = tf.data.Dataset.range(elements).map(lambda i: i % len(parts))
    settings = tf.data.Options()
    settings.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return (
        tf.data.Dataset.choose_from_datasets(parts, turns, stop_on_empty_dataset=False)
        .apply(tf.data.experimental.assert_cardinality(elements))
        .with_options(settings)
    )
