"""Encoding: whole buckets become `tf.train.Example` records by a handful of numpy copies.

All records of a bucket have one layout (see `lengthwise.dataset.record`), so a block of them is a
matrix. What is not a sequence is written into copies of the template without their slots; the
sequences are then spliced in from wherever they are: padding and encoding are one copy.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import replace

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import PValue

from lengthwise.dataset.canonical import FramedRecords, canonical_records
from lengthwise.dataset.errors import SchemaError
from lengthwise.dataset.record import Field, RecordLayout, encode_varints, varint_width
from lengthwise.dataset.schema import LENGTH, MASK, NUMBERS, Schema
from lengthwise.dataset.tfrecord import seal_frames
from lengthwise.transforms.padding import PaddedBatch, observed_mask
from lengthwise.transforms.ragged import RaggedRows
from lengthwise.transforms.row_places import spans_in
from lengthwise.transforms.splicing import Insert, splice


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
    framed = np.empty((len(batch), layout.stride), np.uint8)
    framed[...] = _template(layout)
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
    framed = RowEncoder(schema, layout, side=side, pad_value=pad_value).splice(rows, {})
    seal_frames(framed)
    return framed


class RowEncoder:
    """Pads and encodes ragged rows of one bucket, block after block.

    Args: see `encode_rows`.
    """

    def __init__(
        self, schema: Schema, layout: RecordLayout, *, side: str = "right", pad_value: float = 0.0
    ) -> None:
        padding = {}
        for feature in schema.sequences:
            value = 0.0 if feature.label or feature.encoding != NUMBERS else pad_value
            padding[feature.name] = _payload(layout[feature.name], value)
            if feature.element_mask:
                padding[feature.observed_name] = _payload(layout[feature.observed_name])
        self._schema = schema
        self._layout = layout
        self._side = side
        self._padding = padding
        self._around = _without_payloads(layout, padding)
        self._template = _template(self._around)

    def encode(
        self, rows: RaggedRows, elsewhere: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray | FramedRecords:
        """The records of rows as they stand in a shard, strided or canonical as the layout says.

        Args:
            rows: of the bucket.
            elsewhere: sequences of float32 that `rows` does not hold -> (n,) of `row_places.SPAN`:
                where the steps of each row are. They are copied only once.

        Returns:
            What `write_shard` takes.

        Raises:
            InputError, SchemaError: see `encode_rows`.
        """
        framed = self.splice(rows, elsewhere or {})
        if self._layout.canonical:
            return canonical_records(framed, self._layout)
        seal_frames(framed)
        return framed

    def splice(self, rows: RaggedRows, elsewhere: Mapping[str, np.ndarray]) -> np.ndarray:
        """The strided records as `encode` makes them, (n, stride) uint8, without checksums."""
        parts = self._parts(rows)
        offsets = rows.offsets
        steps = dict(rows.values)
        for feature in self._schema.element_masked:
            steps[feature.observed_name] = rows.elements_of(feature.name)
        inserts, encoded = [], []
        for field in self._layout.fields:
            if field.name not in self._padding:
                continue
            width = math.prod(field.shape[1:]) * field.width
            if field.name in elsewhere:
                spans = elsewhere[field.name]
                _check_sizes(spans, field, rows.lengths * width)
            else:
                encoded.append(_encoded_steps(field, steps[field.name], int(offsets[-1])))
                spans = spans_in(encoded[-1], offsets * width)
            at = self._around[field.name].offset
            inserts.append(Insert(at, spans, self._padding[field.name]))
        return splice(parts, inserts, side=self._side)

    def _parts(self, rows: RaggedRows) -> np.ndarray:
        """The records without the payloads of sequences."""
        around = self._around
        mask = observed_mask(rows, around.max_length, side=self._side)
        parts = np.empty((len(rows), around.stride), np.uint8)
        parts[...] = self._template
        for feature in self._schema.contexts:
            _put_values(parts, around[feature.name], rows.contexts[feature.name])
        _put_values(parts, around[LENGTH], rows.lengths)
        parts[:, around[MASK].payload] = mask
        return parts


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


def _without_payloads(layout: RecordLayout, names: Container[str]) -> RecordLayout:
    """What is left of a layout when the payloads of some fields are cut out."""
    fields, end = [], 0
    for field, head in zip(layout.fields, layout.heads, strict=True):
        shape = (0,) if field.name in names else field.shape
        fields.append(replace(field, shape=shape, offset=end + len(head)))
        end = fields[-1].payload.stop
    return replace(layout, fields=tuple(fields))


def _template(layout: RecordLayout) -> np.ndarray:
    """(stride,) uint8: a record whose values are zeros."""
    template = np.frombuffer(layout.template, np.uint8).copy()
    for field in layout.fields:
        template[field.payload] = _payload(field)
    return template


def _payload(field: Field, value: float = 0.0) -> np.ndarray:
    """(count * width,) uint8: the payload of a record whose values are all the same."""
    if field.dtype == "float32":
        return np.full(field.count, value, "<f4").view(np.uint8)
    payload = np.empty((1, field.count * field.width), np.uint8)
    encode_varints(np.full((1, field.count), int(value)), field.width, payload)
    return payload[0]


def _put_values(framed: np.ndarray, field: Field, values: np.ndarray) -> None:
    """Writes (n, *field.shape) values into their places."""
    _check_values(values, field, (len(framed), *field.shape))
    flat = np.ascontiguousarray(values).reshape(len(framed), field.count)
    out = framed[:, field.payload]
    if field.dtype == "float32":
        out[...] = flat.astype("<f4", copy=False).view(np.uint8)
    else:
        encode_varints(flat, field.width, out)


def _encoded_steps(field: Field, values: np.ndarray, steps: int) -> np.ndarray:
    """The bytes of (N, *shape) steps, C-contiguous."""
    _check_values(values, field, (steps, *field.shape[1:]))
    if field.dtype == "float32":
        return np.ascontiguousarray(values, "<f4")
    count = math.prod(field.shape[1:])
    encoded = np.empty((steps, count * field.width), np.uint8)
    encode_varints(values.reshape(steps, count), field.width, encoded)
    return encoded


def _check_sizes(spans: np.ndarray, field: Field, sizes: np.ndarray) -> None:
    if (spans["size"] != sizes).any():
        raise SchemaError(
            f"feature '{field.name}': the bytes of a row are not those of as many steps"
        )


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
