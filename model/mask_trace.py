"""What every layer of a Keras model takes and gives, and which mask went with it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

# Given a layer, its first argument, its mask and what it gave: what it is made to give instead.
Change = Callable[[Any, Any, Any, Any], Any]


@dataclass
class Call:
    """One call of a layer, or of an operation such as `x * 2`; tensors as they were in it."""

    layer: Any
    inputs: list[tf.Tensor]
    mask: Any
    outputs: list[tf.Tensor]

    @property
    def takes_mask(self) -> bool:
        """Whether the layer has an argument for a mask."""
        names = inspect.signature(type(self.layer).call).parameters
        return any(name == "mask" or name.endswith("_mask") for name in names)


def keras_mask(tensor: Any) -> Any:
    """The mask that Keras carries with a tensor; None for none."""
    return getattr(tensor, "_keras_mask", None)


def trace_calls(
    model: keras.Model, batch: Any, *, change: Change | None = None
) -> tuple[list[Call], list[tf.Tensor]]:
    """Runs a model eagerly, in inference, and records the calls of its layers.

    Layers that carry their state from batch to batch start from zeros.

    Layers of models inside the model are recorded too; layers inside of layers are not.

    Args:
        model: functional, sequential or subclassed.
        batch: its inputs.
        change: may replace what a layer gives.

    Returns:
        The calls in their order, and the outputs of the model.
    """
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()
    calls: list[Call] = []
    layers = list(dict.fromkeys(_layers_of(model)))
    with _recording(layers, calls, change):
        outputs = model(batch, training=False)
    return calls, keras.tree.flatten(outputs)


def _layers_of(model: keras.Model) -> Iterator[Any]:
    # Functional models have operations beside layers: `x * 2`, `keras.ops.concatenate`.
    for layer in getattr(model, "operations", model.layers):
        if isinstance(layer, keras.Model):
            yield from _layers_of(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


@contextmanager
def _recording(layers: list[Any], calls: list[Call], change: Change | None) -> Iterator[None]:
    for layer in layers:
        object.__setattr__(layer, "call", _recorder(layer, layer.call, calls, change))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "call")


def _recorder(
    layer: Any, call: Any, calls: list[Call], change: Change | None
) -> Callable[..., Any]:
    def record(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        if not tf.executing_eagerly():  # Keras finds out the shapes of a model it has not built.
            return outputs
        mask = kwargs.get("mask", kwargs.get("query_mask"))  # the second one is that of attention
        if change is not None:
            outputs = change(layer, args[0] if args else next(iter(kwargs.values())), mask, outputs)
        given = {k: v for k, v in kwargs.items() if k != "mask"}
        inputs = [
            value for value in keras.tree.flatten([args, given]) if isinstance(value, tf.Tensor)
        ]
        tensors = [value for value in keras.tree.flatten(outputs) if isinstance(value, tf.Tensor)]
        calls.append(Call(layer, inputs, mask, tensors))
        return outputs

    return record
