"""Measures rows that are passed on: lengths and values, split by split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lengthwise.dataset.options import PlanOptions
from lengthwise.dataset.schema import Schema
from lengthwise.pipeline.splitting import training_rows
from lengthwise.pipeline.unit_report import UnitReport
from lengthwise.transforms.ragged import RaggedRows
from lengthwise.transforms.statistics import Summary, summarize

if TYPE_CHECKING:
    from lengthwise.pipeline.ingest import IngestJob


def measure(
    rows: RaggedRows, splits: np.ndarray, job: IngestJob, report: UnitReport
) -> list[tuple[int, int, int]]:
    """Adds rows to the statistics; returns the runs of (split, length, rows) when sorted."""
    combined = splits.astype(np.int64) << 32 | rows.lengths
    distinct, counts = np.unique(combined, return_counts=True)
    of_run = (distinct >> 32, distinct & 0xFFFFFFFF, counts)
    runs = list(zip(*(values.tolist() for values in of_run), strict=True))
    for split, length, n in runs:
        histogram = report.histograms.setdefault(report.splits[split], {})
        histogram[length] = histogram.get(length, 0) + n
    ones = np.ones(len(rows), np.int64)
    for feature in job.schema.features:
        if feature.sequence:
            values, lengths = rows.values[feature.name], rows.lengths
            observed = rows.observed_of(feature.name)
        else:
            values, lengths, observed = rows.contexts[feature.name], ones, None
        summary = summarize(values, lengths, feature, observed)
        previous = report.summaries.get(feature.name, Summary())
        report.summaries[feature.name] = previous.merged(summary)
    return runs


def measure_channels(
    rows: RaggedRows, splits: np.ndarray, job: IngestJob, report: UnitReport
) -> None:
    """Measures each value of a step by itself, for features whose constants the plan needs."""
    names = channel_features(job.schema, job.options)
    if not names:
        return
    training = training_rows(splits, job, report)
    if not training.all():
        rows = rows.select(np.flatnonzero(training))
    if len(rows) == 0:
        return
    for name in names:
        feature = job.schema[name]
        channel = feature.channel
        flat = rows.values[name].reshape(-1, feature.size)
        # Of each element, or the same of all elements of a step.
        observed = None if rows.observed_of(name) is None else rows.elements_of(name)
        observed = None if observed is None else observed.reshape(-1, feature.size)
        previous = report.channels.get(name, [Summary()] * feature.size)
        report.channels[name] = [
            previous[i].merged(
                summarize(
                    np.ascontiguousarray(flat[:, i]),
                    rows.lengths,
                    channel,
                    None if observed is None else observed[:, i],
                )
            )
            for i in range(feature.size)
        ]


def channel_features(schema: Schema, options: PlanOptions) -> list[str]:
    """Features that are to be normalised, or filled by their mean."""
    filled = [
        feature.name
        for feature in schema.sequences
        if options.fill == "mean" and feature.dtype == "float32" and not feature.label
    ]
    return sorted({*options.normalize, *filled})
