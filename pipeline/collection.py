"""The input as a PCollection of Arrow record batches: from any pipeline, of any origin.

A PCollection has no order, and a runner cuts it as it likes. So a column tells rows apart, the key,
which stands in for the file and the row number of other inputs: split, shard and order of a row
follow from its key alone, and the same rows give the same bytes however they come.

    batches ──▶ gathered to units of 32 MiB ──▶ ingested like units of files ──▶ units/…
                         each leaves its keys, sorted ──▶ compared: no key comes twice
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows

from lengthwise.dataset.errors import InputError, OutputError, UsageError
from lengthwise.dataset.manifest import STAGING_NAME, Manifest
from lengthwise.dataset.options import PlanOptions
from lengthwise.dataset.plan import Plan
from lengthwise.dataset.reading import SourceOptions
from lengthwise.dataset.storage import (
    StoragePath,
    absolute_path,
    rename,
    storage_path,
    written_whole,
)
from lengthwise.pipeline.building import require_one_of, run_build
from lengthwise.pipeline.collected_keys import (
    PLACE,
    UnitKeys,
    check_key,
    named_by,
    require_distinct,
)
from lengthwise.pipeline.ingest import IngestJob, ingest_batches
from lengthwise.pipeline.inputs import FeatureNames, input_of
from lengthwise.pipeline.planning import Findings, merged_findings
from lengthwise.pipeline.progress import Progress
from lengthwise.pipeline.rejected import listed_rows
from lengthwise.pipeline.runners import Execution, one_line_errors, run_pipeline
from lengthwise.pipeline.sources import InputFile, SourceBatch, SourceFile, Unit
from lengthwise.pipeline.sources.fitting import fit_rows, plain_columns
from lengthwise.pipeline.sources.source import BATCH_BYTES
from lengthwise.pipeline.staging import IDENTITY_NAME
from lengthwise.pipeline.versions import CheckVersions

_LIST_NAME = "collected.list"


def build_from(
    source: beam.PCollection | beam.PTransform,
    out: str | os.PathLike[str],
    *,
    columns: pa.Schema,
    key: str,
    names: FeatureNames | None = None,
    options: PlanOptions | None = None,
    plan: Plan | None = None,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    execution: Execution | None = None,
    unit_bytes: int = 32 << 20,
    progress: Progress | None = None,
) -> Manifest:
    """Builds a dataset of the rows of a PCollection.

    The same rows give the same bytes, in whatever batches, order and number of workers they come.
    A worker holds a unit and a batch in memory. A build that was killed begins again.

    Args:
        source: of `pa.RecordBatch` or `pa.Table`; a PTransform that makes them in a pipeline, which
            `execution` runs, or a PCollection, whose pipeline is run here as it was made: make that
            without `with`, which would run it a second time.
        out: the dataset folder, or its URL, which all workers can write to. A dataset that is there
            stays whole until the new one is.
        columns: Arrow schema of the batches; other columns of theirs are left out.
        key: the column that tells rows apart, of integers, strings or bytes; no value comes twice.
        names: which columns are sequences, labels and context; None takes all list columns.
        options: how to plan; not together with `plan`.
        plan: a plan made before of the same rows.
        vocabularies: feature -> its strings in the order of their ids; others are counted.
        execution: where to run; None runs in this process.
        unit_bytes: of rows that are gathered before they are written; never changes the result.
        progress: what shows progress; None shows nothing.

    Returns:
        The manifest of the new dataset.

    Raises:
        LengthwiseError: of the kind that fits, as for `build`; a key that is null or comes twice is
            an InputError.
        Exception: what the source itself raises.

    Example:
        >>> import tempfile
        >>> table = pa.table({"id": [7, 3, 5], "tokens": [[1, 2], [3], [4, 5, 6]]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = build_from(
        ...         beam.Create(table.to_batches(max_chunksize=2)),
        ...         f"{folder}/out",
        ...         columns=table.schema,
        ...         key="id",
        ...         names=FeatureNames(sequences=("tokens",)),
        ...     )
        ...     manifest.records("train"), manifest.max_lengths
        (3, (8,))
    """
    if not os.fspath(out).strip():
        raise UsageError("OUT is empty; name the dataset folder")
    if not isinstance(source, (beam.PCollection, beam.PTransform)):
        raise UsageError(
            f"the source is a {type(source).__name__}; give a PCollection of record batches, or a "
            "PTransform that makes one"
        )
    execution = execution or Execution()
    execution.check()
    require_one_of(plan, names, options, vocabularies)
    check_key(columns, key)
    wanted = plan.options if plan is not None else options or PlanOptions()
    file = SourceFile(
        InputFile(PLACE, key), "collection", plain_columns(columns, {}), (), identity=0
    )
    looked_at = input_of(
        (file,),
        names or FeatureNames() if plan is None else plan.schema,
        SourceOptions(),
        element_mask=wanted.element_mask,
    )
    target = absolute_path(out)
    job = looked_at.job(wanted, target / STAGING_NAME, vocabularies=vocabularies, also=(key,))
    run = uuid.uuid4().hex
    given = vocabularies if plan is None else plan.vocabularies

    def gather(job: IngestJob) -> Findings:
        stage = StageRows(job, key, run=run, unit_bytes=unit_bytes)
        if isinstance(source, beam.PTransform):
            made = "Source" >> source
            run_pipeline(lambda pipeline: pipeline | made | "StageRows" >> stage, execution)
        else:
            with one_line_errors():
                _ = source | "StageRowsOfDataset" >> stage
                source.pipeline.run().wait_until_finish()
        units = _number_units(storage_path(job.staging))
        if units == 0:
            raise InputError(f"{PLACE}: has no rows")
        named = named_by(job, key)

        def place_of(unit: int, number: int) -> str:
            return f"{named(unit, np.array([number]))[0][0]}: row 0"

        def listed(units: Sequence[int]) -> Iterator[pa.Table]:
            return listed_rows(job.staging, units, named)

        findings = merged_findings(job, units, place_of, listed, given=given)
        require_distinct(job, key, units)
        return findings

    return run_build(
        target,
        job,
        gather,
        plan=plan,
        reading=None,
        identity={"collection": run},
        resumes=False,
        execution=execution,
        progress=progress,
    )


class StageRows(beam.PTransform):
    """Leaves rows in the staging folder, in units, and a list of the units.

    Args:
        job: schema, options and staging folder.
        key: the column that tells rows apart.
        run: of the build that the staging folder belongs to.
        unit_bytes: of the rows of a unit, before they are packed.
    """

    def __init__(self, job: IngestJob, key: str, *, run: str, unit_bytes: int) -> None:
        super().__init__()
        self._job = job
        self._units = _StageUnits(job, key, run, unit_bytes)

    def expand(self, input_or_inputs: Any) -> Any:
        return (
            input_or_inputs
            | "OneWindow" >> beam.WindowInto(GlobalWindows())
            | "CheckVersions" >> CheckVersions()
            | "StageUnits" >> beam.ParDo(self._units)
            # What a failed and repeated bundle has left behind is in no list.
            | "GatherUnits" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
            | "ListUnits" >> beam.Map(_list_units, self._job.staging)
        )


class _StageUnits(beam.DoFn):
    def __init__(self, job: IngestJob, key: str, run: str, unit_bytes: int) -> None:
        self._job, self._key, self._run, self._unit_bytes = job, key, run, unit_bytes
        self._waiting: list[Any] = []
        self._nbytes = 0

    def start_bundle(self) -> None:
        _require_run(self._job, self._run)
        self._waiting, self._nbytes = [], 0

    def process(self, element: pa.RecordBatch | pa.Table) -> Iterator[int]:
        self._waiting.append(element)
        self._nbytes += getattr(element, "nbytes", 0)
        # A bundle may be all that a worker ever gets.
        if self._nbytes >= self._unit_bytes:
            yield self._stage()

    def finish_bundle(self) -> Any:
        if self._waiting:
            yield GlobalWindows.windowed_value(self._stage())

    def _stage(self) -> int:
        elements, self._waiting, self._nbytes = self._waiting, [], 0
        number = uuid.uuid4().int >> 65
        unit = Unit(InputFile(PLACE, self._key), "collection", 0, None, 0, 0, 0)
        keys = UnitKeys(self._job, self._key)
        ingest_batches(number, unit, _rows_of(elements, self._job, keys), self._job)
        keys.write(number)
        return number


def _require_run(job: IngestJob, run: str) -> None:
    """Raises OutputError unless the staging folder is that of this build."""
    try:
        ours = run in (storage_path(job.staging) / IDENTITY_NAME).read_text(encoding="utf-8")
    except OSError:
        ours = False
    if not ours:
        raise OutputError(
            f"{job.staging}: the pipeline ran again after its build had ended; build_from runs it, "
            "so make it without `with`, and once for each build"
        )


def _rows_of(elements: list[Any], job: IngestJob, keys: UnitKeys) -> Iterator[SourceBatch]:
    """The rows in batches of a few MiB, whatever they came in, each in the order of its numbers."""
    batches = [_cast(batch, job.columns) for element in elements for batch in _batches_of(element)]
    table = pa.Table.from_batches(batches, job.columns)
    size = max(1, BATCH_BYTES * table.num_rows // max(1, table.nbytes))
    for start in range(0, table.num_rows, size):
        (rows,) = table.slice(start, size).combine_chunks().to_batches()
        numbers = keys.add(rows)
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows.take(pa.array(order)), numbers[order]
        yield fit_rows(rows, 0, numbers, job.columns, job.reading)


def _batches_of(element: Any) -> list[pa.RecordBatch]:
    if isinstance(element, pa.RecordBatch):
        return [element]
    if isinstance(element, pa.Table):
        return element.to_batches()
    raise InputError(
        f"{PLACE}: an element is a {type(element).__name__}, not a record batch or table of Arrow"
    )


def _cast(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for column in columns:
        at = batch.schema.get_field_index(column.name)
        if at < 0:
            raise InputError(
                f"{PLACE}: a batch has no column '{column.name}'; columns are: "
                f"{', '.join(batch.schema.names)}"
            )
        array = batch.column(at)
        try:
            arrays.append(array if array.type == column.type else array.cast(column.type))
        except (pa.ArrowException, ValueError):
            raise InputError(
                f"{PLACE}: a batch has column '{column.name}' as {array.type}, which is no "
                f"{column.type}, as was said"
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


def _list_units(numbers: Iterable[int], staging: str) -> None:
    with written_whole(storage_path(staging) / "units" / _LIST_NAME) as unfinished:
        unfinished.write_text(json.dumps(sorted(numbers)), encoding="ascii")


def _number_units(staging: StoragePath) -> int:
    """Numbers the units that are listed from 0 and deletes others; returns how many there are."""
    listed = staging / "units" / _LIST_NAME
    if not listed.is_file():
        raise OutputError(f"{staging.parent}: the pipeline has ended, and not staged its rows")
    numbers = {old: new for new, old in enumerate(json.loads(listed.read_text(encoding="ascii")))}
    listed.unlink()
    for path in list((staging / "units").iterdir()):
        match = re.match(r"\d+", path.name)
        if match is None or int(match[0]) not in numbers:
            path.unlink()
        else:
            number = numbers[int(match[0])]
            rename(path, path.with_name(f"{number:06d}{path.name[match.end() :]}"))
    return len(numbers)
