"""Runs a command in a process of its own and measures what its whole process tree took.

CPU seconds are user + system of the process and of everything it started: children it waited for
and, on Linux, those it left behind, which are adopted and waited for here. Peak memory is
`ru_maxrss`: the resident set of the *largest single process* of the tree, not the sum, with the
pages of mapped files that it touched. It is never less than what this process had in memory when it
started the command, so nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SINGLE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}
_ORPHAN_SECONDS = 20.0
_PR_SET_CHILD_SUBREAPER = 36
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Task:
    """A command that works through `rows` rows; the paths in `fresh` are removed before a run."""

    argv: Sequence[str]
    rows: int
    fresh: Sequence[Path] = ()


@dataclass(frozen=True)
class Usage:
    """What one run of a task took, and in `own` what it reported itself."""

    rows: int
    user_seconds: float
    system_seconds: float
    wall_seconds: float
    peak_rss: int
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        return self.user_seconds + self.system_seconds


def call_task(
    function: str,
    *,
    rows: int,
    fresh: Sequence[Path] = (),
    python: str | Path = sys.executable,
    **arguments: Any,
) -> Task:
    """A task that calls `module:function` with keyword arguments that JSON can carry.

    What the function returns, a dict or None, is the `own` of the task's usage. `python` may be
    that of another environment.
    """
    return Task((str(python), __file__, function, json.dumps(arguments)), rows, fresh)


def run(task: Task, *, environment: Mapping[str, str] = SINGLE_THREAD) -> Usage:
    """Runs a task to its end and measures it.

    Args:
        task: if the last line that it prints is a JSON object, that becomes the usage's `own`.
        environment: variables set for the task, on top of the present ones.

    Raises:
        RuntimeError: the task failed, and the message has its output; or it left a process running.
    """
    for path in task.fresh:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    with tempfile.TemporaryFile() as output, _adopting_orphans():
        started = time.perf_counter()
        process = subprocess.Popen(
            list(task.argv), stdout=output, stderr=output, env={**os.environ, **environment}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        usages = [usage, *_wait_for_orphans()]
        output.seek(0)
        printed = output.read().decode(errors="replace").strip()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {list(task.argv)}\n{printed}")
    return Usage(
        rows=task.rows,
        user_seconds=sum(usage.ru_utime for usage in usages),
        system_seconds=sum(usage.ru_stime for usage in usages),
        wall_seconds=wall,
        peak_rss=max(usage.ru_maxrss for usage in usages) * _MAXRSS_BYTES,
        own=_last_object(printed),
    )


@contextlib.contextmanager
def pinned_to(core: int | None) -> Iterator[None]:
    """Keeps this process and those it starts on one processor core, or on any if None."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    # While this is set, a process whose parent ends becomes a child of this one.
    if not sys.platform.startswith("linux"):
        yield
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _wait_for_orphans() -> list[Any]:
    usages = []
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return usages
        if pid:
            usages.append(usage)
        elif time.monotonic() > deadline:
            raise RuntimeError(f"a process is still running {_ORPHAN_SECONDS:.0f} s after its task")
        else:
            time.sleep(0.01)


def _last_object(printed: str) -> dict[str, Any]:
    last = printed.rsplit("\n", 1)[-1]
    return json.loads(last) if last.startswith("{") and last.endswith("}") else {}


if __name__ == "__main__":
    _module, _name = sys.argv[1].split(":")
    _result = getattr(importlib.import_module(_module), _name)(**json.loads(sys.argv[2]))
    print(json.dumps(_result or {}))
