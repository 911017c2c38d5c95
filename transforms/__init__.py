"""The library: pure functions on arrays, and the Beam transforms over them."""

from lengthwise.transforms.boundaries import (
    Buckets,
    choose_buckets,
    fixed_boundaries,
    geometric_boundaries,
    optimal_boundaries,
    padding_curve,
    padding_fraction,
    quantile_boundaries,
    width_boundaries,
)
from lengthwise.transforms.bucketing import BucketByLength, assign_buckets
from lengthwise.transforms.encoding import EncodeExamples, encode_examples, encode_rows, layout_of
from lengthwise.transforms.lengths import LengthHistogram, length_histogram, merge_histograms
from lengthwise.transforms.padding import (
    PaddedBatch,
    PadToBucket,
    observed_mask,
    pad_batch,
    pad_rows,
    slot_mask,
)
from lengthwise.transforms.ragged import RaggedRows, ragged_rows
from lengthwise.transforms.row_keys import assign_shards, assign_splits, row_keys
from lengthwise.transforms.statistics import Summary, summarize
from lengthwise.transforms.writing import WriteTFRecords, WrittenFile, write_shard

__all__ = [
    "BucketByLength",
    "Buckets",
    "EncodeExamples",
    "LengthHistogram",
    "PadToBucket",
    "PaddedBatch",
    "RaggedRows",
    "Summary",
    "WriteTFRecords",
    "WrittenFile",
    "assign_buckets",
    "assign_shards",
    "assign_splits",
    "choose_buckets",
    "encode_examples",
    "encode_rows",
    "fixed_boundaries",
    "geometric_boundaries",
    "layout_of",
    "length_histogram",
    "merge_histograms",
    "observed_mask",
    "optimal_boundaries",
    "pad_batch",
    "pad_rows",
    "padding_curve",
    "padding_fraction",
    "quantile_boundaries",
    "ragged_rows",
    "row_keys",
    "slot_mask",
    "summarize",
    "width_boundaries",
    "write_shard",
]
