"""Does the mask reach every layer that needs it? Answers by changing the padding of a batch.

Rows that hold the same real steps must get the same answer, however much padding follows and, where
the batch says which steps are real, whatever it holds. The model runs on such batches; where a
layer's outputs at real steps differ though its inputs at real steps do not, that layer reads
padding. The masks that Keras hands on tell where the mask got lost before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lengthwise.dataset import InputError
from lengthwise.model import layers  # noqa: F401  Models that have them load.
from lengthwise.model.mask_trace import Call, keras_mask, trace_calls
from lengthwise.model.padding_probe import Probe, make_probe, probe_batch

_TOLERANCE, _HALF_TOLERANCE = 1e-4, 2e-2
_NOISE = 50.0
_NO_MASK = "no input and no layer says which steps are real; right if none is ever padding"


@dataclass(frozen=True)
class Finding:
    """Something about a model and its masks.

    Attributes:
        kind: "no mask", "mask dropped", "padding read", "loss over padding" or "slow on a GPU".
        layer: name of the layer, "" for the model as a whole.
        message: what is wrong and what to do.
    """

    kind: str
    layer: str
    message: str

    @property
    def wrong(self) -> bool:
        """Whether results are wrong, not only slow."""
        return self.kind != "slow on a GPU"

    def __str__(self) -> str:
        return f"{self.kind}: {self.layer + ': ' if self.layer else ''}{self.message}"


def check_model_file(path: str | os.PathLike[str]) -> list[Finding]:
    """Checks the model of a `.keras` file on a small random batch; see `check_masks`.

    Raises:
        InputError: there is no model that can be loaded.
        UsageError: the model does not say what its inputs are.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: there is no such file")
    try:
        model: Any = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise InputError(
            f"{path}: Keras cannot load it ({_reason(error)}); load it yourself and call "
            "`lengthwise.model.check_masks(model, batch)`"
        ) from error
    return _check(model, make_probe(model))


def check_masks(model: keras.Model, batch: Any = None, *, mask: Any = None) -> list[Finding]:
    """Follows the mask through a model by comparing outputs under changed padding.

    Args:
        model: any Keras model; functional and sequential models are followed layer by layer, of
            others the layers they hold.
        batch: inputs with some padding; a small random batch by default.
        mask: (B, T), which steps of the batch are real, where neither an input of type bool, nor
            one named "mask" or "length", nor a layer such as Masking says so.

    Returns:
        What was found, in the order of the layers; nothing where all is well.

    Example:
        >>> frames = keras.Input((None, 4))
        >>> hidden = keras.layers.Masking()(frames)
        >>> lost = keras.ops.multiply(hidden, 2.0)
        >>> model = keras.Model(frames, keras.layers.LSTM(2)(lost))
        >>> [finding.kind for finding in check_masks(model)]
        ['mask dropped', 'padding read']
    """
    probe = make_probe(model) if batch is None else probe_batch(model, batch, mask)
    return _check(model, probe)


def _check(model: keras.Model, probe: Probe) -> list[Finding]:
    try:
        calls, outputs = trace_calls(model, probe.batch())
    except Exception as error:
        raise InputError(
            f"the model '{model.name}' does not run on the batch ({_reason(error)}); from Python, "
            "`check_masks(model, batch)` takes a batch of yours"
        ) from error
    masks = [m for call in calls for t in call.outputs if (m := keras_mask(t)) is not None]
    masks += [call.mask for call in calls if isinstance(call.mask, tf.Tensor)]
    findings = []
    mask = probe.mask if probe.mask is not None else (np.asarray(masks[0]) if masks else None)
    if mask is None or not (masks or probe.told):
        findings.append(Finding("no mask", "", _NO_MASK))
    if mask is None:
        return findings
    mask = np.asarray(mask, bool)
    leaks, moved = _leaks(model, probe, calls, outputs, mask)
    seen = set()
    for number, call in enumerate(calls):
        found = [
            *_dropped(call, calls[number + 1 :], mask, number in leaks),
            *([_read(call)] if number in leaks else _normalizes_padding(call, mask)),
            *_leaves_cudnn(call.layer, _mask_of(call)),
        ]
        for finding in found:
            if (finding.kind, finding.layer) not in seen:
                seen.add((finding.kind, finding.layer))
                findings.append(finding)
    if moved and not leaks:
        what = "its outputs depend on padding; what reads it is no layer, or inside of one"
        findings.append(Finding("padding read", "", f"the model '{model.name}': {what}"))
    findings += _loss_over_padding(model, outputs, mask)
    # A mask that nobody above needs may end anywhere.
    needed = any(finding.kind in ("padding read", "loss over padding") for finding in findings)
    return [finding for finding in findings if needed or finding.kind != "mask dropped"]


def _reason(error: Exception) -> str:
    """The first line of what Keras says, and what it says in bold below."""
    first, *others = str(error).strip().split("\n") or [""]
    bold = [line for line in others if line.startswith("\x1b[1m")]
    return re.sub(r"\x1b\[\d*m", "", " ".join([first, *bold]))


def _leaks(
    model: keras.Model, probe: Probe, calls: list[Call], outputs: list[tf.Tensor], mask: np.ndarray
) -> tuple[set[int], bool]:
    """Numbers of the calls that bring padding into real outputs; whether it is in the model's."""
    leaks: set[int] = set()
    longer, others = probe.with_more_padding(mask), probe.with_other_padding(mask)
    runs = [] if others is None else [trace_calls(model, others)]
    try:
        if longer is not None:
            runs.append(trace_calls(model, longer))
    except Exception:  # Positions are looked up in a table, which has no more of them.
        longer = None
    if longer is None:
        # T is fixed, and the mask may be in the values: padding is changed inside of the model.
        runs.append(trace_calls(model, probe.batch(), change=_noise_behind_mask))
    # In subclassed models something else may read what no layer does.
    models = [model, *(x for x in model._flatten_layers() if isinstance(x, keras.Model))]
    all_seen = all(hasattr(one, "operations") for one in models)
    read = {id(tensor) for call in calls for tensor in call.inputs} | {id(t) for t in outputs}
    moved = False
    for run, changed in runs:
        moved |= not all(_same(a, b, mask) for a, b in zip(outputs, changed, strict=True))
        if [call.layer for call in run] != [call.layer for call in calls]:
            continue  # A loop over steps calls its layers more often.
        clean: dict[int, bool] = {}
        for number, (call, other) in enumerate(zip(calls, run, strict=True)):
            same = [_same(a, b, mask) for a, b in zip(call.outputs, other.outputs, strict=True)]
            inputs_same = all(
                clean.get(id(tensor), _same(tensor, changed, mask))
                for tensor, changed in zip(call.inputs, other.inputs, strict=False)
            )
            clean.update({id(t): ok for t, ok in zip(call.outputs, same, strict=True)})
            used = [id(tensor) in read for tensor in call.outputs]
            if not (all_seen and any(used)):  # Nor is what Keras casts on its way seen again.
                used = [True] * len(used)
            if inputs_same and not all(ok for ok, use in zip(same, used, strict=True) if use):
                leaks.add(number)
    return leaks, moved


def _same(a: tf.Tensor, b: tf.Tensor, mask: np.ndarray) -> bool:
    """Whether two tensors are equal where it counts; one of them may have more steps."""
    if not (a.dtype.is_floating or a.dtype.is_integer or a.dtype.is_bool):
        return True
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    rows, total = mask.shape
    # Wherever steps went: scores of attention have them twice, transposed steps have them last.
    axes = [
        axis
        for axis in range(1, first.ndim)
        if first.shape[:1] + (first.shape[axis],) == mask.shape
    ]
    second = second[tuple(slice(total if axis in axes else None) for axis in range(second.ndim))]
    if first.shape != second.shape:
        return True  # Other steps: nothing to compare.
    real = np.ones(first.shape, bool)
    for axis in axes:
        shape = [1] * first.ndim
        shape[0], shape[axis] = rows, total
        real &= mask.reshape(shape)
    first, second = first[real], second[real]
    if not first.size:
        return True
    tolerance = _TOLERANCE if a.dtype not in (tf.float16, tf.bfloat16) else _HALF_TOLERANCE
    scale = max(1.0, float(np.abs(first, where=np.isfinite(first), out=np.zeros_like(first)).max()))
    return np.allclose(first, second, rtol=0, atol=tolerance * scale, equal_nan=True)


def _noise_behind_mask(layer: Any, inputs: Any, mask: Any, outputs: Any) -> Any:
    """Puts noise at the steps that a layer calls masked.

    Where it holds zeros they stay, as something above may rely on them, but for the layers that
    read the mask from the values.
    """
    if not getattr(layer, "supports_masking", False):
        return outputs
    given = keras.tree.map_structure(keras_mask, inputs) if mask is None else mask
    handed_on = keras.tree.flatten(layer.compute_mask(inputs, given))
    reads_values = isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
    rng = np.random.default_rng(1)

    def changed(output: Any, mask: Any) -> Any:
        # (B, D) may have the shape of the mask by chance.
        rank = output.shape.rank
        if (
            mask is None
            or not output.dtype.is_floating
            or rank < 3
            or output.shape[:2] != mask.shape
        ):
            return output
        noise = tf.cast(rng.normal(size=output.shape) * _NOISE, output.dtype)
        real = tf.reshape(mask, [*mask.shape, *[1] * (rank - 2)])
        return tf.where(real if reads_values else real | (output == 0), output, noise)

    flat = keras.tree.flatten(outputs)
    masks = [*handed_on, *[None] * (len(flat) - len(handed_on))]
    flat = [changed(*pair) for pair in zip(flat, masks, strict=False)]
    return keras.tree.pack_sequence_as(outputs, flat)


def _mask_of(call: Call) -> Any:
    if call.mask is not None:
        return keras.tree.flatten(call.mask)[0]
    return next((m for t in call.inputs if (m := keras_mask(t)) is not None), None)


def _dropped(call: Call, later: list[Call], mask: np.ndarray, reads: bool) -> Iterator[Finding]:
    taken = _mask_of(call)
    for tensor in call.outputs:
        handed_on = keras_mask(tensor)
        if not _has_steps(tensor, mask):
            continue
        if taken is not None and handed_on is None and not reads:
            what = "takes a mask and hands none on"
        elif _calls_padding_real(handed_on, mask) and not _calls_padding_real(taken, mask):
            what = "hands on a mask that calls padding real"
        else:
            continue
        readers = [c.layer.name for c in later if any(t is tensor for t in c.inputs)]
        to = f" to {', '.join(dict.fromkeys(readers))}" if readers else ""
        yield Finding("mask dropped", call.layer.name, f"{_kind(call.layer)} {what}{to}")


def _calls_padding_real(found: Any, mask: np.ndarray) -> bool:
    return (
        found is not None and found.shape == mask.shape and bool((np.asarray(found) & ~mask).any())
    )


def _has_steps(tensor: tf.Tensor, mask: np.ndarray) -> bool:
    # (B, D) may have the shape of the mask by chance.
    return (
        tensor.dtype.is_floating and tensor.shape.rank > 2 and tuple(tensor.shape[:2]) == mask.shape
    )


def _read(call: Call) -> Finding:
    mask, kind = _mask_of(call), _kind(call.layer)
    if not call.takes_mask:
        message = f"{kind} knows no mask, and its real outputs depend on padding"
    elif mask is None:
        message = f"{kind} was given no mask, and its real outputs depend on padding"
    elif call.mask is None:
        message = (
            f"{kind} was given no mask, because Keras hands on none to a layer with a second input;"
            " its real outputs depend on padding: call it with `mask=`"
        )
    else:
        message = f"{kind} was given the mask, and its real outputs depend on padding all the same"
    return Finding("padding read", call.layer.name, message)


def _normalizes_padding(call: Call, mask: np.ndarray) -> Iterator[Finding]:
    layer = call.layer
    if not isinstance(layer, keras.layers.BatchNormalization) or not layer.trainable:
        return
    if _mask_of(call) is None and _has_steps(call.inputs[0], mask):
        yield Finding(
            "padding read",
            layer.name,
            f"{_kind(layer)} was given no mask, and takes padding into its statistics in training",
        )


def _leaves_cudnn(layer: Any, mask: Any) -> Iterator[Finding]:
    wrapped = isinstance(layer, keras.layers.Bidirectional)
    inner = layer.forward_layer if wrapped else layer
    if not isinstance(inner, (keras.layers.LSTM, keras.layers.GRU)):
        return
    wanted = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    if isinstance(inner, keras.layers.GRU):
        wanted["reset_after"] = True
    config: Any = inner.get_config()
    reasons = [f"{name}={config[name]!r}" for name in wanted if config[name] != wanted[name]]
    reasons += [name for name in ("recurrent_dropout", "unroll") if config[name]]
    if mask is not None:
        real = np.asarray(mask, bool)
        if (np.diff(real.astype(int), axis=1) > 0).any():
            reasons.append("a mask that is not padding on the right")
        if not real.any(axis=1).all():
            reasons.append("a row without any real step")
    if reasons:
        yield Finding(
            "slow on a GPU", layer.name, f"{_kind(layer)} cannot use cuDNN: {', '.join(reasons)}"
        )


def _loss_over_padding(
    model: keras.Model, outputs: list[tf.Tensor], mask: np.ndarray
) -> Iterator[Finding]:
    for number, output in enumerate(outputs):
        if _has_steps(output, mask) and keras_mask(output) is None:
            name = model.output_names[number] if hasattr(model, "output_names") else model.name
            yield Finding(
                "loss over padding",
                name,
                "an output for each step comes without a mask, so Keras averages losses and metrics"
                " over padding too; weight the steps by the mask",
            )


def _kind(layer: Any) -> str:
    if isinstance(layer, keras.layers.Bidirectional):
        return f"Bidirectional({type(layer.forward_layer).__name__})"
    return type(layer).__name__
