"""Compares programs by what they cost: in processes of their own, one after the other, in rounds.

A *side* is a contender. In each round every side runs once, A B A B …, so that whatever slows the
machine down for a while hits all of them. A side that starts up slowly runs at two sizes, and its
cost is the slope

    (CPU seconds at the large size - CPU seconds at the small size) / (large rows - small rows)

so start-up cancels. The ratio of two sides is taken within each round; what counts is the median of
the ratios and their range. The figures of each side alone belong to the machine and the day.

    ours = Side("ours", small=Task(("python", "ours.py", "1000"), rows=1_000),
                        large=Task(("python", "ours.py", "9000"), rows=9_000))
    comparison = compare([theirs, ours], CPU_PER_ROW, rounds=5)
    print_comparison(comparison)

A task may report figures of its own, say the sequences/s of a loop inside it; `own("name", …)` is
the metric of one. `process_usage.py` says what is measured and how to make a task of a function.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from process_usage import SINGLE_THREAD, Task, Usage, pinned_to, run
from rich.console import Console
from rich.table import Table

Pair = tuple[Usage, Usage | None]


@dataclass(frozen=True)
class Side:
    """A contender; without a `small` task its start-up counts."""

    name: str
    large: Task
    small: Task | None = None


@dataclass(frozen=True)
class Metric:
    """A figure of one side in one round, from its usage at the large and at the small size."""

    name: str
    of: Callable[[Usage, Usage | None], float]
    higher_is_better: bool = False


def own(name: str, *, higher_is_better: bool) -> Metric:
    """A figure that the large task of a side reports itself."""
    return Metric(name, lambda large, _: float(large.own[name]), higher_is_better)


def _per_row(seconds: Callable[[Usage], float]) -> Callable[[Usage, Usage | None], float]:
    def microseconds(large: Usage, small: Usage | None) -> float:
        if small is None:
            return seconds(large) / large.rows * 1e6
        return (seconds(large) - seconds(small)) / (large.rows - small.rows) * 1e6

    return microseconds


CPU_PER_ROW = Metric("CPU µs per row", _per_row(lambda usage: usage.cpu_seconds))
USER_PER_ROW = Metric("user CPU µs per row", _per_row(lambda usage: usage.user_seconds))
WALL_PER_ROW = Metric("wall µs per row", _per_row(lambda usage: usage.wall_seconds))


@dataclass(frozen=True)
class Comparison:
    """Usage of every side in every round as (large, small); the first side is the baseline."""

    metric: Metric
    runs: Mapping[str, Sequence[Pair]]

    @property
    def baseline(self) -> str:
        return next(iter(self.runs))

    def values(self, side: str) -> list[float]:
        """The metric, by round."""
        return [self.metric.of(large, small) for large, small in self.runs[side]]

    def ratios(self, side: str) -> list[float]:
        """How many times better a side is than the baseline, by round."""
        pairs = zip(self.values(side), self.values(self.baseline), strict=True)
        if self.metric.higher_is_better:
            return [value / baseline for value, baseline in pairs]
        return [baseline / value for value, baseline in pairs]

    def by(self, metric: Metric) -> Comparison:
        """The same runs, compared by something else."""
        return replace(self, metric=metric)

    def to_json(self) -> dict[str, Any]:
        """Everything down to the single runs, and what they ran on."""
        return {
            "metric": self.metric.name,
            "machine": {
                "platform": platform.platform(),
                "processor": _processor(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
            },
            "baseline": self.baseline,
            "sides": {
                side: {
                    "ratios": self.ratios(side),
                    "values": self.values(side),
                    "runs": [
                        {"large": asdict(large), "small": asdict(small) if small else None}
                        for large, small in rounds
                    ],
                }
                for side, rounds in self.runs.items()
            },
        }


def comparison_parser(
    description: str, kinds: Sequence[str], *, rounds: int = 5
) -> argparse.ArgumentParser:
    """The options of a program that compares the same sides over several kinds of data."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.set_defaults(kinds=tuple(kinds))
    parser.add_argument("--kind", choices=[*kinds, "both"], default="both")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--core", type=_core, default=0, help="pin to it; -1: do not pin")
    parser.add_argument("--folder", type=Path, help="keeps inputs and outputs [a temporary one]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run, for other programs")
    return parser


def compare_kinds(
    options: argparse.Namespace, measure: Callable[[str, Path], Comparison | None]
) -> None:
    """Compares over each kind of data that is asked for, and writes the JSON file if one is.

    Args:
        options: of a `comparison_parser`.
        measure: takes a kind and the folder, measures and prints; None if that gave no figures.
    """
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for kind in options.kinds if options.kind == "both" else [options.kind]:
            comparison = measure(kind, folder)
            if comparison is not None:
                results[kind] = comparison.to_json()
    if options.json and results:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def compare(
    sides: Sequence[Side],
    metric: Metric,
    *,
    rounds: int = 5,
    core: int | None = None,
    environment: Mapping[str, str] = SINGLE_THREAD,
) -> Comparison:
    """Runs all sides in rounds, after a warm-up of each side's smallest task.

    Args:
        sides: the contenders, the baseline first.
        metric: what they are compared by.
        rounds: measured rounds.
        core: processor core that everything is pinned to; None leaves it to the system.
        environment: variables set for the tasks; by default those that ask for single threads.
    """
    runs: dict[str, list[Pair]] = {side.name: [] for side in sides}
    with pinned_to(core):
        for side in sides:
            run(side.small or side.large, environment=environment)
        for number in range(1, rounds + 1):
            for side in sides:
                small = run(side.small, environment=environment) if side.small else None
                large = run(side.large, environment=environment)
                runs[side.name].append((large, small))
                value = metric.of(large, small)
                print(f"round {number}: {side.name}: {value:,.2f} {metric.name}", flush=True)
    return Comparison(metric, runs)


def print_comparison(comparison: Comparison, *, title: str | None = None) -> None:
    """Prints medians as a table, with the smallest and the largest of the rounds beside them."""
    table = Table(title=title, title_justify="left")
    table.add_column("side")
    for heading in (
        comparison.metric.name,
        f"times better than {comparison.baseline}",
        "largest process",
    ):
        table.add_column(heading, justify="right")
    for side, rounds in comparison.runs.items():
        peak = statistics.median(large.peak_rss for large, _ in rounds)
        ratios = "" if side == comparison.baseline else spread(comparison.ratios(side))
        table.add_row(side, spread(comparison.values(side)), ratios, f"{peak / 2**20:,.0f} MiB")
    console = Console()
    # A log has no width of its own; rich would take 80 columns and fold the figures.
    (console if console.is_terminal else Console(width=110)).print(table)


def spread(values: Sequence[float]) -> str:
    """Median, smallest and largest as text.

    Example:
        >>> spread([3.0, 1.0, 2.0])
        '2.00 (1.00–3.00)'
    """
    return f"{statistics.median(values):,.2f} ({min(values):,.2f}–{max(values):,.2f})"


def _core(number: str) -> int | None:
    return None if int(number) < 0 else int(number)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
