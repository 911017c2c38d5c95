"""What a training run shows while it works: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress(keras.callbacks.Callback):
    """Shows epochs, steps, loss and accuracy.

    Args:
        console: where to; None shows nothing.
        epochs: of the whole run.
        steps_per_epoch: steps of each.
    """

    def __init__(self, console: Console | None, *, epochs: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.console = console
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.bar: Progress | None = None
        if console is not None and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )

    def __enter__(self) -> TrainingProgress:
        if self.bar is not None:
            self.bar.start()
            self.bar.add_task(
                f"epoch 1/{self.epochs}", total=self.epochs * self.steps_per_epoch, numbers=""
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._update(description=f"epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._update(advance=1, numbers=describe_numbers(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        numbers = describe_numbers(logs or {})
        self._update(numbers=numbers)
        if self.console is not None and self.bar is None:
            self.console.print(f"epoch {epoch + 1}/{self.epochs}  {numbers}", highlight=False)

    def _update(self, **changes: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], **changes)


def describe_numbers(logs: Mapping[str, Any]) -> str:
    """The numbers of an epoch on one line.

    Example:
        >>> describe_numbers({"accuracy": 0.875, "loss": 0.25, "val_loss": 0.5})
        'loss 0.2500  accuracy 0.8750  val_loss 0.5000'
    """
    # Keras sorts by name, which would put the validation's loss far from the training's.
    first = [name for name in ("loss", "accuracy") if name in logs]
    names = [*first, *(name for name in logs if name not in first)]
    return "  ".join(f"{name} {float(logs[name]):.4f}" for name in names)
