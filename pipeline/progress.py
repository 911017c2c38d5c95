"""Progress of long work: a bar on a terminal, plain lines elsewhere.

What is done is read off the staging folder, so it is the same for every runner.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from lengthwise.dataset.storage import StoragePath

_POLL_SECONDS = 0.2
_LINE_SECONDS = 10.0


class Progress(Protocol):
    """Shows how far a phase of a job is, while the phase runs."""

    def __call__(self, phase: str, total: int, count: Callable[[], int]) -> None:
        """Called again and again from a thread of its own, and once at the end of the phase."""


@contextmanager
def watched(
    progress: Progress | None, phase: str, total: int, count: Callable[[], int]
) -> Iterator[None]:
    """Shows progress while the body runs.

    Args:
        progress: what shows it; None shows nothing.
        phase: what is being done.
        total: how many pieces there are.
        count: tells how many are done.
    """
    if progress is None:
        yield
        return
    done = threading.Event()

    def poll() -> None:
        pause = _POLL_SECONDS
        while not done.wait(pause):
            started = time.monotonic()
            progress(phase, total, count)
            # Listing a large folder of an object store takes seconds.
            pause = max(_POLL_SECONDS, 10 * (time.monotonic() - started))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    progress(phase, total, count)


def count_reports(folder: StoragePath) -> int:
    """How many reports a folder of the staging area holds."""
    if isinstance(folder, Path) and not folder.is_dir():
        return 0
    return sum(path.name.endswith(".json") for path in folder.iterdir())


class ConsoleProgress:
    """Progress on standard error: one line that is drawn again, or a new line every ten seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description:<16}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> ConsoleProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, phase: str, total: int, count: Callable[[], int]) -> None:
        if self._bar is not None:
            if phase != self._phase:
                self._task = self._bar.add_task(phase, total=total)
            self._bar.update(self._task, completed=count())
        elif time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            print(f"{phase}: {count():,} of {total:,}", file=sys.stderr, flush=True)
        self._phase = phase
