"""What Flink has to show beyond other runners: work on both TaskManagers, and parts that die.

That both TaskManagers and both pools take part is taken from Flink's REST interface, from the logs
of the pools, and from what each worker has counted in Beam's metrics.
"""

from __future__ import annotations

import time

from lengthwise.dataset import Manifest
from tests.cluster.jobs import Job, Runner, Running
from tests.cluster.jobs import run as run_job
from tests.cluster.processes import (
    JOB_MANAGER,
    JOB_SERVER,
    POOLS,
    TASK_MANAGERS,
    Cluster,
    ClusterError,
)
from tests.cluster.trials import SHARD_SIZE, Row, Trials

# The fault -> the process that is killed.
_FAULTS = {
    "a TaskManager is killed": next(iter(TASK_MANAGERS)),
    "a pool of workers is killed": next(iter(POOLS)),
    "the job server is killed": JOB_SERVER,
    "the JobManager is restarted": JOB_MANAGER,
}
# Of what is shuffled; each of two TaskManagers would have a half if all keys weighed the same.
_FAIR_SHARE = 0.3
_WORK = ("IngestUnit", "WriteShard", "PredictUnit")


class FlinkTrials:
    """Trials on a Flink cluster.

    Args:
        trials: jobs and their references.
        cluster: is up.
    """

    def __init__(self, trials: Trials, cluster: Cluster) -> None:
        self._trials = trials
        self._cluster = cluster
        version = cluster.rest.get("overview")["flink-version"]
        self._runner = Runner(
            f"Flink {version}", ("--runner", "FlinkRunner"), tuple(cluster.beam_args)
        )

    def row(self) -> Row:
        """All trials."""
        title = self._runner.title
        row = self._trials.row(self._runner, self._run_spread)
        self._wait_for_the_rest()
        for name, part in _FAULTS.items():
            row.faults[name] = self._trials.told(
                f"{title}: {name}", lambda part=part: self._survived(part)
            )
        row.remark = self._trials.told(f"{title}: no hot keys", self._no_hot_keys)
        return row

    def _run_spread(self, job: Job, runner: Runner, *options: str) -> Running:
        """Runs a job; ClusterError unless both TaskManagers and both pools took part."""
        before, starts = set(self._cluster.rest.jobs()), self._worker_starts()
        running = run_job(job, runner, *options)
        ours = set(self._cluster.rest.jobs()) - before
        for work in ours:
            steps = [
                subtask
                for subtask in self._cluster.rest.subtasks(work)
                if any(step in subtask.vertex for step in _WORK)
            ]
            idle = TASK_MANAGERS.keys() - {step.task_manager for step in steps if step.records}
            if idle:
                raise ClusterError(f"{running}: {', '.join(idle)} had nothing to do")
        for name, started in self._worker_starts().items():
            if started - starts[name] < len(ours):
                raise ClusterError(f"{running}: {name} started no worker")
        if len(running.workers) != len(ours) or any(len(each) < 2 for each in running.workers):
            raise ClusterError(f"{running}: workers counted {running.workers}")
        return running

    def _worker_starts(self) -> dict[str, int]:
        """How many workers each pool has started so far."""
        logs = self._cluster.folder / "logs"
        return {name: (logs / name).read_text().count("Starting worker with") for name in POOLS}

    def _survived(self, part: str) -> str:
        """Kills a process in the middle of a build and starts it again, as a cluster would."""
        job = self._trials.build()
        running, where = self._trials.in_the_middle(job, self._runner)
        self._cluster.kill(part)
        self._cluster.start(part)
        went_on = running.wait()
        self._cluster.wait_until_ready()
        if not went_on:
            # A job that Flink has still in hand goes on beside the new one, and must do no harm.
            run_job(job, self._runner)
        self._wait_for_the_rest()
        self._trials.require_reference(job)
        return f"{'went on' if went_on else 'run again'} (after {where})"

    def _wait_for_the_rest(self, seconds: float = 10.0) -> None:
        """Gives jobs whose command has gone time to do harm, then cancels them."""
        ends = time.monotonic() + seconds
        while running := self._unfinished():
            if time.monotonic() > ends:
                for job in running:
                    self._cluster.rest.cancel(job)
                ends += seconds
            time.sleep(0.2)

    def _unfinished(self) -> list[str]:
        over = ("FINISHED", "FAILED", "CANCELED")
        return [job for job, state in self._cluster.rest.jobs().items() if state not in over]

    def _no_hot_keys(self) -> str:
        """With 95 of 100 rows in one bucket, keys stay small and TaskManagers share the bytes."""
        job = self._trials.build("skewed")
        before = set(self._cluster.rest.jobs())
        self._run_spread(job, self._runner, "--exchange", "engine")
        manifest = Manifest.load(self._trials.reference(job))
        rows = dict.fromkeys(manifest.max_lengths, 0)
        for shard in manifest.shards:
            rows[shard.max_length] += shard.records
        of_all = max(rows.values()) / sum(rows.values())
        largest = max(shard.nbytes for shard in manifest.shards) / SHARD_SIZE
        read = dict.fromkeys(TASK_MANAGERS, 0)
        for work in set(self._cluster.rest.jobs()) - before:
            for subtask in self._cluster.rest.subtasks(work):
                if "WriteShard" in subtask.vertex:
                    read[subtask.task_manager] += subtask.nbytes
        least = min(read.values()) / sum(read.values())
        self._trials.require_reference(job)
        told = (
            f"{of_all:.0%} of the rows in one bucket: the largest key has {largest:.2f} shards' "
            f"worth of bytes, the TaskManagers shuffled {least:.0%} and {1 - least:.0%}"
        )
        if of_all < 0.95 or largest > 2 or least < _FAIR_SHARE:
            raise ClusterError(told)
        return told
