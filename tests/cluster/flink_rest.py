"""What Flink's REST API says of the cluster and of jobs."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subtask:
    """What one of the parallel parts of a step has read, and where it ran."""

    vertex: str
    task_manager: str
    records: int
    nbytes: int


class FlinkRest:
    """Asks a JobManager.

    Args:
        address: host:port.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str) -> Any:
        """The answer to a path, as JSON; OSError if there is none."""
        with urllib.request.urlopen(f"http://{self._address}/{path}", timeout=10) as answer:
            return json.load(answer)

    def overview(self) -> dict[str, Any] | None:
        """Slots, TaskManagers and jobs; None while there is no answer."""
        try:
            return self.get("overview")
        except (OSError, ValueError):
            return None

    def jobs(self) -> dict[str, str]:
        """Job -> state."""
        return {job["jid"]: job["state"] for job in self.get("jobs/overview")["jobs"]}

    def cancel(self, job: str) -> None:
        """Cancels a job."""
        url = f"http://{self._address}/jobs/{job}?mode=cancel"
        urllib.request.urlopen(urllib.request.Request(url, method="PATCH"), timeout=10).close()

    def subtasks(self, job: str) -> list[Subtask]:
        """What each subtask of a job did."""
        return [
            Subtask(
                vertex=vertex["name"],
                task_manager=subtask["taskmanager-id"],
                records=subtask["metrics"]["read-records"],
                nbytes=subtask["metrics"]["read-bytes"],
            )
            for vertex in self.get(f"jobs/{job}")["vertices"]
            for subtask in self.get(f"jobs/{job}/vertices/{vertex['id']}")["subtasks"]
        ]
