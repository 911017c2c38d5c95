"""Networks that take the features of a dataset as they come from the reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
        mean, variance: float features: (feature.size,), for normalisation; None leaves it out.
    """

    feature: Feature
    num_ids: int = 0
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None


def build_classifier(
    inputs: Sequence[NetworkInput], num_classes: int, config: TrainConfig
) -> keras.Model:
    """A stack of masked BiLSTMs under a dense layer.

        sequence features ─ embed or normalise ─ concat ─ MaskedBiLSTM … ─┐
        mask ─────────────────────────────────────────────┘               concat ─ Dense ─ logits
        context features ── embed or normalise ───────────────────────────┘

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
    names = _LayerNames([MASK, *(item.feature.name for item in inputs)])
    mask = keras.Input((None,), dtype="bool", name=MASK)
    # A list, not a dict: given a dict, Keras picks from it the inputs of a list by their names, but
    # takes the inputs of a dict in order, whatever else stands among them.
    tensors, sequences, contexts = [mask], [], []
    for item in inputs:
        feature = item.feature
        shape = (None, *feature.shape) if feature.sequence else feature.shape
        tensor = keras.Input(shape, dtype=feature.dtype, name=feature.name)
        tensors.append(tensor)
        (sequences if feature.sequence else contexts).append(_enter(tensor, item, config, names))

    hidden = _concatenate(sequences, names("steps"))  # (B, T, D)
    for layer in range(config.layers):
        hidden = MaskedBiLSTM(
            config.units,
            return_sequences=layer < config.layers - 1,
            name=names(f"bilstm_{layer}"),
        )(hidden, mask=mask)
        if config.dropout:
            hidden = keras.layers.Dropout(config.dropout, name=names(f"dropout_{layer}"))(hidden)
    row = _concatenate([hidden, *contexts], names("row"))  # (B, D)
    logits = keras.layers.Dense(num_classes, name=names("logits"), dtype="float32")(row)
    return keras.Model(tensors, logits, name="classifier")


class _LayerNames:
    """Names for layers that no feature has: Keras wants each name once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def __call__(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _enter(tensor: Any, item: NetworkInput, config: TrainConfig, names: _LayerNames) -> Any:
    """One vector per step (B, T, D), or per row (B, D) for a context feature."""
    feature = item.feature
    size = feature.size
    if feature.dtype == "int64":
        size *= config.embedding_size
        tensor = keras.layers.Embedding(
            item.num_ids, config.embedding_size, name=names(f"{feature.name}_embedding")
        )(tensor)
    shape = (-1, size) if feature.sequence else (size,)
    tensor = keras.layers.Reshape(shape, name=names(f"{feature.name}_vector"))(tensor)
    if item.mean is not None and item.variance is not None:
        # A value that never changes says nothing; divided by its deviation it would say most.
        variance = np.where(item.variance > 0, item.variance, 1.0)
        tensor = keras.layers.Normalization(
            mean=item.mean, variance=variance, name=names(f"{feature.name}_normalization")
        )(tensor)
    return tensor


def _concatenate(tensors: list[Any], name: str) -> Any:
    if len(tensors) == 1:
        return tensors[0]
    return keras.layers.Concatenate(axis=-1, name=name)(tensors)
