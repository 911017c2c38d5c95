"""Commands of Lengthwise as the trials run them, the rows they take, and what they cost."""

from __future__ import annotations

import contextlib
import filecmp
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.cluster.processes import REPOSITORY, ClusterError

_COMMAND = str(Path(sys.executable).with_name("lengthwise"))
_PATIENCE = 900.0


@dataclass(frozen=True)
class Job:
    """A command of Lengthwise, without where it runs.

    Attributes:
        command: `plan`, `build` or `predict`, with inputs, output and options.
        output: the file or folder that it writes.
    """

    command: tuple[str, ...]
    output: Path


@dataclass(frozen=True)
class Runner:
    """Where jobs run: options of a command, and after `--` those of Beam."""

    title: str
    options: tuple[str, ...] = ()
    beam_args: tuple[str, ...] = ()


class Running:
    """A command that runs, in a group of processes of its own."""

    def __init__(self, job: Job, runner: Runner, *options: str) -> None:
        beam_args = ["--", *runner.beam_args] if runner.beam_args else []
        args = [*job.command, *runner.options, *options, *beam_args]
        self.job = job
        self._log = job.output.with_name(f"{job.output.name}.log")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [_COMMAND, "--verbose", *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self) -> bool:
        """Waits for the end; whether the command did its work."""
        try:
            return self._process.wait(_PATIENCE) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            raise ClusterError(f"{self} did not end within {_PATIENCE:.0f} s") from None

    def finish(self) -> Running:
        """Waits for the end; ClusterError if the command failed."""
        if not self.wait():
            raise ClusterError(f"{self} failed: {self.last_line}")
        return self

    def kill(self) -> None:
        """Kills the command and what it started, without a warning."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def last_line(self) -> str:
        lines = [line for line in self.log.splitlines() if line.startswith("lengthwise: ")]
        return lines[-1] if lines else "\n".join(self.log.splitlines()[-5:])

    @property
    def workers(self) -> list[list[int]]:
        """For each pipeline of the command, how much each worker did."""
        return [
            [int(part.split()[0]) for part in line.partition(": ")[2].split(": ")[1].split(", ")]
            for line in self.log.splitlines()
            if line.startswith(("lengthwise: units: ", "lengthwise: shards: "))
        ]

    def wait_until_shards(self, most: int) -> int:
        """Waits until some shards are written, and not yet all.

        Returns:
            How many are there.
        """
        while not self.ended:
            staged = sum(1 for _ in self.job.output.glob(".staging/**/*.tfrecord"))
            if staged >= most:
                break
            if staged:
                return staged
            time.sleep(0.005)
        raise ClusterError(f"{self} was never seen in the middle: {self.last_line}")

    def __str__(self) -> str:
        return f"lengthwise {self.job.command[0]}"


def run(job: Job, runner: Runner, *options: str) -> Running:
    """Runs a command to its end; ClusterError if it fails."""
    return Running(job, runner, *options).finish()


def same(output: Path, reference: Path) -> bool:
    """Whether two files, or two folders with all that is in them, are equal byte by byte."""
    if output.is_file():
        return filecmp.cmp(output, reference, shallow=False)
    files = sorted(path.relative_to(output) for path in output.rglob("*"))
    if files != sorted(path.relative_to(reference) for path in reference.rglob("*")):
        return False
    return all(
        filecmp.cmp(output / path, reference / path, shallow=False)
        for path in files
        if (reference / path).is_file()
    )


def write_rows(path: Path, lengths: np.ndarray, *, groups: int) -> None:
    """Rows of token ids with a label, the same for the same lengths."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = rng.integers(0, 30_000, offsets[-1]).astype(np.int32)
    tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    table = pa.table({"tokens": tokens, "label": rng.integers(0, 5, len(lengths))})
    pq.write_table(table, path, row_group_size=-(-len(lengths) // groups))


def ragged_lengths(rows: int) -> np.ndarray:
    """Log-normal lengths from 1 to 512."""
    drawn = np.random.default_rng(1).lognormal(3.5, 0.8, rows)
    return np.clip(drawn.astype(np.int64), 1, 512)


def skewed_lengths(rows: int) -> np.ndarray:
    """Lengths of which 95 of 100 fall into one bucket."""
    lengths = ragged_lengths(rows)
    common = np.random.default_rng(2).random(rows) < 0.95
    return np.where(common, 64, lengths)


def write_vowels(path: Path) -> None:
    """The real data set of the examples, in small row groups, so that several workers read it."""
    table = pq.read_table(REPOSITORY / "examples/data/japanese_vowels_train.parquet")
    pq.write_table(table, path, row_group_size=20)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
