"""Batches that say the same with other padding: what differs in a model's answers is its fault."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from lengthwise.dataset import UsageError

_ROWS, _STEPS, _MORE_STEPS = 5, 9, 4
_NOISE = 50.0
# "mask" and "attention_mask", but not "masked_ids"; "length" and "seq_len", but not "valence".
_MASK_NAME = re.compile(r"(?<![a-z])masks?(?![a-z])", re.IGNORECASE)
_LENGTH_NAME = re.compile(r"(?<![a-z])len(gth)?s?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Probe:
    """A batch, and how its padding can be changed.

    Attributes:
        leaves: name -> array, the inputs of the model in its order.
        structure: the batch as it was given.
        mask: (B, T) bool, which steps are real; None where only the model's layers know.
        pad_values: name -> what a padded step of it holds.
        free: names of inputs whose T is not fixed by the model.
        told: whether the batch itself says which steps are real, so that padding may hold anything.
    """

    leaves: dict[str, np.ndarray]
    structure: Any
    mask: np.ndarray | None
    pad_values: dict[str, float]
    free: frozenset[str] = field(default_factory=frozenset)
    told: bool = False

    def batch(self, leaves: dict[str, np.ndarray] | None = None) -> Any:
        """The inputs of the model in the structure that it takes."""
        values = list((leaves or self.leaves).values())
        return keras.tree.pack_sequence_as(self.structure, values)

    def with_more_padding(self, mask: np.ndarray) -> Any:
        """The same rows with more padded steps; None where the model fixes T."""
        timed = self._timed(mask)
        if not timed or not timed <= self.free:
            return None
        leaves = dict(self.leaves)
        for name in timed:
            value = leaves[name]
            widths = [(0, 0), (0, _MORE_STEPS), *[(0, 0)] * (value.ndim - 2)]
            fill = self.pad_values.get(name, 0)
            leaves[name] = np.pad(value, widths, constant_values=fill)
        return self.batch(leaves)

    def with_other_padding(self, mask: np.ndarray) -> Any:
        """The same rows with other values at padded steps; None where those make the mask."""
        if not self.told:
            return None
        rng = np.random.default_rng(1)
        leaves = dict(self.leaves)
        for name in self._timed(mask):
            value = leaves[name]
            if _says_mask(name, value.dtype.name, value.ndim):
                continue
            if value.dtype.kind == "f":
                other = rng.normal(size=value.shape) * _NOISE
            else:
                other = rng.permutation(value.ravel()).reshape(value.shape)
            real = mask.reshape(mask.shape + (1,) * (value.ndim - 2))
            leaves[name] = np.where(real, value, other.astype(value.dtype))
        return self.batch(leaves)

    def _timed(self, mask: np.ndarray) -> set[str]:
        return _timed(self.leaves, mask, self.free)


def probe_batch(model: keras.Model, batch: Any, mask: Any = None) -> Probe:
    """A probe of a batch that was given."""
    flat = [np.asarray(value) for value in keras.tree.flatten(batch)]
    names = _names(model, batch, len(flat))
    leaves = dict(zip(names, flat, strict=True))
    told = mask is not None
    if mask is None:
        said = [v for n, v in leaves.items() if v.ndim == 2 and _says_mask(n, v.dtype.name, 2)]
        mask = said[0] if said else None
        told = mask is not None
    if mask is None:
        length = next((v for n, v in leaves.items() if _says_length(n, v.ndim)), None)
        timed = next((v for v in flat if v.ndim >= 2), None)
        if length is not None and timed is not None:
            mask = np.arange(timed.shape[1]) < length[:, np.newaxis]
            told = True
    return Probe(
        leaves=leaves,
        structure=batch,
        mask=None if mask is None else np.asarray(mask, bool),
        pad_values=_pad_values(model, leaves),
        free=_free(model, names),
        # Where layers find the mask in the values, padding must go on holding what it holds.
        told=told and not _value_masks(model),
    )


def make_probe(model: keras.Model) -> Probe:
    """A probe of a small random batch, of lengths from 1 to T.

    Raises:
        UsageError: the model does not say what its inputs are.
    """
    if not getattr(model, "inputs", None):
        raise UsageError(
            f"the model '{model.name}' does not say what its inputs are; from Python, "
            "`check_masks(model, batch)` takes a batch of yours"
        )
    tensors = keras.tree.flatten(model.inputs)
    total = _num_steps(tensors)
    rows = next((t.shape[0] for t in tensors if t.shape[0]), _ROWS)
    lengths = np.resize([total, max(total - 3, 1), 1, max(total // 2, 1), total], rows)
    mask = np.arange(total) < lengths[:, np.newaxis]
    rng = np.random.default_rng(0)
    num_ids = min([_input_dim(layer) for layer in _all_layers(model)], default=3)
    leaves = {}
    for tensor in tensors:
        shape = [rows, *(total if size is None else size for size in tensor.shape[1:])]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype == "string":
            raise UsageError(
                f"the model '{model.name}' takes strings; from Python, `check_masks(model, batch)` "
                "takes a batch of yours"
            )
        if _says_mask(tensor.name, dtype, len(shape)):
            value = (mask if tuple(shape) == mask.shape else np.ones(shape)).astype(dtype)
        elif _says_length(tensor.name, len(shape)):
            value = lengths.astype(dtype)
        elif dtype.startswith(("int", "uint")) or _feeds_embedding(tensor, model):
            value = rng.integers(1, max(num_ids, 2), shape).astype(dtype)
        else:
            value = rng.normal(size=shape).astype(dtype)
        leaves[tensor.name] = value
    values = _pad_values(model, leaves)
    names = list(leaves)
    free = _free(model, names)
    for name in _timed(leaves, mask, free):
        if rows > 1 and not _says_mask(name, leaves[name].dtype.name, leaves[name].ndim):
            # A row of the same steps: what is largest may be less than what padding gives.
            leaves[name][-1] = leaves[name][-1, :1]
        leaves[name][~mask] = values[name]
    said = any(
        _says_mask(name, value.dtype.name, value.ndim) or _says_length(name, value.ndim)
        for name, value in leaves.items()
    )
    structure = list(leaves.values()) if len(leaves) > 1 else leaves[names[0]]
    return Probe(
        leaves=leaves,
        structure=structure,
        mask=mask,
        pad_values=values,
        free=free,
        told=said and not _value_masks(model),
    )


def _num_steps(tensors: list[Any]) -> int:
    """T of a probe: what the model fixes, or a number that none of its other sizes is."""
    sizes = {size for tensor in tensors for size in tensor.shape[1:] if size}
    if any(len(t.shape) >= 2 and t.shape[1] is None for t in tensors):
        return next(size for size in range(_STEPS, 1000) if size not in sizes)
    # Steps of vectors are steps; (B, D) may be the features of a row.
    fixed = [t for t in tensors if len(t.shape) > 2] or [t for t in tensors if len(t.shape) == 2]
    return max((t.shape[1] for t in fixed), default=_STEPS)


def _timed(leaves: dict[str, np.ndarray], mask: np.ndarray, free: frozenset[str]) -> set[str]:
    """Names of the inputs that have steps."""
    timed = {name for name, value in leaves.items() if value.shape[:2] == mask.shape}
    if any(leaves[name].ndim > 2 for name in timed):
        # Beside vectors of each step, (B, D) of a fixed D are features of a row that has D = T.
        timed -= {
            name
            for name in timed - free
            if leaves[name].ndim == 2
            and leaves[name].dtype.kind == "f"
            and not _says_mask(name, leaves[name].dtype.name, 2)
        }
    return timed


def _says_mask(name: str, dtype: str, rank: int) -> bool:
    return dtype == "bool" or (rank == 2 and _MASK_NAME.search(name) is not None)


def _says_length(name: str, rank: int) -> bool:
    return rank == 1 and _LENGTH_NAME.search(name) is not None


def _names(model: keras.Model, batch: Any, count: int) -> list[str]:
    if isinstance(batch, dict):
        return sorted(batch)
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    if len(inputs) == count:
        return [tensor.name for tensor in inputs]
    return [f"input_{number}" for number in range(count)]


def _free(model: keras.Model, names: list[str]) -> frozenset[str]:
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    fixed = {t.name for t in inputs if len(t.shape) >= 2 and t.shape[1] is not None}
    return frozenset(names) - fixed


def _all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    return list(model._flatten_layers(include_self=False))


def _value_masks(model: keras.Model) -> list[keras.layers.Layer]:
    return [
        layer
        for layer in _all_layers(model)
        if isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
    ]


def _pad_values(model: keras.Model, leaves: dict[str, np.ndarray]) -> dict[str, float]:
    masking = [m for m in _value_masks(model) if isinstance(m, keras.layers.Masking)]
    value = float(masking[0].mask_value) if masking else 0.0
    return {
        name: 0.0
        if leaf.dtype.kind != "f" or _says_mask(name, leaf.dtype.name, leaf.ndim)
        else value
        for name, leaf in leaves.items()
    }


def _input_dim(layer: Any) -> int:
    return layer.input_dim if isinstance(layer, keras.layers.Embedding) else 1 << 30


def _feeds_embedding(tensor: Any, model: keras.Model) -> bool:
    """Whether a float input, as Sequential makes them, holds ids."""
    first = next((x for x in model.layers if not isinstance(x, keras.layers.InputLayer)), None)
    return len(tensor.shape) == 2 and isinstance(first, keras.layers.Embedding)
