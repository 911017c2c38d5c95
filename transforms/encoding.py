"""Encoding: whole buckets become `tf.train.Example` records by a handful of numpy copies.

All records of a bucket have one layout (see `lengthwise.dataset.record`), so a block of them is a
matrix that starts as copies of the template, with zeros for padding. Steps are then written
straight from the flat rows into their slots of the matrix: padding and encoding are one copy.
"""

from __future__ import annotations

from collections.abc import Mapping

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import PValue

from lengthwise.dataset.canonical import FramedRecords, canonical_records
from lengthwise.dataset.errors import SchemaError
from lengthwise.dataset.record import Field, RecordLayout, encode_varints, varint_width
from lengthwise.dataset.schema import LENGTH, MASK, NUMBERS, Schema
from lengthwise.dataset.tfrecord import seal_frames
from lengthwise.transforms.padding import PaddedBatch, observed_mask, place_steps, slot_mask
from lengthwise.transforms.ragged import RaggedRows


def encode_examples(batch: PaddedBatch, layout: RecordLayout) -> np.ndarray:
    """Encodes padded rows as `tf.train.Example` records, framed as in a TFRecord file.

    Args:
        batch: padded to `layout.max_length`.
        layout: of the records, from `RecordLayout.of` or `layout_of`.

    Returns:
        (n, layout.stride) uint8. Its bytes are a TFRecord file; columns 12 to -4 of a row are
        the serialized Example.

    Raises:
        SchemaError: a feature is missing or of another shape than the layout says.

    Example:
        >>> from lengthwise.dataset.schema import Feature
        >>> schema = Schema((Feature("tokens", "int64"),))
        >>> rows = RaggedRows(np.array([2, 1]), {"tokens": np.array([5, 300, 7])}, {})
        >>> from lengthwise.transforms.padding import pad_batch
        >>> batch = pad_batch(rows, 4)
        >>> layout = layout_of(batch, schema)
        >>> records = encode_examples(batch, layout)
        >>> layout.decode(records)["tokens"]
        array([[  5, 300,   0,   0],
               [  7,   0,   0,   0]])
    """
    framed = _blank(len(batch), layout)
    values = {**batch.features, LENGTH: batch.length, MASK: batch.mask}
    for field in layout.fields:
        if field.name not in values and field.is_mask:
            # No element is missing but those of missing steps.
            mask = batch.mask.reshape(*batch.mask.shape, *[1] * (len(field.shape) - 1))
            values[field.name] = np.broadcast_to(mask, (len(batch), *field.shape))
        if field.name not in values:
            raise SchemaError(f"feature '{field.name}' is in the layout, but not in the batch")
        _put_values(framed, field, values[field.name])
    seal_frames(framed)
    return framed


def encode_rows(
    rows: RaggedRows,
    schema: Schema,
    layout: RecordLayout,
    *,
    side: str = "right",
    pad_value: float = 0.0,
) -> np.ndarray:
    """Pads and encodes ragged rows in one copy; the same bytes as padding and then encoding.

    Args:
        rows: of one bucket; none is longer than `layout.max_length`.
        schema: the features.
        layout: of the records.
        side: which side of a row is padded, `right` or `left`.
        pad_value: what stands in padding of sequences of numbers that are no labels.

    Returns:
        (n, layout.stride) uint8, framed records.

    Raises:
        InputError: a row is longer than `layout.max_length`.
        SchemaError: values of a feature have another shape or type than the layout says.
    """
    framed = _unsealed(rows, schema, layout, side=side, pad_value=pad_value)
    seal_frames(framed)
    return framed


def encode_block(
    rows: RaggedRows,
    schema: Schema,
    layout: RecordLayout,
    *,
    side: str = "right",
    pad_value: float = 0.0,
) -> np.ndarray | FramedRecords:
    """The records of rows as they stand in a shard, strided or canonical as the layout says.

    Args, errors: see `encode_rows`.

    Returns:
        What `write_shard` takes.
    """
    framed = _unsealed(rows, schema, layout, side=side, pad_value=pad_value)
    if layout.canonical:
        return canonical_records(framed, layout)
    seal_frames(framed)
    return framed


def _unsealed(
    rows: RaggedRows, schema: Schema, layout: RecordLayout, *, side: str, pad_value: float
) -> np.ndarray:
    padded = [f.name for f in schema.sequences if f.encoding == NUMBERS and not f.label]
    framed = _blank(len(rows), layout, dict.fromkeys(padded, pad_value))
    slots = slot_mask(rows.lengths, layout.max_length, side=side)
    for feature in schema.features:
        field = layout[feature.name]
        if feature.sequence:
            _put_steps(framed, field, rows.values[feature.name], slots)
            if feature.element_mask:
                elements = rows.elements_of(feature.name).view(np.uint8)
                _put_steps(framed, layout[feature.observed_name], elements, slots)
        else:
            _put_values(framed, field, rows.contexts[feature.name])
    _put_values(framed, layout[LENGTH], rows.lengths)
    mask = slots
    if rows.observed is not None:
        mask = observed_mask(rows, layout.max_length, side=side)
    framed[:, layout[MASK].payload] = mask
    return framed


def layout_of(batch: PaddedBatch, schema: Schema) -> RecordLayout:
    """The layout that fits one padded batch, where no plan knows the ranges of the integers.

    Args:
        batch: padded rows.
        schema: the features.
    """
    widths = {
        feature.name: varint_width(
            int(batch.features[feature.name].min(initial=0)),
            int(batch.features[feature.name].max(initial=0)),
        )
        for feature in schema.features
        if feature.dtype == "int64"
    }
    return RecordLayout.of(schema, batch.mask.shape[1], widths)


class EncodeExamples(beam.PTransform):
    """Encodes padded batches as serialized `tf.train.Example` records.

    Input: `(max_length, PaddedBatch)`, as `PadToBucket` gives.
    Output: `(max_length, records)`, records (n, stride) uint8: framed records of one size, as
    `WriteTFRecords` takes them.

    Args:
        schema: the features.
        widths: varint bytes of the integer features, `Plan.widths`; None fits each batch.

    Example:
        >>> import pyarrow as pa
        >>> from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        >>> from lengthwise.transforms.padding import PadToBucket
        >>> batch = pa.record_batch({"tokens": [[1, 2], [3]]})
        >>> schema = Schema.from_arrow(batch.schema)
        >>> with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        ...     _ = (pipeline | beam.Create([(4, batch)]) | PadToBucket(schema)
        ...          | EncodeExamples(schema)
        ...          | beam.MapTuple(lambda t, records: print(t, records.shape)))
        4 (2, 73)
    """

    def __init__(self, schema: Schema, *, widths: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self._schema = schema
        self._widths = None if widths is None else dict(widths)

    def expand(self, input_or_inputs: beam.PCollection) -> PValue:
        return input_or_inputs | "EncodeRecords" >> beam.Map(_encode, self._schema, self._widths)


def _encode(
    element: tuple[int, PaddedBatch], schema: Schema, widths: Mapping[str, int] | None
) -> tuple[int, np.ndarray]:
    max_length, batch = element
    if widths is None:
        layout = layout_of(batch, schema)
    else:
        layout = RecordLayout.of(schema, max_length, widths)
    return max_length, encode_examples(batch, layout)


def _blank(n: int, layout: RecordLayout, padding: Mapping[str, float] | None = None) -> np.ndarray:
    """(n, stride) uint8: copies of the template; fields not named in `padding` are zeros."""
    template = np.frombuffer(layout.template, np.uint8).copy()
    for field in layout.fields:
        value = (padding or {}).get(field.name, 0.0)
        payload = template[field.payload]
        if field.dtype == "float32":
            payload[:] = np.full(field.count, value, "<f4").view(np.uint8)
        else:
            encode_varints(np.full((1, field.count), int(value)), field.width, payload[None])
    framed = np.empty((n, layout.stride), np.uint8)
    framed[...] = template
    return framed


def _put_values(framed: np.ndarray, field: Field, values: np.ndarray) -> None:
    """Writes (n, *field.shape) values into their places."""
    _check_values(values, field, (len(framed), *field.shape))
    flat = np.ascontiguousarray(values).reshape(len(framed), field.count)
    out = framed[:, field.payload]
    if field.dtype == "float32":
        out[...] = flat.astype("<f4", copy=False).view(np.uint8)
    else:
        encode_varints(flat, field.width, out)


def _put_steps(framed: np.ndarray, field: Field, values: np.ndarray, slots: np.ndarray) -> None:
    """Writes (N, *shape) steps into their slots."""
    _check_values(values, field, (int(np.count_nonzero(slots)), *field.shape[1:]))
    if field.dtype == "float32":
        encoded = values.astype("<f4", copy=False)
    else:
        count = field.count // field.shape[0]
        encoded = np.empty((len(values), count * field.width), np.uint8)
        encode_varints(values.reshape(len(values), count), field.width, encoded)
    place_steps(encoded, slots, framed, offset=field.offset)


def _check_values(values: np.ndarray, field: Field, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise SchemaError(
            f"feature '{field.name}': the layout asks for {shape}, the rows have {values.shape}"
        )
    if field.dtype != "int64" or values.size == 0:
        return
    if values.dtype.kind not in "biu":
        raise SchemaError(
            f"feature '{field.name}': the layout asks for integers, the rows have {values.dtype}"
        )
    if varint_width(int(values.min()), int(values.max())) > field.width:
        raise SchemaError(
            f"feature '{field.name}': a value of [{values.min()}, {values.max()}] is outside the "
            f"range in the plan; plan again with this input"
        )
