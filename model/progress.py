"""What a training run shows while it works: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

_REFRESH_SECONDS = 0.2


class TrainingProgress(keras.callbacks.Callback):
    """Shows loss, speed, share of padding and the time that is left.

    Args:
        console: where to; None shows nothing.
        fitted: the `FitModel`, whose metric counts real steps; None shows none.
        epochs: of the whole run.
        steps_per_epoch: steps of each.
        done: steps that an earlier start has done.
    """

    def __init__(
        self,
        console: Console | None,
        fitted: Any,
        *,
        epochs: int,
        steps_per_epoch: int,
        done: int = 0,
    ) -> None:
        super().__init__()
        self.console = console
        self.fitted = fitted
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.done = done
        self.bar: Progress | None = None
        self._shown_at = self._began_at = 0.0
        self._batches = 0
        self._real_steps_before = 0.0
        if console is not None and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeRemainingColumn(),
                console=console,
            )

    def __enter__(self) -> TrainingProgress:
        if self.bar is not None:
            self.bar.start()
            self.bar.add_task(
                f"epoch {1 + self.done // self.steps_per_epoch}/{self.epochs}",
                total=self.epochs * self.steps_per_epoch,
                completed=self.done,
                numbers="",
            )
        elif self.console is not None and self.done:
            epoch, step = divmod(self.done, self.steps_per_epoch)
            self.console.print(
                f"goes on at epoch {epoch + 1}, step {step + 1}"
                if epoch < self.epochs
                else "finished before",
                highlight=False,
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._began_at, self._batches = time.perf_counter(), 0
        if self.bar is not None and self.fitted is not None:
            # What an earlier start has counted took none of this start's time.
            self._real_steps_before = float(self.fitted.numbers.steps)
        self._update(description=f"epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._batches += 1
        self.done += 1
        now = time.perf_counter()
        if self.bar is None or now - self._shown_at < _REFRESH_SECONDS:
            return
        self._shown_at = now
        seconds = max(now - self._began_at, 1e-9)
        speed = f"{self._batches / seconds:.1f} steps/s"
        if self.fitted is not None:
            steps, slots = float(self.fitted.numbers.steps), float(self.fitted.numbers.slots)
            speed = describe_speed(
                self._batches / seconds,
                (steps - self._real_steps_before) / seconds,
                1 - steps / max(slots, 1.0),
            )
        loss = float((logs or {})["loss"])
        self._update(completed=self.done, numbers=f"loss {loss:.4f}  {speed}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.console is not None:
            numbers = describe_numbers(logs or {})
            line = f"epoch {epoch + 1}/{self.epochs}  {numbers}"
            self.console.print(line, highlight=False, soft_wrap=True)
        self._update(completed=self.done)

    def _update(self, **changes: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], **changes)


def describe_speed(steps: float, real_steps: float, padding: float) -> str:
    """Speed on one line.

    Example:
        >>> describe_speed(12.34, 56789.0, 0.0456)
        '12.3 steps/s  56,789 real steps/s  4.6% padding'
    """
    return f"{steps:.1f} steps/s  {real_steps:,.0f} real steps/s  {padding:.1%} padding"


def describe_numbers(logs: Mapping[str, Any]) -> str:
    """The numbers of an epoch on one line.

    Example:
        >>> describe_numbers({"accuracy": 0.875, "loss": 0.25, "val_loss": 0.5})
        'loss 0.2500  accuracy 0.8750  val_loss 0.5000'
    """
    return "  ".join(f"{name} {float(logs[name]):.4f}" for name in sorted(logs, key=number_order))


def number_order(name: str) -> tuple[bool, int]:
    """A key that sorts training before validation, and loss before scores; Keras sorts by name."""
    names = ("loss", "accuracy", "macro_f1", "rmse", "mae")
    return name.startswith("val_"), names.index(name.removeprefix("val_"))
