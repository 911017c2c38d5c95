"""The build job: from ragged rows to a committed dataset."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

from lengthwise.dataset.errors import InputError, OutputError, PlanError, SchemaError, UsageError
from lengthwise.dataset.manifest import MANIFEST_VERSION, MAX_SHARDS, STAGING_NAME, Manifest
from lengthwise.dataset.options import PlanOptions
from lengthwise.dataset.plan import FeatureStatistics, Plan
from lengthwise.dataset.shard import Shard
from lengthwise.dataset.storage import RemotePath, StoragePath, absolute_path
from lengthwise.pipeline.commit import claim_output, commit, release_output, text_crc32c
from lengthwise.pipeline.exchange import (
    DATA,
    ExchangeJob,
    exchange,
    finished_shards,
    written_shards,
)
from lengthwise.pipeline.ingest import IngestJob
from lengthwise.pipeline.inputs import FeatureNames, Input, open_input
from lengthwise.pipeline.planning import Findings, ingest, plan_of, statistics_of
from lengthwise.pipeline.progress import Progress, count_reports, watched
from lengthwise.pipeline.runners import Execution, run_pipeline
from lengthwise.pipeline.sources import SourceOptions, status_of
from lengthwise.pipeline.staging import open_staging, shards_folder
from lengthwise.pipeline.versions import WorkerError

# Options that staged rows do not depend on.
_LATER = frozenset(
    ("num_buckets", "strategy", "boundaries", "align", "shard_size", "padding", "pad_value")
    + ("vocab_size", "min_count", "canonical", "compression")
)


def build(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    names: FeatureNames | None = None,
    options: PlanOptions | None = None,
    plan: Plan | None = None,
    vocabularies: Mapping[str, Sequence[str]] | None = None,
    reading: SourceOptions | None = None,
    execution: Execution | None = None,
    batch_rows: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Builds a dataset, or takes up a build that was killed.

    Args:
        inputs: files, globs, folders or URLs; `SPLIT=PATH` puts rows into a given split.
        out: the dataset folder, or its URL in an object store. A dataset that is there stays whole
            until the new one is.
        names: which columns are sequences, labels and context; None takes all list columns.
        options: how to plan; not together with `plan`.
        plan: a plan made before of the same input.
        vocabularies: feature -> its strings in the order of their ids; others are counted.
        reading: how the files are read; None reads them as the plan says, or else tells the format
            of each from the file.
        execution: where to run; None runs in this process.
        batch_rows: rows of a reading batch, None for about four MiB; never changes the result.
        progress: what shows progress; None shows nothing.

    Returns:
        The manifest of the new dataset.

    Raises:
        LengthwiseError: of the kind that fits; nothing is left behind of a build whose input is at
            fault, and an old dataset stays as it was.

    Example:
        >>> import tempfile
        >>> import pyarrow as pa, pyarrow.parquet as pq
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pq.write_table(pa.table({"tokens": [[1, 2], [3]]}), f"{folder}/in.parquet")
        ...     manifest = build([f"{folder}/in.parquet"], f"{folder}/out")
        ...     manifest.records("train"), manifest.max_lengths
        (2, (8,))
    """
    inputs = [os.fspath(path) for path in inputs]
    if not os.fspath(out).strip():
        raise UsageError("OUT is empty; name the dataset folder")
    execution = execution or Execution()
    execution.check()
    require_one_of(plan, names, options, vocabularies)
    if plan is not None:
        reading = plan.reading if reading is None else reading.agreed_with(plan.reading)
    wanted = plan.options if plan is not None else options or PlanOptions()
    features = names or FeatureNames() if plan is None else plan.schema
    source = open_input(
        inputs,
        features,
        reading,
        element_mask=wanted.element_mask,
        planned=None if plan is None else plan.reading,
    )
    target = absolute_path(out)
    if plan is None:
        source.check_drawn(wanted)
    job = source.job(
        wanted, target / STAGING_NAME, vocabularies=vocabularies, batch_rows=batch_rows
    )
    given = vocabularies if plan is None else plan.vocabularies
    identity = _identity(source, job)

    def gather(job: IngestJob) -> Findings:
        findings = ingest(source, job, execution, given=given, progress=progress)
        _require_unchanged(source, identity["files"])
        return findings

    return run_build(
        target,
        job,
        gather,
        plan=plan,
        reading=source.reading.planned,
        identity=identity,
        execution=execution,
        progress=progress,
    )


def require_one_of(plan: Plan | None, *planned: object) -> None:
    """Raises PlanError where a plan comes with what it holds already."""
    if plan is not None and any(given is not None for given in planned):
        raise PlanError(
            "a plan holds the features, the options and the vocabularies: give either it or them"
        )


def run_build(
    out: StoragePath,
    job: IngestJob,
    gather: Callable[[IngestJob], Findings],
    *,
    plan: Plan | None,
    reading: SourceOptions | None,
    identity: Mapping[str, Any],
    execution: Execution,
    progress: Progress | None,
    resumes: bool = True,
) -> Manifest:
    """Gathers rows in the staging folder, plans, writes shards and commits them.

    Args:
        out: the dataset folder.
        job: how rows are ingested; where they are staged is decided here.
        gather: ingests them; called once the folder is ours.
        plan: to follow; None makes one.
        reading: what a plan that is made says of how files are read.
        identity: what the staged rows depend on.
        execution: where to run.
        progress: what shows progress; None shows nothing.
        resumes: whether a build that stops half-way leaves what it has for the next one.

    Raises:
        LengthwiseError: of the kind that fits, as for `build`.
    """
    was_made = claim_output(out)
    staging = None
    try:
        staging = open_staging(out / STAGING_NAME, identity)
        job = replace(job, staging=str(staging.folder))
        findings = gather(job)
        if plan is None:
            plan = plan_of(job.schema, job.options, findings, reading)
        else:
            _require_fit(plan, findings)
        manifest = _write(plan, job, findings, out, execution, progress, staging.confirm)
    except (InputError, SchemaError, PlanError, UsageError):
        # The input is at fault: running again would only meet the same fault.
        if staging is not None:
            staging.remove()
        release_output(out, was_made=was_made)
        raise
    except BaseException as reason:
        if staging is not None:
            # Workers that cannot begin have left nothing to go on with.
            in_vain = isinstance(reason, WorkerError) and staging.is_new
            staging.close() if resumes and not in_vain else staging.remove()
        release_output(out, was_made=was_made)
        raise
    staging.remove()
    return manifest


def _write(
    plan: Plan,
    job: IngestJob,
    findings: Findings,
    out: StoragePath,
    execution: Execution,
    progress: Progress | None,
    confirm: Callable[[], None],
) -> Manifest:
    plan_text = plan.dumps()
    exchange_job = ExchangeJob(
        plan=plan,
        counts=plan.shard_counts(),
        storage=job.storage,
        staging=job.staging,
        shards=shards_folder(job.staging, _hash(plan_text)),
        exchange=execution.chosen_exchange,
    )
    if len(exchange_job.keys) > MAX_SHARDS:
        raise OutputError(
            f"{out}: {len(exchange_job.keys):,} shards are more than the {MAX_SHARDS:,} that a "
            "manifest has room for; run the same command with a larger --shard-size"
        )
    finished = finished_shards(exchange_job)
    exchange_job = replace(exchange_job, finished=frozenset(finished))
    _require_space(out, plan, finished.values())
    units, total = findings.units, sum(exchange_job.counts.values())
    with watched(progress, "writing shards", total, lambda: count_reports(exchange_job.shards)):
        run_pipeline(lambda pipeline: exchange(pipeline, units, exchange_job), execution)
    shards = written_shards(exchange_job)
    records = dict.fromkeys(findings.tallies, 0)
    for shard in shards:
        records[shard.split] += shard.records
    manifest = Manifest(
        root=out,
        fingerprint=_hash(plan_text, *(f"{shard.name} {shard.crc32c}" for shard in shards)),
        created_by=f"lengthwise {metadata.version('lengthwise')}",
        schema=plan.schema,
        seed=plan.options.seed,
        max_lengths=plan.max_lengths,
        widths=plan.widths,
        shards=shards,
        accounts={
            split: tally.account(records[split]) for split, tally in findings.tallies.items()
        },
        plan_crc32c=text_crc32c(plan_text),
        canonical=plan.options.canonical,
        compression=plan.options.compression,
        padding=plan.options.padding,
    )
    commit(manifest, plan, exchange_job.shards / DATA, findings.rejected, confirm=confirm)
    return manifest


def _require_space(out: StoragePath, plan: Plan, finished: Iterable[Shard]) -> None:
    """Refuses before the first shard what cannot fit, as sizes are known to the byte."""
    if isinstance(out, RemotePath):
        return  # an object store has no end
    if plan.options.canonical or plan.options.compression != "none":
        return  # how much that takes is known once it is written
    needed = sum(
        rows * plan.layout(max_length).stride
        for split in plan.histograms
        for max_length, rows in plan.bucket_rows(split).items()
    )
    needed -= sum(shard.nbytes for shard in finished)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise OutputError(
            f"{out}: the shards take {needed:,} bytes, {free:,} are free; make room and run the "
            "same command again, or plan more buckets or a smaller --max-length"
        )


def _identity(source: Input, job: IngestJob) -> dict[str, Any]:
    """What staged rows depend on, so that no build takes up the rows of another."""
    return {
        "version": metadata.version("lengthwise"),
        "schema": source.schema.to_json(),
        "storage": job.storage,
        "reading": dataclasses.asdict(source.reading),
        "options": {
            name: value for name, value in job.options.to_json().items() if name not in _LATER
        },
        "files": _states(source),
        "contents": [file.identity for file in source.files],
    }


def _states(source: Input) -> list[list[Any]]:
    """Path, split, size and time of change of each file."""
    return [[file.file.path, file.file.split, *status_of(file.file.path)] for file in source.files]


def _require_unchanged(source: Input, before: list[list[Any]]) -> None:
    """Raises InputError where a file was changed since it was looked at."""
    for then, now in zip(before, _states(source), strict=True):
        if then != now:
            raise InputError(f"{now[0]}: was changed while it was read; run the same command again")


def _hash(*texts: str) -> str:
    """16 hex digits of texts: of the plan for what is staged, of plan and shards for a dataset.

    A dataset is named by its content, so another content never gets into its folder.
    """
    text = json.dumps([MANIFEST_VERSION, *texts])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _require_fit(plan: Plan, findings: Findings) -> None:
    """Raises PlanError where the input is not the one that the plan was made of."""
    for split in sorted({*plan.histograms, *findings.histograms}):
        mine, theirs = plan.histograms.get(split, {}), findings.histograms.get(split, {})
        if mine != theirs:
            raise PlanError(
                f"the plan is of another input: in split '{split}' it knows "
                f"{sum(mine.values())} rows, the input has {sum(theirs.values())}, or their "
                "lengths differ; plan again"
            )
    for feature in plan.schema.features:
        mine = _without_ids(plan.statistics[feature.name])
        if mine != _without_ids(statistics_of(feature, findings, plan.options)):
            raise PlanError(
                f"the plan is of another input: feature '{feature.name}' has other values; plan "
                "again"
            )


def _without_ids(found: FeatureStatistics) -> tuple[FeatureStatistics, list[int]]:
    """Statistics, and how often each value came: classes may be numbered otherwise by hand."""
    return replace(found, values=None), sorted((found.values or {}).values())
