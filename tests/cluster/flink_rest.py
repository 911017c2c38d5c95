"""What Flink's REST API says of the cluster and of jobs."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """What a TaskManager, or a subtask on it, did of a vertex of a job."""

    vertex: str
    task_manager: str
    subtasks: int
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

    def shares(self, job: str) -> list[Share]:
        """What each TaskManager did in each vertex of a job."""
        shares = []
        for vertex in self.get(f"jobs/{job}")["vertices"]:
            path = f"jobs/{job}/vertices/{vertex['id']}/taskmanagers"
            for each in self.get(path)["taskmanagers"]:
                metrics = each["metrics"]
                shares.append(
                    Share(
                        vertex=vertex["name"],
                        task_manager=each["taskmanager-id"],
                        subtasks=each["status-counts"]["FINISHED"],
                        records=metrics["read-records"],
                        nbytes=metrics["read-bytes"],
                    )
                )
        return shares

    def subtasks(self, job: str, name: str) -> list[Share]:
        """What each subtask did of the vertices whose name has `name` in it."""
        shares = []
        for vertex in self.get(f"jobs/{job}")["vertices"]:
            if name not in vertex["name"]:
                continue
            for each in self.get(f"jobs/{job}/vertices/{vertex['id']}")["subtasks"]:
                metrics = each["metrics"]
                shares.append(
                    Share(
                        vertex=vertex["name"],
                        task_manager=each["taskmanager-id"],
                        subtasks=1,
                        records=metrics["read-records"],
                        nbytes=metrics["read-bytes"],
                    )
                )
        return shares
