"""How much each worker has done, counted by Beam's metrics: shows whether a job is spread."""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import Any

from apache_beam.metrics import Metrics, MetricsFilter

_NAMESPACE = "lengthwise.workers"


def count_on_worker(what: str) -> None:
    """Counts one more `what` that this process has finished; for the code of a step.

    Doubled and repeated work counts each time.
    """
    _counter(what, os.getpid()).inc()


def counts_by_worker(result: Any) -> dict[str, dict[str, int]]:
    """What -> worker (`host/process`) -> how many.

    Args:
        result: of a pipeline that has ended.
    """
    found: dict[str, dict[str, int]] = {}
    metrics = result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))
    for counter in metrics["counters"]:
        what, _, worker = counter.key.metric.name.partition(" on ")
        workers = found.setdefault(what, {})
        workers[worker] = workers.get(worker, 0) + counter.result
    return {what: dict(sorted(found[what].items())) for what in sorted(found)}


def describe_counts(result: Any) -> str:
    """One line of `counts_by_worker`, as in `units: 8 on node-a/71, 8 on node-b/64`."""
    return "; ".join(
        f"{what}: {', '.join(f'{count} on {worker}' for worker, count in workers.items())}"
        for what, workers in counts_by_worker(result).items()
    )


@cache
def _counter(what: str, process: int) -> Any:
    return Metrics.counter(_NAMESPACE, f"{what} on {socket.gethostname()}/{process}")
