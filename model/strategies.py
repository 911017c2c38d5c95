"""Where a run computes: one device, all of a machine, or several machines."""

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf

from lengthwise.dataset import Manifest, UsageError
from lengthwise.model.batching import TokenBudget
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.epochs import Epochs
from lengthwise.model.read_options import ReadOptions
from lengthwise.model.reader import read_dataset
from lengthwise.model.replicas import distribute_dataset


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of a name; see `TrainConfig`.

    Raises:
        UsageError: "multiworker" without TF_CONFIG.

    Example:
        >>> make_strategy("none").num_replicas_in_sync
        1
    """
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multiworker":
        try:
            cluster = json.loads(os.environ.get("TF_CONFIG", ""))
            if not cluster["cluster"]["worker"] or cluster["task"]["index"] < 0:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                "--strategy multiworker needs the environment variable TF_CONFIG, on each worker "
                'its own: {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", '
                '"index": 0}}'
            ) from None
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run folder."""
    resolver: Any = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
    )


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns once every worker has come here."""
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        context: Any = tf.distribute.get_replica_context

        @tf.function
        def meet() -> Any:
            return strategy.run(lambda: context().all_reduce("SUM", tf.constant(1.0)))

        meet()


class RunData:
    """The batches of a run on one or more replicas.

    Args:
        manifest: of the dataset.
        config: batch size and seed count here; `batch_size` is over all replicas.
        label: the feature to predict.
        strategy: who shares each batch.

    Raises:
        UsageError: the batch size is no multiple of the replicas.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: TrainConfig,
        label: str,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self.manifest = manifest
        self.config = config
        self.label = label
        self.strategy = strategy
        replicas = strategy.num_replicas_in_sync
        if config.token_budget is None and config.batch_size % replicas:
            raise UsageError(
                f"--batch-size is {config.batch_size}; it must be a multiple of the {replicas} "
                "replicas that share a batch"
            )
        self._options: dict[str, Any] = {
            "batch_size": {t: self.batch_size(t) // replicas for t in manifest.max_lengths},
            "seed": config.seed,
            "label": label,
        }
        if config.strategy != "none":
            # All replicas must give as many rows; those that fill a batch weigh nothing.
            self._options["pad_remainder"] = True

    def batch_size(self, max_length: int) -> int:
        """Rows of a batch of a bucket, over all replicas."""
        if self.config.token_budget is None:
            return self.config.batch_size
        replicas = self.strategy.num_replicas_in_sync
        budget = TokenBudget(self.config.token_budget, multiple_of=replicas)
        return max(replicas, budget.batch_size(max_length))

    def read(self, split: str, **options: Any) -> Any:
        """Batches of a split; options of `read_dataset`."""
        if self.config.strategy == "none":
            return read_dataset(self.manifest, split, **self._options, **options)
        return distribute_dataset(self.strategy, self.manifest, split, **self._options, **options)

    def steps(self, split: str) -> int:
        """Batches of an epoch of a split."""
        return len(Epochs(self.manifest, split, ReadOptions(**self.read_options)))

    @property
    def read_options(self) -> dict[str, Any]:
        """Options of the reader that give the batches of one replica, but for its number."""
        return {**self._options, "num_replicas": self.strategy.num_replicas_in_sync}
