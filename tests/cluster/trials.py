"""What a runner has to show: plan, build, predict with the bytes of the local run; and faults."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.jobs import (
    Job,
    Runner,
    Running,
    ragged_lengths,
    run,
    same,
    skewed_lengths,
    write_rows,
    write_vowels,
)
from tests.cluster.processes import ClusterError

YES, NO = "yes", "**no**"
COMMAND_KILLED = "the command is killed"
SHARD_SIZE = 300_000
_ROWS, _GROUPS = 40_000, 16
_OPTIONS = ("--label", "label", "--split", "train=0.9,val=0.1")
_LOCAL = Runner("local")


@dataclass
class Row:
    """What a runner has shown: trial -> outcome."""

    title: str
    cells: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    remark: str = ""


class Trials:
    """Jobs whose outputs are known from the local runner in one process.

    Args:
        folder: for rows, datasets, logs and a record of what has passed.

    Attributes:
        failures: what went wrong, in one line each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failures: list[str] = []
        self._record = folder / "passed.json"
        if self._record.is_file():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_rows(folder / "rows.parquet", ragged_lengths(_ROWS), groups=_GROUPS)
        write_rows(folder / "skewed.parquet", skewed_lengths(_ROWS), groups=_GROUPS)
        write_vowels(folder / "vowels.parquet")
        self._train()
        for job in (self.plan(), self.build(), self.build("skewed"), self.predict()):
            run(job, _LOCAL)
            job.output.rename(self.reference(job))
        self._record.write_text("{}")

    def plan(self) -> Job:
        """Plans the rows."""
        output = self.folder / "plan.json"
        paths = (str(self.folder / "rows.parquet"), "-o", str(output))
        return Job(("plan", *paths, *_OPTIONS), output)

    def build(self, rows: str = "rows") -> Job:
        """Builds a dataset of the rows, or of the `skewed` ones."""
        output = self.folder / f"dataset-{rows}"
        paths = (str(self.folder / f"{rows}.parquet"), str(output))
        return Job(("build", *paths, *_OPTIONS, "--shard-size", str(SHARD_SIZE)), output)

    def predict(self) -> Job:
        """Predicts the rows of a real data set."""
        output = self.folder / "predictions.parquet"
        paths = (str(self.folder / "run"), str(self.folder / "vowels.parquet"), "-o", str(output))
        return Job(("predict", *paths), output)

    def row(self, runner: Runner, run: Callable[..., Running] = run) -> Row:
        """All commands on a runner, and what becomes of a build that is killed.

        Args:
            runner: where they run.
            run: runs a job on a runner with options, and raises ClusterError if it fails.
        """
        row = Row(runner.title)
        jobs = {
            "plan": (self.plan(), ()),
            "build (spill)": (self.build(), ("--exchange", "spill")),
            "build (engine)": (self.build(), ("--exchange", "engine")),
            "predict": (self.predict(), ()),
        }
        for name, (job, options) in jobs.items():

            def trial(job: Job = job, options: tuple[str, ...] = options) -> str:
                run(job, runner, *options)
                self.require_reference(job)
                return YES

            row.cells[name] = self.told(f"{runner.title}: {name}", trial)
        row.faults[COMMAND_KILLED] = self.told(
            f"{runner.title}: {COMMAND_KILLED}", lambda: self._killed_and_run_again(runner)
        )
        return row

    def told(self, name: str, trial: Callable[[], str]) -> str:
        """Runs a trial, prints how it went, and gives its outcome.

        A trial that this cluster has passed already is not run again, so that a test that was
        interrupted goes on.
        """
        passed = self._passed()
        if name in passed:
            print(f"{name}: {passed[name]} (before)", flush=True)
            return passed[name]
        started = time.monotonic()
        try:
            outcome = trial()
        except (ClusterError, OSError) as reason:  # OSError: Flink does not answer
            self.failures.append(f"{name}: {reason}")
            outcome = NO
        else:
            self._record.write_text(json.dumps({**self._passed(), name: outcome}, indent=1))
        print(f"{name}: {outcome} ({time.monotonic() - started:.0f} s)", flush=True)
        return outcome

    def _passed(self) -> dict[str, str]:
        return json.loads(self._record.read_text()) if self._record.is_file() else {}

    def in_the_middle(self, job: Job, runner: Runner, *options: str) -> tuple[Running, str]:
        """Starts a build and waits until a part of its shards is written; says how many."""
        total = sum(1 for _ in self.reference(job).rglob("*.tfrecord"))
        running = Running(job, runner, *options)
        return running, f"{running.wait_until_shards(total)} of {total} shards"

    def require_reference(self, job: Job) -> None:
        """Takes the output away; ClusterError unless it is, byte by byte, that of the local run."""
        reference = self.reference(job)
        if not same(job.output, reference):
            kept = job.output.with_name(f"wrong-{time.monotonic_ns()}")
            job.output.rename(kept)
            raise ClusterError(f"{kept} is not equal to {reference}")
        if job.output.is_dir():
            shutil.rmtree(job.output)
        else:
            job.output.unlink()

    def reference(self, job: Job) -> Path:
        """What the local runner wrote for a job."""
        return job.output.with_name(f"reference-{job.output.name}")

    def _killed_and_run_again(self, runner: Runner) -> str:
        job = self.build()
        running, where = self.in_the_middle(job, runner)
        running.kill()
        run(job, runner)
        self.require_reference(job)
        return f"run again (after {where})"

    def _train(self) -> None:
        dataset, trained = self.folder / "vowels", self.folder / "run"
        rows = str(self.folder / "vowels.parquet")
        run(Job(("build", rows, str(dataset), "--label", "speaker"), dataset), _LOCAL)
        options = ("--task", "classify", "--epochs", "1", "--run-dir", str(trained))
        run(Job(("train", str(dataset), *options), trained), _LOCAL)


def local_rows(trials: Trials, prism: str | None) -> list[Row]:
    """The runners of one machine, Prism where its program is at hand."""
    rows = [
        trials.row(Runner("local, one process")),
        trials.row(Runner("local, two processes", ("--workers", "2"))),
    ]
    if prism is None:
        rows.append(Row("Prism", remark="not run: see scripts/cluster prism"))
    else:
        beam_args = (f"--prism_location={prism}",)
        rows.append(trials.row(Runner("Prism", ("--runner", "PrismRunner"), beam_args)))
    return rows
