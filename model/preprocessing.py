"""From rows as they come to the batch that a network takes, as one graph of TensorFlow.

It does what a build does to the same rows (vocabularies, missing steps, filling, normalisation,
overlong rows, padding), so that it can travel with a model to where there is no Lengthwise.

    values of a feature, flat    a b c d | e | f g h       length 4 1 3
    batch, right side padded     a b c d / e · · · / f g h ·
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from lengthwise.dataset import Feature, Plan
from lengthwise.dataset.options import RESERVED_IDS
from lengthwise.dataset.reasons import (
    EMPTY,
    INFINITE,
    NOT_A_NUMBER,
    NOT_NORMALIZABLE,
    NULL_CONTEXT,
    OVERLONG,
    UNKNOWN_NUMBER,
)
from lengthwise.dataset.schema import NUMBERS, RESERVED_SUFFIX

_UNKNOWN_ID = 1


class Prepared(NamedTuple):
    """A batch as a network takes it.

    A row that is cut into pieces has several lines in it, every other row one. Rows that cannot be
    used have a line without any real step.
    """

    features: dict[str, tf.Tensor]  # (P, T, …) and (P, …)
    mask: tf.Tensor  # (P, T) bool
    length: tf.Tensor  # (P,) int32
    row: tf.Tensor  # (P,) int64: the row that a line comes from
    step: tf.Tensor  # (P, T) int64: the flat step in each slot; N where there is none
    faults: tf.Tensor  # (B,) int32, positions in `REASONS`


class Preprocessing(tf.Module):
    """Makes batches of rows, in a graph.

    Args:
        plan: of the dataset that the network was trained on.
        inputs: the features that it takes, at least one sequence among them.
        num_ids: name -> ids are below this, for integer features that are looked up.

    Example:
        >>> from lengthwise.dataset import FeatureStatistics, PlanOptions, Schema
        >>> words = Feature("words", "int64", encoding="tokens")
        >>> plan = Plan(Schema((words,)), PlanOptions(), (4,), {"train": {2: 1}},
        ...             {"words": FeatureStatistics(2, 0, 0, 0, 0, 3)}, {"words": ("the", "cat")})
        >>> prepare = Preprocessing(plan, [words], {"words": 4})
        >>> batch = prepare({"words": tf.constant(["the", "dog", "cat"])}, tf.constant([2, 1]))
        >>> batch.features["words"].numpy().tolist()
        [[2, 1, 0, 0], [3, 0, 0, 0]]
        >>> batch.mask.numpy().sum(axis=1).tolist()
        [2, 1]
    """

    def __init__(
        self, plan: Plan, inputs: Sequence[Feature], num_ids: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(name="preprocessing")
        self._plan = plan
        self._sequences = tuple(feature for feature in inputs if feature.sequence)
        self._contexts = tuple(feature for feature in inputs if not feature.sequence)
        self._num_ids = dict(num_ids or {})
        # Read off the plan: a task does not say it of its inputs.
        self.element_masked = element_masked(plan, inputs)
        # TensorFlow has no table of nothing.
        self._tables = {
            feature.name: _vocabulary_table(plan.vocabularies[feature.name])
            for feature in inputs
            if feature.encoding != NUMBERS and plan.vocabularies[feature.name]
        }

    def __call__(
        self, values: Mapping[str, tf.Tensor], length: tf.Tensor, mask: tf.Tensor | None = None
    ) -> Prepared:
        """Prepares a batch of rows.

        Args:
            values: (N, *shape) for sequences, the steps of all rows one after another; (B, *shape)
                for features per row. Strings are as they are, numbers float32 or int64, not
                normalised.
            length: (B,) integers, steps of each row; they add up to N.
            mask: (N,) bool, False at missing steps; a NaN is missing by itself, if the plan says
                so. Features with a mask of elements have one in `values`, `observed_name` (N,
                *shape) bool; without it no element is missing by it.

        Raises:
            tf.errors.InvalidArgumentError: shapes do not fit together.
        """
        length = tf.cast(tf.convert_to_tensor(length), tf.int64)
        given_mask: Any = tf.ones([tf.reduce_sum(length)], tf.bool) if mask is None else mask
        identity: Any = tf.identity
        # Whatever uses them waits for the checks, so that it is they who tell what is wrong.
        with tf.control_dependencies(self._checks(values, length, given_mask)):
            values = {name: identity(value) for name, value in values.items()}
            length, given_mask = identity(length), identity(given_mask)
        rows = tf.size(length, tf.int64)
        row_of_step = tf.repeat(tf.range(rows), length)
        faults = _Faults(rows, row_of_step)
        observed, steps, elements = given_mask, {}, {}
        for feature in self._sequences:
            name = feature.name
            given = None
            if name in self.element_masked:
                given = values.get(observed_name(name), tf.ones_like(values[name], tf.bool))
            steps[name], seen = self._steps(feature, values[name], given_mask, given, faults)
            if name in self.element_masked:
                elements[name], seen = seen, _any_of_step(seen)
            observed = tf.logical_and(observed, seen)
        contexts = {
            feature.name: self._context(feature, values[feature.name], faults)
            for feature in self._contexts
        }
        self._check_lengths(length, faults)
        slots = self._slots(length, faults.codes)
        features = {}
        for feature in self._sequences:
            name = feature.name
            # (N, 1, …) or (N, *shape): missing steps are missing for all features.
            seen = tf.reshape(observed, [-1] + [1] * len(feature.shape))
            if name in elements:
                seen = tf.logical_and(seen, elements[name])
                features[observed_name(name)] = tf.gather(_extended(seen), slots.step)
            features[name] = self._padded(feature, steps[name], seen, slots, faults)
        for name, context in contexts.items():
            features[name] = tf.gather(context, slots.row)
        inside = tf.gather(_extended(observed), slots.step)
        return Prepared(
            features, inside, tf.cast(slots.length, tf.int32), slots.row, slots.step, faults.codes
        )

    def _checks(
        self, values: Mapping[str, tf.Tensor], length: tf.Tensor, mask: tf.Tensor
    ) -> list[Any]:
        """Operations that fail where shapes do not fit together; done already, if run eagerly."""
        total = tf.reduce_sum(length)
        checks = [tf.debugging.assert_non_negative(length, "length must not be negative")]
        per_step = {feature.name: values[feature.name] for feature in self._sequences}
        for name in self.element_masked & per_step.keys():
            if observed_name(name) in values:
                per_step[observed_name(name)] = values[observed_name(name)]
        for name, value in {**per_step, "mask": mask}.items():
            message = f"{name}: there must be as many steps as length adds up to"
            found = tf.shape(value, tf.int64)[0]
            checks.append(tf.debugging.assert_equal(found, total, message))
        for feature in self._contexts:
            message = f"{feature.name}: there must be as many values as rows in length"
            found = tf.shape(values[feature.name], tf.int64)[0]
            checks.append(tf.debugging.assert_equal(found, tf.size(length, tf.int64), message))
        return [check for check in checks if check is not None]

    def _steps(
        self,
        feature: Feature,
        given: tf.Tensor,
        observed: tf.Tensor,
        elements: tf.Tensor | None,
        faults: _Faults,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Values as numbers (N, *shape), and which steps (N,) hold one, or which elements (N,
        *shape) where they have a mask.
        """
        flat = self._as_numbers(feature, given)
        by_element = elements is not None
        seen = observed if elements is None else elements

        def at_observed(bad: tf.Tensor) -> tf.Tensor:
            """Bad steps (N,), of bad elements (N, *shape)."""
            if by_element:
                return tf.logical_and(_any_of_step(tf.logical_and(bad, seen)), observed)
            return tf.logical_and(_any_of_step(bad), seen)

        if feature.dtype != "float32":
            if feature.name in self._num_ids:
                strange = tf.logical_or(flat < 0, flat >= self._num_ids[feature.name])
                faults.at_steps(UNKNOWN_NUMBER, at_observed(strange))
            return flat, seen
        nan = tf.math.is_nan(flat)
        if self._plan.options.nan == "error":
            faults.at_steps(NOT_A_NUMBER, at_observed(nan))
        elif self._plan.options.nan != "keep":
            missing = nan if by_element else _any_of_step(nan)
            seen = tf.logical_and(seen, tf.logical_not(missing))
        faults.at_steps(INFINITE, at_observed(tf.math.is_inf(flat)))
        return flat, seen

    def _context(self, feature: Feature, given: tf.Tensor, faults: _Faults) -> tf.Tensor:
        flat = self._as_numbers(feature, given)
        if feature.dtype == "float32":
            faults.at_rows(NULL_CONTEXT, _any_of_step(tf.math.is_nan(flat)))
            faults.at_rows(INFINITE, _any_of_step(tf.math.is_inf(flat)))
        elif feature.name in self._num_ids:
            strange = tf.logical_or(flat < 0, flat >= self._num_ids[feature.name])
            faults.at_rows(UNKNOWN_NUMBER, _any_of_step(strange))
            flat = tf.where(strange, tf.zeros((), flat.dtype), flat)
        return flat

    def _as_numbers(self, feature: Feature, given: tf.Tensor) -> tf.Tensor:
        given = tf.convert_to_tensor(given)
        if feature.encoding == NUMBERS:
            return tf.cast(given, feature.dtype)
        if feature.name not in self._tables:
            return tf.fill(tf.shape(given), tf.constant(_UNKNOWN_ID, tf.int64))
        return self._tables[feature.name].lookup(given)

    def _check_lengths(self, length: tf.Tensor, faults: _Faults) -> None:
        """As in a build, a faulty value comes before the length of its row."""
        faults.at_rows(EMPTY, (length == 0) & (faults.codes == 0))
        options = self._plan.options
        if options.max_length is not None and options.overlong in ("error", "drop"):
            faults.at_rows(OVERLONG, (length > options.max_length) & (faults.codes == 0))

    def _slots(self, length: tf.Tensor, faults: tf.Tensor) -> _Slots:
        """Cuts overlong rows, and gives every step that is left its slot."""
        options = self._plan.options
        ends = tf.cumsum(length)
        total = tf.reduce_sum(length)
        starts = ends - length
        length = tf.where(faults == 0, length, tf.zeros((), tf.int64))
        row = tf.range(tf.size(length, tf.int64))
        if options.max_length is not None:
            cut = tf.minimum(length, options.max_length)
            if options.overlong == "truncate_start":
                starts += length - cut
            elif options.overlong == "split":
                stride = options.max_length - options.overlap
                counts = -((options.overlap - length) // stride)
                counts = tf.where(length > options.max_length, counts, tf.ones((), tf.int64))
                row = tf.repeat(row, counts)
                piece = tf.range(tf.size(row, tf.int64)) - tf.gather(
                    tf.cumsum(counts) - counts, row
                )
                ends = tf.gather(starts + length, row)
                starts = tf.gather(starts, row) + piece * stride
                cut = tf.minimum(tf.cast(options.max_length, tf.int64), ends - starts)
            length = cut
        slots = tf.range(self._padded_length(length))
        before = slots[-1] + 1 - length if options.padding == "left" else tf.zeros_like(length)
        position = slots - before[:, tf.newaxis]  # (P, T)
        inside = (position >= 0) & (position < length[:, tf.newaxis])
        step = tf.where(inside, starts[:, tf.newaxis] + position, total)
        return _Slots(row, starts, length, step, inside)

    def _padded_length(self, length: tf.Tensor) -> tf.Tensor:
        """T of the bucket of the longest row; its own length where no bucket is long enough."""
        longest = tf.reduce_max(tf.concat([[1], length], axis=0))
        max_lengths = tf.constant(self._plan.max_lengths, tf.int64)
        fitting = tf.boolean_mask(max_lengths, max_lengths >= longest)
        return tf.concat([fitting, [longest]], axis=0)[0]

    def _padded(
        self,
        feature: Feature,
        flat: tf.Tensor,
        observed: tf.Tensor,
        slots: _Slots,
        faults: _Faults,
    ) -> tf.Tensor:
        """The feature in its slots: what is missing filled, normalised, padded."""
        flat = _extended(flat)
        zero = tf.zeros((), flat.dtype)
        real = tf.gather(_extended(observed), slots.step)  # (P, T, 1, …) or (P, T, *shape)
        padded = tf.where(real, tf.gather(flat, slots.step), zero)
        if feature.encoding != NUMBERS:
            return padded
        inside = tf.reshape(
            slots.inside, tf.concat([tf.shape(slots.inside), [1] * len(feature.shape)], axis=0)
        )
        unseen = tf.logical_and(inside, tf.logical_not(real))
        options = self._plan.options
        if options.fill == "forward":
            padded = tf.where(real, padded, _last_observed(flat, observed, slots))
        elif feature.name in self._plan.means:
            means = tf.constant(self._plan.means[feature.name], flat.dtype, feature.shape)
            padded = tf.where(unseen, means, padded)
        elif not isinstance(options.fill, str):
            padded = tf.where(unseen, tf.cast(options.fill, flat.dtype), padded)
        if feature.name in self._plan.normalizations:
            padded = self._normalized(feature, padded)
            if options.nan != "keep":
                strange = _any_of_step(~tf.math.is_finite(padded), axes=1) & slots.inside
                codes = tf.where(tf.reduce_any(strange, axis=1), NOT_NORMALIZABLE, 0)
                of_row = tf.math.unsorted_segment_max(codes, slots.row, faults.rows)
                faults.at_rows(NOT_NORMALIZABLE, of_row == NOT_NORMALIZABLE)
        return tf.where(inside, padded, tf.cast(options.pad_value, flat.dtype))

    def _normalized(self, feature: Feature, values: tf.Tensor) -> tf.Tensor:
        constants = self._plan.normalizations[feature.name]
        if constants.kind == "log1p":
            return tf.math.log1p(values)
        # In double precision, as a build does it.
        shift = tf.constant(constants.shift, tf.float64, feature.shape)
        scale = tf.constant(constants.scale, tf.float64, feature.shape)
        return tf.cast((tf.cast(values, tf.float64) - shift) * scale, tf.float32)


def element_masked(plan: Plan, inputs: Sequence[Feature]) -> frozenset[str]:
    """Names of the inputs whose elements can be missing by themselves."""
    return frozenset(f.name for f in inputs if plan.schema[f.name].element_mask)


def observed_name(name: str) -> str:
    """Name of the mask of the elements of a feature, or of an input of a signature."""
    return f"{name}{RESERVED_SUFFIX}"


class _Slots(NamedTuple):
    row: tf.Tensor  # (P,) int64
    start: tf.Tensor  # (P,) int64: first flat step
    length: tf.Tensor  # (P,) int64
    step: tf.Tensor  # (P, T) int64; N in padding
    inside: tf.Tensor  # (P, T) bool


class _Faults:
    """What is wrong with each row so far; a later fault takes the place of an earlier one."""

    def __init__(self, rows: tf.Tensor, row_of_step: tf.Tensor) -> None:
        self.rows = rows
        self.codes = tf.zeros([rows], tf.int32)
        self._row_of_step = row_of_step

    def at_rows(self, fault: int, bad: tf.Tensor) -> None:
        """Marks rows, (B,) bool."""
        self.codes = tf.where(bad, fault, self.codes)

    def at_steps(self, fault: int, bad: tf.Tensor) -> None:
        """Marks the rows of steps, (N,) bool."""
        ones = tf.cast(bad, tf.int32)
        self.at_rows(fault, tf.math.unsorted_segment_max(ones, self._row_of_step, self.rows) > 0)


def _vocabulary_table(strings: Sequence[str]) -> Any:
    # One after another: the ids of a vocabulary begin after padding and unknown.
    ids = tf.range(RESERVED_IDS, RESERVED_IDS + len(strings), dtype=tf.int64)
    initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(list(strings)), ids)
    return tf.lookup.StaticHashTable(initializer, _UNKNOWN_ID)


def _any_of_step(flags: tf.Tensor, axes: int = 0) -> tf.Tensor:
    """Whether any value of a step is flagged: (N, *shape) -> (N,), with `axes` more before."""
    rank: Any = flags.shape.rank
    return tf.reduce_any(flags, axis=list(range(axes + 1, rank)))


def _extended(flat: tf.Tensor) -> tf.Tensor:
    """One step of zeros more, which is what padding reads."""
    nothing = tf.zeros(tf.concat([[1], tf.shape(flat)[1:]], axis=0), flat.dtype)
    return tf.concat([flat, nothing], axis=0)


def _last_observed(flat: tf.Tensor, observed: tf.Tensor, slots: _Slots) -> tf.Tensor:
    """The last observed value of each element up to each slot, zero where its row has none.

    Args:
        flat: (N + 1, *shape).
        observed: (N, 1, …) or (N, *shape) bool.
        slots: of the batch.

    Returns:
        (P, T, *shape).
    """
    total = tf.shape(observed, tf.int64)[0]
    # One element after another, each over all steps: k·N positions.
    by_element = tf.transpose(tf.reshape(observed, tf.stack([total, -1])))  # (k, N)
    marks = tf.reshape(by_element, [-1])
    positions = tf.concat([[-1], tf.where(marks)[:, 0]], axis=0)
    so_far = tf.concat([tf.cumsum(tf.cast(marks, tf.int64)), [0]], axis=0)
    first = tf.range(tf.shape(by_element, tf.int64)[0]) * total  # (k,)
    # What padding holds does not matter, only that it can be looked up.
    step = tf.minimum(slots.step, tf.maximum(total - 1, 0))[:, :, tf.newaxis]
    last = tf.gather(positions, tf.gather(so_far, first + step)) - first  # (P, T, k)
    found = last >= slots.start[:, tf.newaxis, tf.newaxis]
    width = tf.size(flat, tf.int64) // (total + 1)
    source = tf.maximum(last, 0) * width + tf.range(width)  # (P, T, size)
    values = tf.where(found, tf.gather(tf.reshape(flat, [-1]), source), tf.zeros((), flat.dtype))
    return tf.reshape(values, tf.concat([tf.shape(slots.step), tf.shape(flat)[1:]], axis=0))
