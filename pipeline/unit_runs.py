"""Runs a job over the units of an input, and takes up one that was killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam

from lengthwise.pipeline.progress import Progress, count_reports, watched
from lengthwise.pipeline.runners import Execution, run_pipeline
from lengthwise.pipeline.sources import Unit
from lengthwise.pipeline.staging import unit_report_path, unstaged
from lengthwise.pipeline.versions import CheckVersions


def run_units(
    units: Sequence[Unit],
    process: Callable[[tuple[int, Unit], Any], None],
    job: Any,
    execution: Execution,
    progress: Progress | None,
    *,
    step: str,
    title: str,
) -> None:
    """Processes all units that have no report yet.

    Args:
        units: all of them.
        process: takes a unit with its number, and the job; leaves rows and a report in the staging
            folder.
        job: what `process` needs; its `staging` is the folder.
        execution: where to run.
        progress: what shows progress; None shows nothing.
        step: name of the step of the pipeline.
        title: of the progress.
    """
    waiting = unstaged(job.staging, units)
    if not waiting:
        return

    def construct(pipeline: beam.Pipeline) -> None:
        _ = (
            pipeline
            | "ListUnits" >> beam.Create(waiting)
            | "SpreadUnits" >> beam.Reshuffle()
            | "CheckVersions" >> CheckVersions()
            | step >> beam.Map(process, job)
        )

    reports = unit_report_path(job.staging, 0).parent
    with watched(progress, title, len(units), lambda: count_reports(reports)):
        run_pipeline(construct, execution)
