"""The plan job: one pass over the input, then the choice of buckets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam

from lengthwise.dataset.errors import InputError, PlanError, SchemaError
from lengthwise.dataset.plan import Plan, PlanOptions
from lengthwise.dataset.schema import Schema
from lengthwise.pipeline.accounts import Tally, fault_message, merge_tallies
from lengthwise.pipeline.ingest import IngestJob, UnitReport, ingest_unit
from lengthwise.pipeline.progress import Progress, count_reports, watched
from lengthwise.pipeline.runners import Execution, run_pipeline
from lengthwise.pipeline.sources import ParquetFile, Unit, find_files, is_parquet, open_footer
from lengthwise.pipeline.staging import read_reports, unit_report_path
from lengthwise.transforms.boundaries import (
    STRATEGIES,
    Buckets,
    choose_buckets,
    fixed_boundaries,
    padding_curve,
)
from lengthwise.transforms.lengths import merge_histograms
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
        files: footers of all files, in the order of their names.
        schema: the features.
    """

    files: tuple[ParquetFile, ...]
    schema: Schema

    @property
    def units(self) -> list[Unit]:
        """All units, in the order of files and rows."""
        return [unit for file in self.files for unit in file.units]

    def split_names(self, options: PlanOptions) -> tuple[str, ...]:
        """Names of all splits, ascending."""
        given = {file.file.split for file in self.files if file.file.split is not None}
        drawn = any(file.file.split is None for file in self.files)
        return tuple(sorted(given | (set(options.splits) if drawn else set())))

    def job(self, options: PlanOptions, staging: Path, **extra: Any) -> IngestJob:
        """What the workers need to ingest it."""
        return IngestJob(
            schema=self.schema,
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
        summaries: feature -> summary.
    """

    tallies: Mapping[str, Tally]
    histograms: Mapping[str, Mapping[int, int]]
    summaries: Mapping[str, Summary]


def open_input(inputs: Sequence[str], names: FeatureNames | Schema) -> Input:
    """Finds the input and checks that all its files have the features.

    Args:
        inputs: files, globs, folders, each possibly `SPLIT=PATH`.
        names: which columns are which, or the schema itself.

    Raises:
        InputError: nothing found, or a file cannot be read.
        SchemaError: a file lacks a column, or has it with another type.
    """
    files = tuple(open_footer(file) for file in find_files(inputs, is_parquet))
    schema = names if isinstance(names, Schema) else _schema_of(files[0], names)
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
    if not any(file.rows for file in files):
        raise InputError(f"{files[0].file.path}: the input has no rows")
    return Input(files, schema)


def make_plan(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    names: FeatureNames,
    options: PlanOptions,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Reads the input once and plans a dataset of it.

    Args:
        inputs: Parquet files, globs or folders.
        names: which columns are which.
        options: how to plan.
        execution: where to run; None runs in this process.
        progress: what shows progress; None shows nothing.

    Raises:
        LengthwiseError: the input cannot be found or read, or its rows cannot be used.
    """
    source = open_input([os.fspath(path) for path in inputs], names)
    with tempfile.TemporaryDirectory(prefix="lengthwise-plan-") as folder:
        job = source.job(options, Path(folder), keep_rows=False)
        findings = ingest(source, job, execution or Execution(), progress)
    return plan_of(source.schema, options, findings)


def ingest(
    source: Input, job: IngestJob, execution: Execution, progress: Progress | None = None
) -> Findings:
    """Ingests all units that have no report yet, then merges the reports.

    Raises:
        InputError: a unit cannot be read, or rows are faulty: one line for all of them.
    """
    numbered = list(enumerate(source.units))
    waiting = [(n, u) for n, u in numbered if not unit_report_path(job.staging, n).is_file()]
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
    if any(tally.rejected for tally in tallies.values()):
        named = [
            (unit.file.path, row, reason)
            for (_, unit), report in zip(numbered, reports, strict=True)
            for row, reason in report.faults
        ]
        raise InputError(fault_message(tallies, named))
    summaries = {name: Summary() for name in job.schema.names}
    for report in reports:
        for name, summary in report.summaries.items():
            summaries[name] = summaries[name].merged(summary)
    histograms = {
        split: merge_histograms(report.histograms.get(split, {}) for report in reports)
        for split in job.splits
    }
    return Findings(tallies, histograms, summaries)


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
            feature.name: findings.summaries[feature.name].statistics(feature)
            for feature in schema.features
        },
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


def _schema_of(file: ParquetFile, names: FeatureNames) -> Schema:
    sequences = names.sequences
    labels_only = sequences == () and names.labels
    return Schema.from_arrow(
        file.columns,
        sequences=() if labels_only else sequences,
        labels=names.labels,
        contexts=names.contexts,
        place=file.file.path,
    )
