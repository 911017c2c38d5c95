"""Networks that take the features of a dataset as they come from the reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lengthwise.dataset import Feature
from lengthwise.dataset.schema import MASK
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.masked_bilstm import MaskedBiLSTM


@dataclass(frozen=True)
class NetworkInput:
    """A feature, and what the network must know to take it.

    Attributes:
        feature: float features enter as they are, integer features as ids through an embedding.
        num_ids: integer features: ids are below this.
        mean, variance: float features: (feature.size,) float, for normalisation; None leaves it out.
    """

    feature: Feature
    num_ids: int = 0
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None


def build_classifier(
    inputs: Sequence[NetworkInput], num_classes: int, config: TrainConfig
) -> keras.Model:
    """A stack of masked BiLSTMs under a dense layer.

        sequence features ── embed or normalise ── concat ── MaskedBiLSTM … ─┐
        mask ────────────────────────────────────────────────┘               concat ── Dense ── logits
        context features ─── embed or normalise ─────────────────────────────┘

    Args:
        inputs: at least one sequence feature, and any context features.
        num_classes: size of the output.
        config: sizes of the layers.

    Returns:
        A model that takes a dict of features as `read_dataset` yields them, with any others beside
        them, and gives logits (B, num_classes) float32.

    Example:
        >>> frames = NetworkInput(Feature("frames", "float32", (12,)))
        >>> model = build_classifier([frames], 9, TrainConfig(units=4))
        >>> steps = np.zeros((2, 5, 12), np.float32)
        >>> model({"frames": steps, "mask": np.ones((2, 5), bool), "length": [5, 5]}).shape
        TensorShape([2, 9])
    """
    mask = keras.Input((None,), dtype="bool", name=MASK)
    # A list, not a dict: given a dict, Keras matches a list by name and ignores whatever is beside.
    tensors, sequences, contexts = [mask], [], []
    for item in inputs:
        feature = item.feature
        shape = (None, *feature.shape) if feature.sequence else feature.shape
        tensor = keras.Input(shape, dtype=feature.dtype, name=feature.name)
        tensors.append(tensor)
        (sequences if feature.sequence else contexts).append(_enter(tensor, item, config))

    hidden = _concatenate(sequences)  # (B, T, D)
    for layer in range(config.layers):
        hidden = MaskedBiLSTM(
            config.units, return_sequences=layer < config.layers - 1, name=f"bilstm_{layer}"
        )(hidden, mask=mask)
        if config.dropout:
            hidden = keras.layers.Dropout(config.dropout, name=f"dropout_{layer}")(hidden)
    logits = keras.layers.Dense(num_classes, name="logits", dtype="float32")(
        _concatenate([hidden, *contexts])
    )
    return keras.Model(tensors, logits, name="classifier")


def _enter(tensor: Any, item: NetworkInput, config: TrainConfig) -> Any:
    """One vector per step (B, T, D), or per row (B, D) for a context feature."""
    feature = item.feature
    size = feature.size
    if feature.dtype == "int64":
        size *= config.embedding_size
        tensor = keras.layers.Embedding(
            item.num_ids, config.embedding_size, name=f"{feature.name}_embedding"
        )(tensor)
    shape = (-1, size) if feature.sequence else (size,)
    tensor = keras.layers.Reshape(shape, name=f"{feature.name}_vector")(tensor)
    if item.mean is not None and item.variance is not None:
        # A value that never changes says nothing; dividing by its deviation would make it everything.
        variance = np.where(item.variance > 0, item.variance, 1.0)
        tensor = keras.layers.Normalization(
            mean=item.mean, variance=variance, name=f"{feature.name}_normalization"
        )(tensor)
    return tensor


def _concatenate(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate(axis=-1)(tensors)
