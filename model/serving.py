"""A trained network that takes rows as they come: the graph that predicts here and is exported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from lengthwise.dataset import Feature
from lengthwise.dataset.reasons import NO_NUMBER, REASONS
from lengthwise.dataset.schema import LENGTH, MASK, NUMBERS
from lengthwise.model.answers import Answers
from lengthwise.model.preprocessing import (
    Prepared,
    Preprocessing,
    observed_name,
)

REASON = "reason"


class Serving(tf.Module):
    """Preprocessing, network and answers in one graph.

    Args:
        preprocessing: of the dataset that the network was trained on.
        network: takes the features of a batch, `mask` and `length`, and gives (P, C), or (P, T, C)
            for answers per step.
        answers: what its outputs mean.
        inputs: the features that it takes.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        network: Any,
        answers: Answers,
        inputs: Sequence[Feature],
    ) -> None:
        super().__init__(name="serving")
        self.preprocessing = preprocessing
        self.answers = answers
        # In a tuple, where TensorFlow does not look: of a network only its variables are saved.
        self._network = (lambda features: network(features, training=False),)
        self.weights = [variable.value for variable in network.variables]
        self.input_names = input_names(inputs)
        specs = {feature.name: _flat_spec(feature) for feature in inputs}
        specs[LENGTH] = tf.TensorSpec([None], tf.int64, LENGTH)
        masked = {**specs, MASK: tf.TensorSpec([None], tf.bool, MASK)}
        for feature in inputs:
            if feature.name in preprocessing.element_masked:
                ours, theirs = observed_name(feature.name), self.input_names[feature.name]
                masked[ours] = tf.TensorSpec([None, *feature.shape], tf.bool, ours)
                self.input_names[ours] = observed_name(theirs)
        masks = sorted(masked.keys() - specs.keys())
        self._masks = {name: tuple(masked[name].shape[1:].as_list()) for name in masks}
        renamed = {
            self.input_names[name]: tf.TensorSpec(spec.shape, spec.dtype, self.input_names[name])
            for name, spec in masked.items()
        }
        unmasked = {self.input_names[name]: renamed[self.input_names[name]] for name in specs}
        self.numbers = tf.function(self._numbers, input_signature=[masked])
        self.flat = tf.function(self._flat, input_signature=[unmasked])
        self.flat_with_mask = tf.function(self._flat, input_signature=[renamed])
        ragged = {feature.name: _ragged_spec(feature) for feature in inputs}
        self.ragged = tf.function(self._ragged, input_signature=[ragged])
        self._sequences = tuple(feature.name for feature in inputs if feature.sequence)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what the signatures give."""
        return tuple(self.flat.get_concrete_function().structured_outputs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a SavedModel.

        Signatures `serving_default` and `with_mask` take flat values and lengths by the names of
        `input_names`; the function `ragged` of the loaded object takes a dict of RaggedTensors.
        """
        signatures = {
            "serving_default": self.flat.get_concrete_function(),
            "with_mask": self.flat_with_mask.get_concrete_function(),
        }
        # A server computes no gradients; to save them would trace them.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(self, os.fspath(path), signatures=signatures, options=options)

    def _numbers(self, values: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities or values of rows (B, …) or steps (N, …), NaN where there is no answer; and
        faults (B,) int32.
        """
        length = values[LENGTH]
        batch: Prepared = self.preprocessing(values, length, values[MASK])
        outputs = self._network[0]({**batch.features, MASK: batch.mask, LENGTH: batch.length})
        numbers = self.answers.numbers(outputs)
        faults = self._with_strange_numbers(numbers, batch, tf.size(length))
        usable = faults == 0
        if self.answers.per_step:
            numbers = _by_step(numbers, batch, tf.reduce_sum(length))
            usable = tf.repeat(usable, length)
        else:
            # The mean of the pieces that a row was cut into; most rows are one.
            numbers = tf.math.unsorted_segment_mean(numbers, batch.row, tf.size(length))
        shape = self.answers.shape if self.answers.kind == "values" else (len(self.answers.names),)
        numbers = tf.reshape(numbers, [-1, *shape])
        usable = tf.reshape(usable, [-1] + [1] * len(shape))
        return tf.where(usable, numbers, float("nan")), faults

    def _with_strange_numbers(self, numbers: Any, batch: Prepared, rows: Any) -> tf.Tensor:
        """The faults of rows, those among them for which the network gives NaN or infinity."""
        strange = tf.reduce_any(~tf.math.is_finite(numbers), axis=-1)
        if self.answers.per_step:
            strange = tf.reduce_any(strange & batch.mask, axis=1)
        of_row = tf.math.unsorted_segment_max(tf.cast(strange, tf.int32), batch.row, rows)
        return tf.where((of_row > 0) & (batch.faults == 0), NO_NUMBER, batch.faults)

    def _flat(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        values = {name: inputs[ours] for name, ours in self.input_names.items() if ours in inputs}
        numbers, faults = self.numbers(self._with_masks(values))
        return {**self.answers.tensors(numbers), REASON: tf.gather(tf.constant(REASONS), faults)}

    def _ragged(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        first: Any = rows[self._sequences[0]]
        values = dict(rows)
        for name in self._sequences:
            tf.debugging.assert_equal(
                rows[name].row_splits, first.row_splits, f"{name}: lengths differ"
            )
            values[name] = rows[name].values
        numbers, faults = self.numbers(self._with_masks({**values, LENGTH: first.row_lengths()}))
        answers = self.answers.tensors(numbers)
        if self.answers.per_step:
            answers = {name: first.with_values(found) for name, found in answers.items()}
        return {**answers, REASON: tf.gather(tf.constant(REASONS), faults)}

    def _with_masks(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of `numbers`; where no mask is given, nothing is missing by it."""
        total = tf.reduce_sum(values[LENGTH])
        masks = {name: tf.ones([total, *shape], tf.bool) for name, shape in self._masks.items()}
        return {**masks, **values}


def input_names(inputs: Sequence[Feature]) -> dict[str, str]:
    """Names of a signature's inputs, by feature: TensorFlow takes letters, digits and `_` only.

    Example:
        >>> input_names([Feature("pitch (Hz)", "float32"), Feature("words", "int64")])
        {'length': 'length', 'mask': 'mask', 'pitch (Hz)': 'pitch__Hz_', 'words': 'words'}
    """
    names = {LENGTH: LENGTH, MASK: MASK}
    # Names that differ in case only are one name to TensorFlow.
    taken = {LENGTH, MASK}
    for feature in inputs:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", feature.name)
        if not plain[0].isalpha():
            plain = f"f{plain}"
        name, number = plain, 2
        while name.lower() in taken:
            name, number = f"{plain}_{number}", number + 1
        taken.add(name.lower())
        names[feature.name] = name
    return names


def _by_step(numbers: Any, batch: Prepared, total: Any) -> tf.Tensor:
    """(P, T, …) in slots to (N, …) by flat step: the mean of the slots that hold a step, NaN for
    steps that the network has not seen.
    """
    at = tf.boolean_mask(batch.step, batch.mask)
    seen = tf.boolean_mask(numbers, batch.mask)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(at, tf.float32), at, total)
    sums = tf.math.unsorted_segment_sum(seen, at, total)
    shape = tf.concat([[-1], tf.ones([tf.rank(sums) - 1], tf.int32)], axis=0)
    # 0/0 is the NaN that is wanted.
    return sums / tf.reshape(counts, shape)


def _flat_spec(feature: Feature) -> Any:
    return tf.TensorSpec([None, *feature.shape], _given_dtype(feature), feature.name)


def _ragged_spec(feature: Feature) -> Any:
    if not feature.sequence:
        return _flat_spec(feature)
    # Any, because TensorFlow's stubs do not know it.
    spec: Any = tf.RaggedTensorSpec
    return spec([None, None, *feature.shape], _given_dtype(feature), ragged_rank=1)


def _given_dtype(feature: Feature) -> Any:
    return tf.as_dtype(feature.dtype) if feature.encoding == NUMBERS else tf.string
