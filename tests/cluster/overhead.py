"""What Flink costs beside the local runner for the same build: CPU time and time on the clock.

Both sides take turns, at two sizes, after a first round that is not counted. Flink's CPU time is
that of the command, the JobManager, the TaskManagers, the pools with their workers and the job
server. The cost per row is the slope between the sizes, what is left is the cost of a job.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.jobs import Job, Runner, cpu_seconds, ragged_lengths, run, same, write_rows
from tests.cluster.page import replace_block
from tests.cluster.processes import NAMES, Cluster, ClusterError

_SIZES = (100_000, 1_600_000)
_ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """Seconds of one build."""

    cpu: float
    clock: float


def measure(cluster: Cluster) -> None:
    """Measures, prints the table, and puts it into docs/cluster.md."""
    folder = cluster.folder / "overhead"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for rows in _SIZES:
        write_rows(folder / f"{rows}.parquet", ragged_lengths(rows), groups=16)
    local = Runner("local")
    flink = Runner("Flink", ("--runner", "FlinkRunner"), tuple(cluster.beam_args))
    costs: dict[tuple[int, str], list[Cost]] = {}
    for number in range(_ROUNDS + 1):
        for rows in _SIZES:
            for runner in (local, flink):
                cost = _cost(_job(folder, rows, runner), runner, cluster)
                if number:
                    costs.setdefault((rows, runner.title), []).append(cost)
            if not same(_job(folder, rows, flink).output, _job(folder, rows, local).output):
                raise ClusterError(f"the builds of {rows} rows differ")
    text = _table(costs)
    print(text)
    replace_block("overhead", text)


def _job(folder: Path, rows: int, runner: Runner) -> Job:
    output = folder / f"{runner.title}-{rows}"
    size = ("--shard-size", "2000000")
    return Job(("build", str(folder / f"{rows}.parquet"), str(output), *size), output)


def _cost(job: Job, runner: Runner, cluster: Cluster) -> Cost:
    shutil.rmtree(job.output, ignore_errors=True)
    cpu, clock = _cpu(cluster), time.monotonic()
    run(job, runner)
    clock = time.monotonic() - clock
    return Cost(_cpu(cluster) - cpu, clock)


def _cpu(cluster: Cluster) -> float:
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    pids = [cluster.pid(name) for name in NAMES]
    return own.ru_utime + own.ru_stime + sum(cpu_seconds(pid) for pid in pids if pid)


def _table(costs: dict[tuple[int, str], list[Cost]]) -> str:
    lines = [
        f"Median of {_ROUNDS} rounds (range), {os.cpu_count()} cores, seconds:",
        "",
        "| | local, CPU | Flink, CPU | ratio of CPU | local, clock | Flink, clock |",
        "|---|---|---|---|---|---|",
    ]
    for rows in _SIZES:
        local, flink = costs[rows, "local"], costs[rows, "Flink"]
        ratios = [b.cpu / a.cpu for a, b in zip(local, flink, strict=True)]
        figures = [
            [cost.cpu for cost in local],
            [cost.cpu for cost in flink],
            ratios,
            [cost.clock for cost in local],
            [cost.clock for cost in flink],
        ]
        lines.append(f"| {rows:,} rows | {' | '.join(map(_spread, figures))} |")
    slopes = {}
    for title in ("local", "Flink"):
        small, large = (costs[rows, title] for rows in _SIZES)
        slopes[title] = [
            (b.cpu - a.cpu) / (_SIZES[1] - _SIZES[0]) * 1e6
            for a, b in zip(small, large, strict=True)
        ]
    ratios = [b / a for a, b in zip(slopes["local"], slopes["Flink"], strict=True)]
    lines.append(
        f"| each further row, µs | {_spread(slopes['local'])} | {_spread(slopes['Flink'])} | "
        f"{_spread(ratios)} | | |"
    )
    return "\n".join(lines)


def _spread(figures: Sequence[float]) -> str:
    middle, low, high = statistics.median(figures), min(figures), max(figures)
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"
