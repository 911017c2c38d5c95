"""What the outputs of a network mean: names and numbers that people and programs can use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

KINDS = ("classes", "labels", "values")
# A label of several is given where its probability is not below this.
THRESHOLD = 0.5


@dataclass(frozen=True)
class Answers:
    """How the outputs of a network become answers.

    Attributes:
        kind: `classes` (logits of classes that exclude each other), `labels` (logits of labels that
            do not) or `values` (numbers).
        names: the classes or labels in the order of the logits: all strings, or all integers.
        shape: of the values of one row or step; () is a number.
        per_step: whether there is an answer for each step, not for each row.

    Example:
        >>> answers = Answers("classes", ("cat", "dog"))
        >>> found = answers.tensors(answers.numbers(tf.constant([[0.0, 3.0]])))
        >>> found["class"].numpy()[0], found["probabilities"].numpy().round(2).tolist()
        (b'dog', [[0.05000000074505806, 0.949999988079071]])
    """

    kind: str
    names: tuple[str, ...] | tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    per_step: bool = False

    def numbers(self, outputs: Any) -> Any:
        """Probabilities or values of outputs (…, C), in a graph; float32 of the same shape."""
        outputs = tf.cast(outputs, tf.float32)
        if self.kind == "classes":
            return tf.nn.softmax(outputs)
        if self.kind == "labels":
            return tf.sigmoid(outputs)
        return outputs

    def tensors(self, numbers: tf.Tensor) -> dict[str, tf.Tensor]:
        """Named answers, in a graph.

        Args:
            numbers: (n, C) probabilities or (n, *shape) values of rows or steps; NaN where there is
                no answer.

        Returns:
            For classes `class` (per step `tags`) (n,), string or int64, and `probabilities`; for
            labels `probabilities`; for values `value` or `values`. Where there is no answer, the
            class is "" or -1.
        """
        if self.kind == "values":
            return {self._values_name: numbers}
        if self.kind == "labels":
            return {"probabilities": numbers}
        names = tf.constant(list(self.names), tf.string if self._has_strings else tf.int64)
        found = tf.gather(names, tf.argmax(numbers, axis=1))
        nothing = tf.constant("" if self._has_strings else -1, names.dtype)
        unknown = tf.math.is_nan(numbers[:, 0])
        name = "tags" if self.per_step else "class"
        return {name: tf.where(unknown, nothing, found), "probabilities": numbers}

    def columns(self, numbers: np.ndarray, lengths: np.ndarray | None = None) -> dict[str, Any]:
        """Named answers as columns of Arrow, null where there is none.

        Args:
            numbers: as of `tensors`; of all steps, one row after another, where `per_step`.
            lengths: (n,) steps of each row, where `per_step`.

        Returns:
            For classes `class` and `probabilities` (list of C), per step `tags` and
            `tag_probabilities` (lists, of the tag alone); for labels `labels` (list of those that
            are likely) and `probabilities`; for values `value`, or `values` (list).
        """
        flat = numbers.reshape(len(numbers), math.prod(numbers.shape[1:]))
        known = ~np.isnan(flat[:, 0])
        if self.kind == "classes":
            best = np.where(known, np.nan_to_num(flat).argmax(axis=1), 0)
            found = self._names_at(best, known)
            if not self.per_step:
                return {"class": found, "probabilities": _lists(flat, known)}
            likely = np.take_along_axis(flat, best[:, None], axis=1)[:, 0]
            columns = {"tags": found, "tag_probabilities": pa.array(likely, mask=~known)}
        elif self.kind == "labels":
            rows, labels = np.nonzero(np.nan_to_num(flat) >= THRESHOLD)
            counts = np.bincount(rows, minlength=len(flat))
            names = self._names_at(labels, np.ones(len(labels), np.bool_))
            columns = {"labels": _list_array(counts, names, known)}
            columns["probabilities"] = _lists(flat, known)
        else:
            values = _lists(flat, known) if self.shape else pa.array(flat[:, 0], mask=~known)
            columns = {self._values_name: values}
        if not self.per_step:
            return columns
        assert lengths is not None
        everything = np.ones(len(lengths), np.bool_)
        return {name: _list_array(lengths, column, everything) for name, column in columns.items()}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """JSON that says what the positions in `probabilities` stand for."""
        return {"kind": self.kind, "classes": list(self.names)}

    @property
    def _values_name(self) -> str:
        return "values" if self.shape else "value"

    @property
    def _has_strings(self) -> bool:
        return isinstance(self.names[0], str)

    def _names_at(self, positions: np.ndarray, known: np.ndarray) -> Any:
        names = pa.array(self.names, pa.string() if self._has_strings else pa.int64())
        return names.take(pa.array(positions, mask=~known))


def _lists(flat: np.ndarray, known: np.ndarray) -> Any:
    """(n, C) as lists, null where nothing is known."""
    counts = np.where(known, flat.shape[1], 0)
    return _list_array(counts, pa.array(flat[known].reshape(-1)), known)


def _list_array(lengths: np.ndarray, values: Any, known: np.ndarray) -> Any:
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    mask = None if known.all() else pa.array(~known)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)
