"""The input of a job, looked at but not yet read: its files, its features, its units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lengthwise.dataset.errors import InputError, PlanError, SchemaError, UsageError
from lengthwise.dataset.options import MAX_INT64, MAX_SPLITS, PlanOptions
from lengthwise.dataset.schema import NUMBERS, Schema
from lengthwise.dataset.storage import StoragePath
from lengthwise.pipeline.ingest import IngestJob
from lengthwise.pipeline.sources import (
    SourceFile,
    SourceOptions,
    Unit,
    agree_on_columns,
    columns_to_read,
    find_files,
    open_file,
    require_use,
)
from lengthwise.transforms.ragged import storage_dtypes


@dataclass(frozen=True)
class FeatureNames:
    """Which columns are which; None takes every list column as a sequence."""

    sequences: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Input:
    """The input, looked at but not yet read.

    Attributes:
        files: what was seen of all files, in the order of their names.
        schema: the features.
        reading: how the files are read.
    """

    files: tuple[SourceFile, ...]
    schema: Schema
    reading: SourceOptions

    @property
    def units(self) -> list[Unit]:
        """All units, in the order of files and rows."""
        return [unit for file in self.files for unit in file.units]

    def split_names(self, options: PlanOptions) -> tuple[str, ...]:
        """Names of all splits, ascending."""
        given = {file.file.split for file in self.files if file.file.split is not None}
        drawn = any(file.file.split is None for file in self.files)
        drawn = drawn and options.split_column is None
        return tuple(sorted(given | (set(options.splits) if drawn else set())))

    def _split_columns(self, options: PlanOptions) -> list[str]:
        names = [name for name in (options.split_by, options.split_column) if name is not None]
        for file in self.files:
            for name in names:
                if name not in file.columns.names:
                    raise SchemaError(
                        f"{file.file.path}: no column '{name}' to split by; columns are: "
                        f"{', '.join(file.columns.names)}"
                    )
                type_ = file.columns.field(name).type
                # Python, which names groups and splits, has no times of nanoseconds.
                if pa.types.is_nested(type_) or getattr(type_, "unit", "") == "ns":
                    raise SchemaError(
                        f"{file.file.path}: column '{name}' is {type_}; rows are split by strings, "
                        "numbers or dates"
                    )
        return [name for name in names if name not in self.schema.names]

    def check_drawn(self, options: PlanOptions) -> None:
        """Raises UsageError where options draw splits that every input has of its own."""
        drawn = {
            "split": options.splits != PlanOptions().splits,
            "split-by": options.split_by is not None,
            "split-column": options.split_column is not None,
        }
        file = self.files[0].file
        if all(file.file.split is not None for file in self.files) and any(drawn.values()):
            option = next(name for name, given in drawn.items() if given)
            raise UsageError(
                f"--{option} is given, but every input has a split of its own, {file.path} is in "
                f"'{file.split}': leave it out, or name an input without a split"
            )

    def check_options(self, options: PlanOptions) -> None:
        """Raises PlanError where an option does not fit the features, or says nothing of them."""
        for name, kind in options.normalize.items():
            feature = self.schema[name]
            if feature.dtype != "float32" or not feature.sequence or feature.label:
                raise PlanError(
                    f"--normalize {name}={kind}: {feature.describe()} is no float sequence that a "
                    "model takes in"
                )
        for option, value in (("fill", options.fill), ("pad-value", options.pad_value)):
            if isinstance(value, str) or (value % 1 == 0 and -MAX_INT64 <= value <= MAX_INT64):
                continue
            for feature in self.schema.sequences:
                if feature.dtype == "int64" and feature.encoding == NUMBERS and not feature.label:
                    raise PlanError(
                        f"--{option} {value:g}: feature '{feature.name}' holds integers; give "
                        "an integer of 64 bits"
                    )

    def job(
        self,
        options: PlanOptions,
        staging: StoragePath,
        *,
        vocabularies: Iterable[str] | None = None,
        also: Sequence[str] = (),
        **extra: Any,
    ) -> IngestJob:
        """What the workers need to ingest it.

        Args:
            options: how to plan.
            staging: the staging folder.
            vocabularies: features whose vocabulary is given.
            also: columns to read beside those of features and splits.
            extra: other attributes of the job.
        """
        self.check_options(options)
        for name in vocabularies or ():
            if self.schema[name] not in self.schema.strings:
                raise PlanError(
                    f"a vocabulary is given of feature '{name}', which is no strings: "
                    f"{self.schema[name].describe()}"
                )
        if len(self.split_names(options)) > MAX_SPLITS:
            raise PlanError(
                f"{len(self.split_names(options))} splits are more than {MAX_SPLITS}: name fewer"
            )
        names = dict.fromkeys((*also, *self.schema.names, *self._split_columns(options)))
        return IngestJob(
            schema=self.schema,
            columns=columns_to_read(self.files, tuple(names)),
            reading=self.reading,
            storage=storage_dtypes(self.schema, [file.columns for file in self.files]),
            options=options,
            splits=self.split_names(options),
            staging=str(staging),
            **extra,
        )


def open_input(
    inputs: Sequence[str],
    names: FeatureNames | Schema,
    reading: SourceOptions | None = None,
    *,
    element_mask: bool = False,
    planned: SourceOptions | None = None,
) -> Input:
    """Finds the input and checks that all its files have the features.

    Args:
        inputs: files, globs, folders, each possibly `SPLIT=PATH`.
        names: which columns are which, or the schema itself.
        reading: how the files are read; None tells the format of each from the file.
        element_mask: whether elements of vectors are masked by themselves; a schema says so itself.
        planned: how a plan says that they are read.

    Raises:
        InputError: nothing found, or a file cannot be read.
        UsageError: an option of reading says nothing of these files.
        SchemaError: a file lacks a column, or has it with another type.
    """
    reading = _with_roles(reading or SourceOptions(), names)
    found = find_files(inputs, reading)
    files = agree_on_columns([open_file(file, reading) for file in found])
    require_use(reading, files, planned)
    if all(file.rows == 0 for file in files):
        raise InputError(f"{files[0].file.path}: the input has no rows")
    return input_of(files, names, reading, element_mask=element_mask)


def input_of(
    files: tuple[SourceFile, ...],
    names: FeatureNames | Schema,
    reading: SourceOptions,
    *,
    element_mask: bool = False,
) -> Input:
    """Checks that all files have the features.

    Args:
        files: at least one.
        names: which columns are which, or the schema itself.
        reading: how the files are read.
        element_mask: whether elements of vectors are masked by themselves; a schema says so itself.

    Raises:
        SchemaError: a file lacks a column, or has it with another type.
    """
    _require_columns(files, reading)
    schema = names if isinstance(names, Schema) else _schema_of(files[0], names)
    _require_shapes(files[0], schema, reading)
    if all(feature.label for feature in schema.sequences):
        raise SchemaError(
            f"{files[0].file.path}: every sequence is a label, so a model would see nothing; name "
            "its input with --sequence"
        )
    as_names = FeatureNames(
        sequences=tuple(f.name for f in schema.sequences if not f.label),
        labels=tuple(f.name for f in schema.labels),
        contexts=tuple(f.name for f in schema.contexts if not f.label),
    )
    for file in files:
        found = _schema_of(file, as_names)
        for mine, theirs in zip(schema.features, found.features, strict=True):
            if replace(mine, element_mask=False) != theirs:
                raise SchemaError(
                    f"{file.file.path}: column '{mine.name}' is {theirs.describe()}, "
                    f"elsewhere it is {mine.describe()}"
                )
    if element_mask and not isinstance(names, Schema):
        schema = schema.with_element_masks
    return Input(files, schema, reading)


def _require_columns(files: tuple[SourceFile, ...], reading: SourceOptions) -> None:
    """Raises SchemaError where a column was given a shape or a type that is in no file."""
    there = {name for file in files for name in file.columns.names}
    for name in (*reading.shapes, *reading.types):
        if name not in there:
            raise SchemaError(
                f"{files[0].file.path}: no column '{name}', which was given a shape or a type; "
                f"columns are: {', '.join(files[0].columns.names)}"
            )


def _require_shapes(file: SourceFile, schema: Schema, reading: SourceOptions) -> None:
    """Raises SchemaError where a feature has another shape than it was given."""
    for feature in schema.features:
        shape = reading.shapes.get(feature.name, feature.shape)
        if shape != feature.shape:
            raise SchemaError(
                f"{file.file.path}: column '{feature.name}' is "
                f"{file.columns.field(feature.name).type}, which has no steps of shape "
                f"{'x'.join(map(str, shape))}; leave --shape out"
            )


def _with_roles(reading: SourceOptions, names: FeatureNames | Schema) -> SourceOptions:
    """Tells formats that leave it open which columns have a value per step and which per row."""
    if isinstance(names, Schema):
        sequences = tuple(feature.name for feature in names.sequences)
        return replace(reading, sequences=sequences, contexts=tuple(f.name for f in names.contexts))
    return replace(reading, sequences=names.sequences or (), contexts=names.contexts)


def _schema_of(file: SourceFile, names: FeatureNames) -> Schema:
    sequences = names.sequences
    labels_only = sequences == () and names.labels
    return Schema.from_arrow(
        file.columns,
        sequences=() if labels_only else sequences,
        labels=names.labels,
        contexts=names.contexts,
        place=file.file.path,
    )
