"""The prediction job: raw input files of any format through a trained run, into one Parquet file.

    unit 0  ──▶ read ──▶ predict ──▶ part 0 ─┐
    unit 1  ──▶ read ──▶ predict ──▶ part 1 ─┼──▶ predictions.parquet, in the order of the input
    …                                         ┘

A part depends on its unit alone, so any number of workers gives the same bytes. Parts stay in a
staging folder beside the output until it is written; a job that was killed takes up those that are
whole.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lengthwise.dataset.errors import InputError, LengthwiseError, OutputError, SchemaError
from lengthwise.dataset.local_files import mapped
from lengthwise.dataset.schema import NUMBERS, Feature, feature_from_arrow
from lengthwise.dataset.storage import StoragePath, absolute_path, written_whole
from lengthwise.pipeline.progress import Progress
from lengthwise.pipeline.row_groups import write_row_groups
from lengthwise.pipeline.runners import Execution
from lengthwise.pipeline.sources import (
    SourceFile,
    SourceOptions,
    Unit,
    agree_on_columns,
    columns_to_read,
    find_files,
    open_file,
    read_unit,
    require_use,
    status_of,
)
from lengthwise.pipeline.sources.fitting import nested_lists
from lengthwise.pipeline.staging import (
    open_staging,
    read_reports,
    unit_report_path,
    unit_rows_path,
    write_report,
)
from lengthwise.pipeline.unit_runs import run_units
from lengthwise.pipeline.worker_counts import count_on_worker
from lengthwise.transforms.writing import sync_folder

FILE, ROW, REASON = "file", "row", "reason"
# In the metadata of the Parquet file; by it a file of ours is known.
METADATA = b"lengthwise-predictions"
_ROW_GROUP_ROWS = 1 << 16


@dataclass(frozen=True)
class PredictJob:
    """What predicting any unit needs; travels to the workers.

    Attributes:
        run: the run folder.
        checkpoint: "best" or "last".
        build_model: what made a network of the user's own, "module:function"; imported first.
        columns: names and types of the columns that units are asked for.
        reading: how files are read.
        staging: the staging folder.
    """

    run: str
    checkpoint: str
    build_model: str | None
    columns: pa.Schema
    reading: SourceOptions
    staging: str


@dataclass(frozen=True)
class Predictions:
    """What a prediction job has written.

    Attributes:
        path: the Parquet file.
        rows: rows of the input, each of which is a row of the file.
        reasons: why rows have no prediction -> how many.
    """

    path: StoragePath
    rows: int
    reasons: Mapping[str, int]


def predict(
    run: str | os.PathLike[str],
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    build_model: str | None = None,
    reading: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Predicts every row of the input.

    Args:
        run: the run folder that `lengthwise train` left.
        inputs: files, globs, folders or URLs; they need no labels.
        output: the Parquet file, or its URL. Predictions that are there already are replaced.
        checkpoint: "best" or "last".
        build_model: what made a network of the user's own, "module:function": its module, which
            knows the layers, is imported first, on workers too.
        reading: fields of `SourceOptions`, how the files are read; others are as the plan of the
            run says, but the format is told from each file.
        execution: where to run; None runs in this process.
        progress: what shows progress; None shows nothing.

    Returns:
        What was written. The file has a row for each row of the input, files in the order of their
        names: `file` (relative to the inputs' common folder), `row` (number in it), `reason` (why
        there is no prediction, else null), and what `LoadedRun.predict` gives.

    Raises:
        LengthwiseError: run or input cannot be used, or the file cannot be written.

    Example:
        >>> predict("/nowhere", ["rows.parquet"], "predictions.parquet")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: /nowhere: no run here (config.json is missing); \
make one with `lengthwise train`
    """
    execution = execution or Execution()
    execution.check()
    run = os.path.abspath(run)
    loaded = _loaded(run, checkpoint, build_model)
    paths = [os.fspath(path) for path in inputs]
    said = _as_planned(reading or {}, loaded.plan.reading)
    options, files = _open_files(paths, loaded.inputs, said)
    require_use(said, files, loaded.plan.reading)
    target = absolute_path(output)
    _check_output(target)
    staging = open_staging(
        target.parent / f".{target.name}.staging",
        {
            "version": metadata.version("lengthwise"),
            "run": [run, checkpoint, *status_of(os.path.join(run, f"{checkpoint}.keras"))],
            "reading": dataclasses.asdict(options),
            "files": [[f.file.path, f.file.name, *status_of(f.file.path)] for f in files],
        },
    )
    job = PredictJob(
        run=run,
        checkpoint=checkpoint,
        build_model=build_model,
        columns=columns_to_read(files, [feature.name for feature in loaded.inputs]),
        reading=options,
        staging=str(staging.folder),
    )
    try:
        units = [unit for file in files for unit in file.units]
        run_units(
            units,
            predict_unit,
            job,
            execution,
            progress,
            step="PredictUnit",
            title="predicting units",
        )
        reports = list(read_reports(unit_report_path(job.staging, n) for n in range(len(units))))
        for report in reports:
            if report["error"] is not None:
                raise InputError(report["error"])
        _write_output(target, len(units), job, _no_predictions(loaded, job))
    except (InputError, SchemaError):
        # Running again would only meet the same fault.
        staging.remove()
        raise
    except BaseException:
        staging.close()
        raise
    staging.remove()
    reasons: dict[str, int] = {}
    for report in reports:
        for reason, rows in report["reasons"].items():
            reasons[reason] = reasons.get(reason, 0) + rows
    rows = sum(report["rows"] for report in reports)
    return Predictions(target, rows, dict(sorted(reasons.items())))


def predict_unit(numbered: tuple[int, Unit], job: PredictJob) -> None:
    """Predicts the rows of a unit and leaves them and a report in the staging folder.

    An input that cannot be read is reported, not raised: runners would only try again.
    """
    number, unit = numbered
    report: dict[str, Any] = {"rows": 0, "reasons": {}, "error": None}
    try:
        table = _predicted(unit, job)
        _write_part(unit_rows_path(job.staging, number), table)
        reasons = table[REASON].drop_null().value_counts().to_pylist()
        report["rows"] = table.num_rows
        report["reasons"] = {item["values"]: item["counts"] for item in reasons}
    except LengthwiseError as reason:
        report["error"] = str(reason)
    write_report(unit_report_path(job.staging, number), report)
    count_on_worker("units")


def _predicted(unit: Unit, job: PredictJob) -> pa.Table:
    """Predictions of all rows of a unit, in order."""
    run = _loaded(job.run, job.checkpoint, job.build_model)
    empty = _no_predictions(run, job)
    parts = [empty]
    for batch in read_unit(unit, job.columns, job.reading):
        parts.append(_labelled(run.predict(batch.rows), batch.row_numbers, unit))
        if batch.broken:
            broken = pa.table({REASON: pa.array([row.reason for row in batch.broken])})
            numbers = np.array([row.row for row in batch.broken], np.int64)
            parts.append(_labelled(broken, numbers, unit))
    table = pa.concat_tables(parts, promote_options="default").select(empty.column_names)
    rows = table[ROW].to_numpy()
    if (np.diff(rows) < 0).any():
        table = table.take(pa.array(np.argsort(rows, kind="stable")))
    return table


def _labelled(answers: pa.Table, numbers: np.ndarray, unit: Unit) -> pa.Table:
    """Answers with file and row before them."""
    names = pa.array([unit.file.name], pa.string()).take(pa.array(np.zeros(len(numbers), np.int64)))
    return answers.add_column(0, ROW, pa.array(numbers, pa.int64())).add_column(0, FILE, names)


def _no_predictions(run: Any, job: PredictJob) -> pa.Table:
    """The columns of the output, without rows."""
    answers = run.predict(pa.Table.from_batches([], job.columns))
    empty = pa.table({FILE: pa.array([], pa.string()), ROW: pa.array([], pa.int64())})
    for name in answers.column_names:
        empty = empty.append_column(name, answers[name])
    return empty.replace_schema_metadata({METADATA: json.dumps(run.answers.metadata)})


@lru_cache(maxsize=1)
def _loaded(run: str, checkpoint: str, build_model: str | None) -> Any:
    """The run, once a process; a fault in it is told by whoever asks first."""
    from lengthwise.model.loading import load_run
    from lengthwise.model.networks import find_builder
    from lengthwise.model.prediction import use_one_thread

    use_one_thread()
    if build_model is not None:
        find_builder(build_model)
    return load_run(run, checkpoint=checkpoint)


def _as_planned(said: Mapping[str, Any], planned: SourceOptions | None) -> SourceOptions:
    """How files are read, with what is not said taken from the plan, except for the format: new
    rows often come in another.
    """
    planned = planned or SourceOptions()
    return replace(
        planned,
        **{"format": None, **said},
        types={**planned.types, **said.get("types", {})},
        shapes={**planned.shapes, **said.get("shapes", {})},
    )


def _open_files(
    inputs: Sequence[str], features: Sequence[Feature], reading: SourceOptions
) -> tuple[SourceOptions, tuple[SourceFile, ...]]:
    """The input files in the order of their names, and how they are read.

    Formats that leave it open are told what the model takes; what the user says comes first.
    """
    types = {}
    for feature in features:
        if feature.encoding != NUMBERS:
            types[feature.name] = "string"
        elif feature.dtype == "float32":
            types[feature.name] = "float"
    reading = replace(
        reading,
        types={**types, **reading.types},
        sequences=tuple(feature.name for feature in features if feature.sequence),
        contexts=tuple(feature.name for feature in features if not feature.sequence),
    )
    found = find_files(inputs, reading)
    files = agree_on_columns([open_file(file, reading) for file in found])
    shapes = {
        feature.name: feature.shape
        for feature in features
        if feature.shape and any(_leaves_shape_open(file, feature) for file in files)
    }
    if shapes.keys() - reading.shapes.keys():
        reading = replace(reading, shapes={**shapes, **reading.shapes})
        files = agree_on_columns([open_file(file, reading) for file in found])
    for file in files:
        _check_columns(file, features)
    return reading, files


def _leaves_shape_open(file: SourceFile, feature: Feature) -> bool:
    """Whether the file has lists of any length where the model takes vectors."""
    if file.columns.names.count(feature.name) != 1:
        return False
    depth, _ = nested_lists(file.columns.field(feature.name).type)
    return depth == len(feature.shape) + feature.sequence


def _check_columns(file: SourceFile, features: Sequence[Feature]) -> None:
    """Raises SchemaError where the file lacks a column, or has it with another type."""
    place = file.file.path
    for feature in features:
        if file.columns.names.count(feature.name) != 1:
            many = "more than one" if feature.name in file.columns.names else "no"
            raise SchemaError(
                f"{place}: {many} column '{feature.name}', which the model takes as "
                f"{feature.describe()}; columns are: {', '.join(file.columns.names)}"
            )
        column = file.columns.field(feature.name)
        if feature_from_arrow(column, label=False, place=place) != feature:
            raise SchemaError(
                f"{place}: column '{feature.name}' is {column.type}, the model takes "
                f"{feature.describe()}"
            )


def _check_output(output: StoragePath) -> None:
    """Raises OutputError unless the file can be made, or holds predictions that may be replaced."""
    if isinstance(output, Path):
        if not output.parent.is_dir():
            raise OutputError(f"{output}: the folder {output.parent} does not exist")
        if not os.access(output.parent, os.W_OK):
            raise OutputError(f"{output}: the folder {output.parent} cannot be written to")
    if not output.exists():
        return
    try:
        with output.open("rb") as file:
            ours = METADATA in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        ours = False
    if not ours:
        raise OutputError(
            f"{output}: is there already and holds no predictions; choose another --output, or "
            "remove it first"
        )


def _write_part(path: StoragePath, table: pa.Table) -> None:
    with written_whole(path) as unfinished:
        with pa.ipc.new_file(str(unfinished), table.schema) as writer:
            writer.write_table(table)


def _write_output(output: StoragePath, units: int, job: PredictJob, empty: pa.Table) -> None:
    """Joins the parts of all units into one file, whole or not at all."""
    parts = (
        pa.ipc.open_file(mapped(unit_rows_path(job.staging, number))).read_all()
        for number in range(units)
    )
    try:
        with written_whole(output) as unfinished, open(unfinished, "wb") as file:
            write_row_groups(file, empty.schema, parts, rows=_ROW_GROUP_ROWS, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(output.parent)
    except OSError as reason:
        raise OutputError(f"{output}: cannot be written: {reason.strerror or reason}") from None
