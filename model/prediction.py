"""Predictions of a trained run for rows as they come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from lengthwise.dataset import Feature, Plan
from lengthwise.dataset.reasons import REASONS
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.model.answers import Answers
from lengthwise.model.flat_rows import FlatRows, as_table, flat_rows
from lengthwise.model.preprocessing import Preprocessing, observed_name
from lengthwise.model.serving import REASON, Serving

# Rows that are flat in memory at once, and what runs through the network at once. They never depend
# on the machine: the last bits of a product may depend on the size of its batch.
_TABLE_ROWS = 1 << 14
_BATCH_ROWS = 256
_BATCH_SLOTS = 1 << 15


def use_one_thread() -> None:
    """Makes the last bits of predictions the same however many cores there are.

    TensorFlow adds up some products in an order that depends on the number of threads. Does
    nothing in a process that has used TensorFlow before.
    """
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)


class Predictor:
    """A network that predicts rows as they come.

    Args:
        network: takes features as `read_dataset` yields them, and gives (B, C) or (B, T, C).
        plan: of the dataset that it was trained on.
        inputs: the features that it takes.
        num_ids: name -> ids are below this, for its integer inputs.
        answers: what its outputs mean.

    Attributes:
        serving: the graph that predicts, and that `export` saves.
        plan, inputs, answers: as given.
    """

    def __init__(
        self,
        network: Any,
        *,
        plan: Plan,
        inputs: Sequence[Feature],
        num_ids: Mapping[str, int],
        answers: Answers,
    ) -> None:
        # As their columns say it; what the plan says beside that is in the preprocessing.
        self.inputs = tuple(
            Feature(f.name, f.dtype, f.shape, sequence=f.sequence, encoding=f.encoding)
            for f in inputs
        )
        self.answers = answers
        self.serving = Serving(Preprocessing(plan, inputs, num_ids), network, answers, inputs)
        self.plan = plan

    def predict(self, rows: Any) -> pa.Table:
        """Predicts rows.

        They mean what they would mean to a build by the same plan: vocabulary, missing steps,
        filling, normalisation, overlong rows and the side of padding are the same. Of a row that
        the plan splits into pieces the answer is the mean over the pieces, for a step over those
        that hold it. Rows run together by bucket, whatever their order.

        Args:
            rows: `pa.Table` or `pa.RecordBatch`, with any columns beside the inputs; or a list of
                dicts, in which what is missing or None is null. Labels are not needed.

        Returns:
            A row for each row, in order. `reason` (string): why there is no answer, else null.
            `classify`: `class` (string or int64) and `probabilities` (list, in the order of
            `answers.names`); of a label of several `labels` (those with a probability of at least
            one half) and `probabilities`; `regress`: `value` (float), or `values` (list); `tag`:
            `tags` and `tag_probabilities` (lists with an item per step, null at steps that are
            missing or cut off). Null where there is a reason. A row without steps has the reason
            "empty sequence"; for a row whose steps are all missing the network answers from the
            features per row alone.

        Raises:
            SchemaError: a feature is missing, or of another type.
            InputError: `rows` is neither Arrow nor dicts.
        """
        table = as_table(rows, self.inputs)
        parts = [self._predicted(part) for part in table.to_batches(max_chunksize=_TABLE_ROWS)]
        # Also of no rows, so that the columns are there.
        parts = parts or [self._predicted(_no_rows(table))]
        return pa.concat_tables(parts).combine_chunks()

    def _predicted(self, batch: pa.RecordBatch) -> pa.Table:
        masked = self.serving.preprocessing.element_masked
        rows, faults = flat_rows(batch, self.inputs, masked)
        usable = np.flatnonzero(faults == 0)
        answers = self.answers
        order, parts = [np.zeros(0, np.int64)], []
        for chosen in self._batches(rows.lengths):
            numbers, found = self.serving.numbers(tensors_of(rows.select(chosen)))
            faults[usable[chosen]] = found.numpy()
            order.append(chosen)
            parts.append(numbers.numpy())
        in_batches = np.concatenate(order)
        shape = answers.shape if answers.kind == "values" else (len(answers.names),)
        numbers = np.concatenate([np.zeros((0, *shape), np.float32), *parts])
        if answers.per_step:
            columns = answers.columns(numbers, rows.lengths[in_batches])
        else:
            columns = answers.columns(numbers)
        # Where each row of the batch stands among the answers; nowhere, if it could not be used.
        place = np.zeros(batch.num_rows, np.int64)
        place[usable[in_batches]] = np.arange(len(usable))
        index = pa.array(place, mask=faults != 0)
        reasons = pa.array(REASONS).take(pa.array(faults, mask=faults == 0))
        return pa.table(
            {
                REASON: reasons,
                **{name: column.take(index) for name, column in columns.items()},
            }
        )

    def _batches(self, lengths: np.ndarray) -> Iterator[np.ndarray]:
        """Positions of the rows of each batch: of one bucket, and of bounded size."""
        bucket = np.searchsorted(self.plan.max_lengths, lengths)
        order = np.lexsort((lengths, bucket))
        first = 0
        while first < len(order):
            here = order[first : first + _BATCH_ROWS]
            fits = bucket[here] == bucket[here[0]]
            slots = lengths[here] * np.arange(1, len(here) + 1)
            fits &= (slots <= _BATCH_SLOTS) | (np.arange(len(here)) == 0)
            size = int(fits.sum())
            yield here[:size]
            first += size


def tensors_of(rows: FlatRows) -> dict[str, Any]:
    """Rows as the tensors that `Serving.numbers` takes."""
    tensors = {observed_name(name): tf.constant(mask) for name, mask in rows.elements.items()}
    for name, values in (*rows.steps.items(), *rows.contexts.items()):
        if name in rows.words:
            # Where all strings are null there is none, but their positions are 0.
            words = tf.constant(list(rows.words[name]) or [""], tf.string)
            tensors[name] = tf.gather(words, values)
        else:
            tensors[name] = tf.constant(values)
    return {**tensors, LENGTH: tf.constant(rows.lengths), MASK: tf.constant(rows.observed)}


def _no_rows(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=table.schema)
