"""The plan job: one pass over the input, then the choice of buckets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import apache_beam as beam

from lengthwise.dataset.errors import InputError, PlanError, SchemaError
from lengthwise.dataset.options import MAX_SPLITS, RESERVED_IDS, PlanOptions
from lengthwise.dataset.plan import FeatureStatistics, Plan
from lengthwise.dataset.schema import CLASSES, NUMBERS, Feature, Schema
from lengthwise.pipeline.accounts import (
    Rejected,
    Tally,
    fault_message,
    merge_tallies,
    rejected_rows,
)
from lengthwise.pipeline.ingest import IngestJob, ingest_unit
from lengthwise.pipeline.progress import Progress, count_reports, watched
from lengthwise.pipeline.runners import Execution, run_pipeline
from lengthwise.pipeline.sources import (
    SourceFile,
    SourceOptions,
    Unit,
    agree_on_columns,
    columns_to_read,
    find_files,
    open_file,
)
from lengthwise.pipeline.staging import read_reports, unit_report_path, unit_rows_path
from lengthwise.pipeline.strings import vocabularies_of
from lengthwise.pipeline.unit_report import UnitReport
from lengthwise.transforms.boundaries import (
    STRATEGIES,
    Buckets,
    choose_buckets,
    fixed_boundaries,
    padding_curve,
)
from lengthwise.transforms.lengths import merge_histograms
from lengthwise.transforms.normalization import normalization_of
from lengthwise.transforms.ragged import storage_dtypes
from lengthwise.transforms.statistics import Summary


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
        return [name for name in names if name not in self.schema.names]

    def check_options(self, options: PlanOptions) -> None:
        """Raises PlanError where an option does not fit the features."""
        for name, kind in options.normalize.items():
            feature = self.schema[name]
            if feature.dtype != "float32" or not feature.sequence or feature.label:
                raise PlanError(
                    f"--normalize {name}={kind}: {feature.describe()} is no float sequence that a "
                    "model takes in"
                )
        for option, value in (("fill", options.fill), ("pad-value", options.pad_value)):
            if isinstance(value, str) or value % 1 == 0:
                continue
            for feature in self.schema.sequences:
                if feature.dtype == "int64" and feature.encoding == NUMBERS and not feature.label:
                    raise PlanError(
                        f"--{option} {value:g}: feature '{feature.name}' holds integers; give "
                        "an integer"
                    )

    def job(self, options: PlanOptions, staging: Path, **extra: Any) -> IngestJob:
        """What the workers need to ingest it."""
        self.check_options(options)
        if len(self.split_names(options)) > MAX_SPLITS:
            raise PlanError(
                f"{len(self.split_names(options))} splits are more than {MAX_SPLITS}: name fewer"
            )
        names = (*self.schema.names, *self._split_columns(options))
        return IngestJob(
            schema=self.schema,
            columns=columns_to_read(self.files, names),
            reading=self.reading,
            storage=storage_dtypes(self.schema, [file.columns for file in self.files]),
            options=options,
            splits=self.split_names(options),
            staging=str(staging),
            **extra,
        )


@dataclass(frozen=True)
class Findings:
    """What ingesting all units found.

    Attributes:
        tallies: split -> counts of rows.
        histograms: split -> length -> rows.
        summaries: feature -> summary; of codes where the feature is strings.
        vocabularies: feature -> its strings in the order of their ids.
        class_counts: feature -> class id -> rows or steps.
        channels: feature whose constants the plan needs -> a summary for each value of a step.
        rejected: faulty rows, in the order of the input.
    """

    tallies: Mapping[str, Tally]
    histograms: Mapping[str, Mapping[int, int]]
    summaries: Mapping[str, Summary]
    vocabularies: Mapping[str, tuple[str, ...]]
    class_counts: Mapping[str, Mapping[int, int]]
    channels: Mapping[str, Sequence[Summary]]
    rejected: tuple[Rejected, ...]


def open_input(
    inputs: Sequence[str], names: FeatureNames | Schema, reading: SourceOptions | None = None
) -> Input:
    """Finds the input and checks that all its files have the features.

    Args:
        inputs: files, globs, folders, each possibly `SPLIT=PATH`.
        names: which columns are which, or the schema itself.
        reading: how the files are read; None tells the format of each from the file.

    Raises:
        InputError: nothing found, or a file cannot be read.
        SchemaError: a file lacks a column, or has it with another type.
    """
    reading = _with_roles(reading or SourceOptions(), names)
    found = find_files(inputs, reading)
    files = agree_on_columns([open_file(file, reading) for file in found])
    schema = names if isinstance(names, Schema) else _schema_of(files[0], names)
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
            if mine != theirs:
                raise SchemaError(
                    f"{file.file.path}: column '{mine.name}' is {theirs.describe()}, "
                    f"elsewhere it is {mine.describe()}"
                )
    if all(file.rows == 0 for file in files):
        raise InputError(f"{files[0].file.path}: the input has no rows")
    return Input(files, schema, reading)


def _with_roles(reading: SourceOptions, names: FeatureNames | Schema) -> SourceOptions:
    """Tells formats that leave it open which columns have a value per step and which per row."""
    if isinstance(names, Schema):
        sequences = tuple(feature.name for feature in names.sequences)
        return replace(reading, sequences=sequences, contexts=tuple(f.name for f in names.contexts))
    return replace(reading, sequences=names.sequences or (), contexts=names.contexts)


def make_plan(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    names: FeatureNames,
    options: PlanOptions,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    reading: SourceOptions | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Reads the input once and plans a dataset of it.

    Args:
        inputs: files, globs, folders or URLs.
        names: which columns are which.
        options: how to plan.
        vocabularies: feature -> its strings in the order of their ids; others are counted.
        reading: how the files are read; None tells the format of each from the file.
        execution: where to run; None runs in this process.
        progress: what shows progress; None shows nothing.

    Raises:
        LengthwiseError: the input cannot be found or read, or its rows cannot be used.
    """
    execution = execution or Execution()
    execution.check()
    source = open_input([os.fspath(path) for path in inputs], names, reading)
    with tempfile.TemporaryDirectory(prefix="lengthwise-plan-") as folder:
        job = source.job(options, Path(folder), keep_rows=False)
        findings = ingest(source, job, execution, given=vocabularies, progress=progress)
    return plan_of(source.schema, options, findings)


def ingest(
    source: Input,
    job: IngestJob,
    execution: Execution,
    *,
    given: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Ingests all units that have no report yet, then merges the reports.

    Raises:
        InputError: a unit cannot be read, or rows are faulty: one line for all of them.
    """
    numbered = list(enumerate(source.units))
    waiting = [(n, unit) for n, unit in numbered if not _is_ingested(n, job)]
    if waiting:

        def construct(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "ListUnits" >> beam.Create(waiting)
                | "SpreadUnits" >> beam.Reshuffle()
                | "IngestUnit" >> beam.Map(ingest_unit, job)
            )

        units = unit_report_path(job.staging, 0).parent
        with watched(progress, "reading units", len(numbered), lambda: count_reports(units)):
            run_pipeline(construct, execution)
    reports = unit_reports(job.staging, len(numbered))
    for report in reports:
        if report.error is not None:
            raise InputError(report.error)
    tallies = merge_tallies(report.tallies for report in reports)
    rejected = [
        Rejected(unit.file.path, unit.file.name, *row)
        for (_, unit), report in zip(numbered, reports, strict=True)
        for row in sorted(report.rejected)
    ]
    reasons = rejected_rows(tallies)
    limit = job.options.rejected_limit(sum(tally.read for tally in tallies.values()))
    if sum(reasons.values()) > limit:
        raise InputError(fault_message(reasons, rejected))
    summaries = {name: Summary() for name in job.schema.names}
    for report in reports:
        for name, summary in report.summaries.items():
            summaries[name] = summaries[name].merged(summary)
    histograms = {
        split: merge_histograms(report.histograms.get(split, {}) for report in reports)
        for split in sorted(tallies)
    }
    vocabularies, class_counts = vocabularies_of(
        job,
        len(numbered),
        given=given or {},
        size=job.options.vocab_size,
        min_count=job.options.min_count,
    )
    channels: dict[str, list[Summary]] = {}
    for report in reports:
        for name, summaries_ in report.channels.items():
            previous = channels.get(name, [Summary()] * len(summaries_))
            channels[name] = [a.merged(b) for a, b in zip(previous, summaries_, strict=True)]
    return Findings(
        tallies, histograms, summaries, vocabularies, class_counts, channels, tuple(rejected)
    )


def _is_ingested(number: int, job: IngestJob) -> bool:
    rows = unit_rows_path(job.staging, number)
    return unit_report_path(job.staging, number).is_file() and rows.is_file()


def unit_reports(staging: str, units: int) -> list[UnitReport]:
    """The reports of all units, in order."""
    paths = [unit_report_path(staging, number) for number in range(units)]
    return [UnitReport.from_json(document) for document in read_reports(paths)]


def plan_of(schema: Schema, options: PlanOptions, findings: Findings) -> Plan:
    """Chooses the buckets.

    Raises:
        PlanError: no row is left to plan for.
    """
    histogram = merge_histograms(findings.histograms.values())
    if not histogram:
        raise PlanError("no row is left: all of them were dropped; see --empty and --max-length")
    return Plan(
        schema=schema,
        options=options,
        max_lengths=_max_lengths(histogram, options),
        histograms=findings.histograms,
        statistics={
            feature.name: statistics_of(feature, findings, options) for feature in schema.features
        },
        vocabularies=findings.vocabularies,
        normalizations={
            name: normalization_of(
                options.normalize[name], channels, replace(schema[name], shape=())
            )
            for name, channels in sorted(findings.channels.items())
            if name in options.normalize
        },
        means={
            name: tuple(
                channel.statistics(replace(schema[name], shape=())).mean for channel in channels
            )
            for name, channels in sorted(findings.channels.items())
            if options.fill == "mean"
        },
    )


def statistics_of(feature: Feature, findings: Findings, options: PlanOptions) -> FeatureStatistics:
    """The statistics of a feature as they stand in a plan."""
    found = findings.summaries[feature.name].statistics(feature)
    if feature.encoding == NUMBERS:
        if feature.sequence and feature.dtype == "int64":
            # What stands at missing steps and in padding must fit into the varints too.
            extra = [int(v) for v in (options.fill, options.pad_value) if not isinstance(v, str)]
            extra = [value for value in extra if value]
            low, high = min(found.low, *extra, found.low), max(found.high, *extra, found.high)
            return replace(found, low=low, high=high)
        return found
    strings = len(findings.vocabularies[feature.name])
    ids = strings if feature.encoding == CLASSES else RESERVED_IDS + strings
    # Means of ids mean nothing.
    return FeatureStatistics(
        count=found.count,
        missing=found.missing,
        mean=0.0,
        variance=0.0,
        low=0,
        high=max(ids - 1, 0),
        values=findings.class_counts.get(feature.name),
    )


def curve_of(plan: Plan) -> list[Buckets]:
    """The curve of padding against the number of buckets, for the plan's strategy."""
    histogram = merge_histograms(plan.histograms.values())
    strategy = plan.options.strategy if plan.options.strategy in STRATEGIES else "optimal"
    return padding_curve(histogram, strategy=strategy, align=plan.options.align)


def _max_lengths(histogram: Mapping[int, int], options: PlanOptions) -> tuple[int, ...]:
    if options.strategy == "fixed":
        return tuple(fixed_boundaries(histogram, options.boundaries, options.align))
    if options.num_buckets is not None:
        find = STRATEGIES[options.strategy]
        return tuple(find(histogram, options.num_buckets, options.align))
    curve = padding_curve(histogram, strategy=options.strategy, align=options.align)
    return choose_buckets(curve, rows=sum(histogram.values())).max_lengths


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
