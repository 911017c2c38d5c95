"""The report of a unit: what ingesting it found, small enough to travel and to keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lengthwise.pipeline.accounts import Tally
from lengthwise.transforms.statistics import Summary


@dataclass
class UnitReport:
    """What ingesting a unit found.

    Attributes:
        tallies: split -> counts of rows.
        splits: names of splits; chunks refer to their positions.
        faults: (row number in the file, reason) of the first rejected rows.
        histograms: split -> length -> rows passed on.
        summaries: feature -> summary.
        channels: feature whose constants the plan needs -> a summary for each value of a step, of
            rows of the training split.
        chunks: for each chunk of packed rows, [(position of the split, length, rows), …].
        error: why the unit could not be read at all.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    splits: list[str] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    histograms: dict[str, dict[int, int]] = field(default_factory=dict)
    summaries: dict[str, Summary] = field(default_factory=dict)
    channels: dict[str, list[Summary]] = field(default_factory=dict)
    chunks: list[list[tuple[int, int, int]]] = field(default_factory=list)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "tallies": {split: tally.to_json() for split, tally in self.tallies.items()},
            "splits": self.splits,
            "faults": self.faults,
            "histograms": self.histograms,
            "summaries": {name: summary.to_json() for name, summary in self.summaries.items()},
            "channels": {
                name: [summary.to_json() for summary in summaries]
                for name, summaries in self.channels.items()
            },
            "chunks": self.chunks,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> UnitReport:
        return cls(
            tallies={split: Tally(**tally) for split, tally in document["tallies"].items()},
            splits=document["splits"],
            faults=[tuple(fault) for fault in document["faults"]],
            histograms={
                split: {int(length): rows for length, rows in histogram.items()}
                for split, histogram in document["histograms"].items()
            },
            summaries={
                name: Summary.from_json(summary) for name, summary in document["summaries"].items()
            },
            channels={
                name: [Summary.from_json(summary) for summary in summaries]
                for name, summaries in document["channels"].items()
            },
            chunks=[[tuple(run) for run in chunk] for chunk in document["chunks"]],
            error=document["error"],
        )
