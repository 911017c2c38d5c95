"""The plan job: one pass over the input, then the choice of buckets."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from lengthwise.dataset.errors import InputError, OutputError, PlanError
from lengthwise.dataset.options import MAX_SPLITS, RESERVED_IDS, PlanOptions
from lengthwise.dataset.plan import FeatureStatistics, Normalization, Plan
from lengthwise.dataset.schema import CLASSES, NUMBERS, TOKENS, Feature, Schema
from lengthwise.dataset.storage import (
    RemotePath,
    StoragePath,
    absolute_path,
    files_below,
    remove_folder,
)
from lengthwise.pipeline.accounts import (
    NAMED_FAULTS,
    Tally,
    fault_message,
    merge_tallies,
    rejected_rows,
)
from lengthwise.pipeline.ingest import IngestJob, ingest_unit
from lengthwise.pipeline.inputs import FeatureNames, Input, open_input
from lengthwise.pipeline.measuring import channel_features
from lengthwise.pipeline.progress import Progress
from lengthwise.pipeline.rejected import listed_rows
from lengthwise.pipeline.runners import Execution
from lengthwise.pipeline.sources import SourceOptions
from lengthwise.pipeline.splitting import TRAINING_SPLIT
from lengthwise.pipeline.staging import read_reports, unit_report_path
from lengthwise.pipeline.strings import vocabularies_of
from lengthwise.pipeline.unit_report import UnitReport
from lengthwise.pipeline.unit_runs import run_units
from lengthwise.transforms.boundaries import (
    STRATEGIES,
    Buckets,
    choose_buckets,
    fixed_boundaries,
    padding_curve,
)
from lengthwise.transforms.lengths import merge_histograms
from lengthwise.transforms.normalization import normalization_of
from lengthwise.transforms.statistics import Summary


@dataclass(frozen=True)
class Findings:
    """What ingesting all units found.

    Attributes:
        units: how many there are.
        tallies: split -> counts of rows.
        histograms: split -> length -> rows.
        summaries: feature -> summary; of codes where the feature is strings.
        vocabularies: feature -> its strings in the order of their ids.
        class_counts: feature -> class id -> rows or steps.
        channels: feature whose constants the plan needs -> a summary for each value of a step.
        rejected: faulty rows, in the order of the input, as `listed_rows` gives them while they are
            asked for, once.
    """

    units: int
    tallies: Mapping[str, Tally]
    histograms: Mapping[str, Mapping[int, int]]
    summaries: Mapping[str, Summary]
    vocabularies: Mapping[str, tuple[str, ...]]
    class_counts: Mapping[str, Mapping[int, int]]
    channels: Mapping[str, Sequence[Summary]]
    rejected: Iterable[pa.Table]


def make_plan(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    names: FeatureNames,
    options: PlanOptions,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    reading: SourceOptions | None = None,
    execution: Execution | None = None,
    staging: str | os.PathLike[str] | RemotePath | None = None,
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
        staging: folder or URL for reports of the workers, which all of them can write to; deleted
            at the end. A folder that holds anything else is refused. None takes a folder for
            temporary files, on this machine.
        progress: what shows progress; None shows nothing.

    Raises:
        LengthwiseError: the input cannot be found or read, or its rows cannot be used.
    """
    execution = execution or Execution()
    execution.check()
    source = open_input(
        [os.fspath(path) for path in inputs], names, reading, element_mask=options.element_mask
    )
    with contextlib.ExitStack() as stack:
        if staging is None:
            staging = stack.enter_context(tempfile.TemporaryDirectory(prefix="lengthwise-plan-"))
        else:
            folder = absolute_path(staging)
            if folder.exists() and not all(map(_is_of_plan, folder.iterdir())):
                raise OutputError(f"{folder}: holds something that is no staging of a plan")
            remove_folder(folder)
            stack.callback(remove_folder, folder)
            # Workers of a killed run may go on there with other rows.
            staging = folder / uuid.uuid4().hex
        folder = absolute_path(staging)
        source.check_drawn(options)
        job = source.job(options, folder, vocabularies=vocabularies, keep_rows=False)
        findings = ingest(source, job, execution, given=vocabularies, progress=progress)
    return plan_of(source.schema, options, findings, source.reading.planned)


def _is_of_plan(child: StoragePath) -> bool:
    return re.fullmatch("[0-9a-f]{32}", child.name) is not None


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
    run_units(
        source.units,
        ingest_unit,
        job,
        execution,
        progress,
        step="IngestUnit",
        title="reading units",
    )
    files = [unit.file for unit in source.units]

    def place_of(unit: int, number: int) -> str:
        return f"{files[unit].path}: row {number}"

    def named(unit: int, numbers: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        return pa.repeat(files[unit].name, len(numbers)), numbers

    def listed(units: Sequence[int]) -> Iterator[pa.Table]:
        for unit in units:
            yield from listed_rows(job.staging, [unit], named)

    return merged_findings(job, len(files), place_of, listed, given=given)


def merged_findings(
    job: IngestJob,
    units: int,
    place_of: Callable[[int, int], str],
    listed: Callable[[Sequence[int]], Iterable[pa.Table]],
    *,
    given: Mapping[str, Sequence[str]] | None = None,
) -> Findings:
    """Merges the reports of all units.

    Args:
        job: what the units were ingested by.
        units: how many there are.
        place_of: number of a unit, and of a row in its file -> where the row is.
        listed: units with rejected rows -> these, see `Findings`.
        given: vocabularies that are not to be counted.

    Raises:
        InputError: a unit cannot be read, or rows are faulty: one line for all of them.
    """
    tallies: dict[str, Tally] = {}
    histograms: dict[str, Mapping[int, int]] = {}
    summaries = {name: Summary() for name in job.schema.names}
    channels: dict[str, list[Summary]] = {}
    rejecting: list[int] = []
    first: list[str] = []
    for number, report in enumerate(unit_reports(job.staging, units)):
        if report.error is not None:
            raise InputError(report.error)
        tallies = merge_tallies([tallies, report.tallies])
        for split, histogram in report.histograms.items():
            histograms[split] = merge_histograms([histograms.get(split, {}), histogram])
        for name, summary in report.summaries.items():
            summaries[name] = summaries[name].merged(summary)
        for name, found in report.channels.items():
            previous = channels.get(name, [Summary()] * len(found))
            channels[name] = [a.merged(b) for a, b in zip(previous, found, strict=True)]
        if report.faults:
            rejecting.append(number)
        if len(first) < NAMED_FAULTS:
            first += [f"{place_of(number, row)}: {reason}" for row, reason in report.faults]
    if len(tallies) > MAX_SPLITS:
        raise InputError(f"the column that names the split has over {MAX_SPLITS} names")
    reasons = rejected_rows(tallies)
    limit = job.options.rejected_limit(sum(tally.read for tally in tallies.values()))
    if sum(reasons.values()) > limit:
        raise InputError(fault_message(reasons, first))
    vocabularies, class_counts = vocabularies_of(
        job,
        units,
        given=given or {},
        size=job.options.vocab_size,
        min_count=job.options.min_count,
    )
    return Findings(
        units,
        tallies,
        {split: histograms.get(split, {}) for split in sorted(tallies)},
        summaries,
        vocabularies,
        class_counts,
        channels,
        listed(rejecting),
    )


def unit_reports(staging: str, units: int) -> Iterator[UnitReport]:
    """The reports of all units, in order, one at a time.

    Raises:
        OutputError: one is not there.
    """
    there = files_below(unit_report_path(staging, 0).parent)
    paths = [unit_report_path(staging, number) for number in range(units)]
    vanished = sum(path.name not in there for path in paths)
    if vanished:
        raise OutputError(
            f"{staging}: {vanished} of {units} units vanished while the build ran; run the same "
            "command again"
        )
    yield from map(UnitReport.from_json, read_reports(paths))


def plan_of(
    schema: Schema,
    options: PlanOptions,
    findings: Findings,
    reading: SourceOptions | None = None,
) -> Plan:
    """Chooses the buckets.

    Raises:
        PlanError: no row is left to plan for, or to learn from.
    """
    histogram = merge_histograms(findings.histograms.values())
    if not histogram:
        raise PlanError("no row is left: all of them were dropped; see --empty and --max-length")
    _require_training(schema, options, findings)
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
            name: _normalization(schema[name], findings, options)
            for name in sorted(options.normalize)
        },
        means={
            name: tuple(channel.statistics(schema[name].channel).mean for channel in channels)
            for name, channels in sorted(findings.channels.items())
            if options.fill == "mean"
        },
        reading=reading,
    )


def _require_training(schema: Schema, options: PlanOptions, findings: Findings) -> None:
    """Raises PlanError where something is learned from the training split, and it has no rows."""
    if TRAINING_SPLIT in findings.histograms:
        if findings.histograms[TRAINING_SPLIT]:
            return
    elif options.split_column is None:
        return  # all rows are learned from
    learned = [f"constants of '{name}'" for name in channel_features(schema, options)]
    learned += [
        f"the vocabulary of '{feature.name}'"
        for feature in schema.strings
        if feature.encoding == TOKENS and not findings.vocabularies[feature.name]
    ]
    if learned:
        raise PlanError(
            f"split '{TRAINING_SPLIT}' has no rows, and {' and '.join(learned)} would come from "
            "it; there are rows in: "
            f"{', '.join(split for split, rows in findings.histograms.items() if rows)}"
        )


def _normalization(feature: Feature, findings: Findings, options: PlanOptions) -> Normalization:
    found = findings.summaries[feature.name].statistics(feature)
    values = [found.low, found.high]
    if found.missing:
        values.append(0.0 if isinstance(options.fill, str) else options.fill)
    return normalization_of(
        options.normalize[feature.name],
        findings.channels[feature.name],
        feature.channel,
        low=min(values),
        high=max(values),
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
