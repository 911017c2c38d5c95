"""Networks that take the features of a dataset as they come from the reader."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from lengthwise.dataset import Feature, UsageError
from lengthwise.dataset.schema import MASK
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.masked_bilstm import MaskedBiLSTM
from lengthwise.model.pooling import AttentionPooling, LastStepPooling, MaxPooling, MeanPooling
from lengthwise.model.task import Task


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


@dataclass(frozen=True)
class NetworkOutput:
    """What a network is to give.

    Attributes:
        size: of the last axis.
        per_step: (B, T, size) where True, else (B, size).
        shift, scale: (size,) mean and deviation of the numbers that it is to give; None for logits.
    """

    size: int
    per_step: bool = False
    shift: np.ndarray | None = None
    scale: np.ndarray | None = None

    @classmethod
    def of(cls, task: Task) -> NetworkOutput:
        """What the network of a task is to give."""
        shift = np.array(task.shift) if task.shift else None
        scale = np.array(task.scale) if task.scale else None
        return cls(task.output_size, task.per_step, shift, scale)


NetworkBuilder = Callable[[Sequence[NetworkInput], NetworkOutput, TrainConfig], keras.Model]


def build_network(
    inputs: Sequence[NetworkInput], output: NetworkOutput, config: TrainConfig
) -> keras.Model:
    """A stack of masked BiLSTMs under a dense layer.

        sequence features ─ embed or normalise ─ join ─ MaskedBiLSTM … ─ pooling ─┐
        mask ────────────────────────────────────────────┘                 └┘    join ─ Dense
        context features ── embed or normalise ────────────────────────────────────┘

    To tag steps there is no pooling, and each step is joined with the context features of its row.

    A network of one's own, `TrainConfig.build_model`, takes the same arguments and gives a model
    like this one.

    Args:
        inputs: at least one sequence feature, and any context features.
        output: what to give.
        config: sizes and kinds of the layers.

    Returns:
        A model that takes a dict of features as `read_dataset` yields them, with any others beside
        them, and gives (B, size) or (B, T, size) float32: logits, or numbers in their own unit.

    Example:
        >>> frames = NetworkInput(Feature("frames", "float32", (12,)))
        >>> model = build_network([frames], NetworkOutput(9), TrainConfig(units=4))
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
        (sequences if feature.sequence else contexts).append(
            _enter(tensor, item, mask, config, names)
        )

    hidden = _concatenate(sequences, names("steps"))  # (B, T, D)
    # The last step of the last layer needs no outputs of the others, unless they are added up.
    in_layer = not output.per_step and config.pooling == "last" and not config.residual
    for layer in range(config.layers):
        given = hidden
        last = layer == config.layers - 1
        hidden = MaskedBiLSTM(
            config.units, return_sequences=not (last and in_layer), name=names(f"bilstm_{layer}")
        )(hidden, mask=mask)
        if config.residual and layer:
            hidden = keras.layers.Add(name=names(f"residual_{layer}"))([hidden, given])
        if config.layer_norm:
            hidden = keras.layers.LayerNormalization(name=names(f"norm_{layer}"))(hidden)
        if config.dropout:
            hidden = keras.layers.Dropout(config.dropout, name=names(f"dropout_{layer}"))(hidden)
    if output.per_step:
        # (B, T, 1) of ones carries what belongs to the row to each of its steps.
        ones: Any = keras.ops.ones_like(hidden[:, :, :1])
        contexts = [ones * keras.ops.expand_dims(context, 1) for context in contexts]
    elif not in_layer:
        hidden = _pooling(config, names("pooling"))(hidden, mask=mask)
    joined = _concatenate([hidden, *contexts], names("joined"))
    values = keras.layers.Dense(output.size, name=names("logits"), dtype="float32")(joined)
    if output.shift is not None and output.scale is not None:
        rescaling: Any = keras.layers.Rescaling
        values = rescaling(output.scale, output.shift, name=names("numbers"), dtype="float32")(
            values
        )
    return keras.Model(tensors, values, name="network")


def find_builder(place: str) -> NetworkBuilder:
    """The function that "module:function" names.

    Raises:
        UsageError: there is no such module or function.

    Example:
        >>> find_builder("lengthwise.model.networks:build_network") is build_network
        True
    """
    module_name, _, function_name = place.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in function_name.split("."):
            found = getattr(found, part)
    # TypeError: the name begins with a dot.
    except (ImportError, AttributeError, ValueError, TypeError) as reason:
        raise UsageError(
            f"--build-model {place}: cannot be found: {reason}; write it as module:function, the "
            "module on PYTHONPATH"
        ) from None
    if not callable(found):
        raise UsageError(f"--build-model {place}: is no function")
    builder: Any = found
    return builder


def check_network(network: Any, output: NetworkOutput, *, place: str) -> None:
    """Raises UsageError unless a network of one's own gives what it is to give."""
    if not isinstance(network, keras.Model):
        raise UsageError(f"{place}: gave {type(network).__name__}, not a keras.Model")
    if not network.built:
        raise UsageError(f"{place}: gave a model that is not built; make it from keras.Input")
    expected = (None, None, output.size) if output.per_step else (None, output.size)
    given = getattr(network, "output_shape", None)
    if given is not None and (len(given) != len(expected) or given[-1] != output.size):
        raise UsageError(f"{place}: gave a model of output {given}; the task needs {expected}")


class _LayerNames:
    """Names for layers that no feature has: Keras wants each name once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.taken = set(taken)

    def __call__(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _enter(
    tensor: Any, item: NetworkInput, mask: Any, config: TrainConfig, names: _LayerNames
) -> Any:
    """One vector per step (B, T, D), or per row (B, D) for a context feature."""
    feature = item.feature
    size = feature.size
    if feature.dtype == "int64":
        if feature.sequence:
            # What stands in padding need not be an id.
            real = mask
            for _ in feature.shape:
                real = keras.ops.expand_dims(real, -1)
            tensor = keras.ops.where(real, tensor, 0)
        if config.context == "onehot" and not feature.sequence:
            size *= item.num_ids
            tensor = keras.ops.one_hot(tensor, item.num_ids)
        else:
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


def _pooling(config: TrainConfig, name: str) -> Any:
    if config.pooling == "attention":
        return AttentionPooling(config.units, name=name)
    kinds = {"last": LastStepPooling, "mean": MeanPooling, "max": MaxPooling}
    return kinds[config.pooling](name=name)


def _concatenate(tensors: list[Any], name: str) -> Any:
    if len(tensors) == 1:
        return tensors[0]
    return keras.layers.Concatenate(axis=-1, name=name)(tensors)
