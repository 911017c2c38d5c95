"""The contract on disk: schema, plan, manifest, records, and their verification."""

from lengthwise.dataset.errors import (
    CorruptDataError,
    InputError,
    LengthwiseError,
    ManifestError,
    OutputError,
    PlanError,
    SchemaError,
    UsageError,
)
from lengthwise.dataset.manifest import Account, Manifest
from lengthwise.dataset.options import PlanOptions
from lengthwise.dataset.plan import FeatureStatistics, Normalization, Plan
from lengthwise.dataset.reading import SourceOptions
from lengthwise.dataset.record import Field, RecordLayout
from lengthwise.dataset.schema import Feature, Schema
from lengthwise.dataset.shard import Shard
from lengthwise.dataset.verify import verify

__all__ = [
    "Account",
    "CorruptDataError",
    "Feature",
    "FeatureStatistics",
    "Field",
    "InputError",
    "LengthwiseError",
    "Manifest",
    "ManifestError",
    "Normalization",
    "OutputError",
    "Plan",
    "PlanError",
    "PlanOptions",
    "RecordLayout",
    "Schema",
    "SchemaError",
    "Shard",
    "SourceOptions",
    "UsageError",
    "verify",
]
