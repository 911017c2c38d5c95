"""What a run writes down while it goes, and what it decides by it: best epoch, plateau, the end."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lengthwise.dataset import CorruptDataError
from lengthwise.model.checkpoint import load_state, save_state, value_of
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.faults import bad_batch, bad_validation
from lengthwise.model.fit_model import FitModel
from lengthwise.model.learning_rate import LearningRate
from lengthwise.model.metrics import better
from lengthwise.model.progress import number_order
from lengthwise.model.run import (
    HISTORY_NAME,
    STATE_NAME,
    TENSORBOARD_FOLDER,
    Run,
    replace_synced,
    write_table,
)
from lengthwise.model.strategies import RunData


@dataclass
class Progress:
    """Where a run is, and what it knows.

    Attributes:
        epoch, step: the next step to do, both from 0.
        history: the numbers of every epoch that is done.
        best_epoch, best: from 1, and the number that it was chosen by.
        waited: epochs since the best one.
        waited_on_plateau: epochs since the best one or the last fall of the learning rate.
        stopped: whether the run ended before its last epoch.
        seconds: of work so far.
        unseen: classes that came in validation and never in training: name -> items.
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best: float = math.nan
    waited: int = 0
    waited_on_plateau: int = 0
    stopped: bool = False
    seconds: float = 0.0
    unseen: dict[str, int] = field(default_factory=dict)


class Journal(keras.callbacks.Callback):
    """Keeps history, checkpoints and state of a run.

    Args:
        run: the folder.
        model: what is fitted.
        rate: its learning rate.
        data: of the run.
        steps_per_epoch: of the training split.
        validation_split: None where there is none.
        writes: whether this process writes the folder; others only keep pace.
    """

    def __init__(
        self,
        run: Run,
        model: FitModel,
        rate: LearningRate,
        data: RunData,
        *,
        steps_per_epoch: int,
        validation_split: str | None,
        writes: bool,
    ) -> None:
        super().__init__()
        self.run = run
        self.config: TrainConfig = run.config
        self.fitted = model
        self.rate = rate
        self.data = data
        self.steps_per_epoch = steps_per_epoch
        self.validation_split = validation_split
        self.monitor = f"val_{self.config.monitor}" if validation_split else self.config.monitor
        self.writes = writes
        self.progress = Progress()
        self._sums: list[np.ndarray] | None = None
        self._there_in_training: np.ndarray | None = None
        self._since = time.perf_counter()
        self._epoch_seconds = 0.0
        self._pace: dict[str, float] = {}
        self._boards: dict[str, Any] = {}

    @property
    def variables(self) -> dict[str, list[Any]]:
        """All that a step reads and changes."""
        return {
            "network": list(self.fitted.network.variables),
            "optimizer": list(self.fitted.optimizer.variables),
            "metrics": list(self.fitted.numbers.variables),
            "rate": [self.rate.factor],
        }

    @property
    def finished(self) -> bool:
        """Whether there is no epoch left."""
        return self.progress.stopped or self.progress.epoch >= self.config.epochs

    def resume(self) -> bool:
        """Takes up the state in the run folder; False where there is none.

        Raises:
            CorruptDataError: it is damaged, or the network of the best epoch is not there.
        """
        path = self.run.path / STATE_NAME
        if not path.is_file():
            return False
        document = load_state(path, self.variables)
        try:
            self.progress = Progress(**document)
        except TypeError as reason:
            raise CorruptDataError(
                f"{path}: is no state of this run: {reason}; begin again with --fresh"
            ) from None
        # The best epoch cannot be had again, and that of the last only if there is another.
        for which in ("best", "last") if self.finished else ("best",):
            if self.progress.best_epoch and not self.run.checkpoint(which).is_file():
                raise CorruptDataError(
                    f"{self.run.checkpoint(which)}: is missing, though {self.progress.epoch} "
                    "epochs are done; begin again with --fresh"
                )
        if self.progress.step:
            # Keras sets its metrics to zero when it begins what is left of the epoch.
            self._sums = [value_of(v) for v in self.fitted.numbers.variables]
        return True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._since = time.perf_counter()
        self._epoch_seconds = 0.0
        if self._sums is not None:
            for variable, value in zip(self.fitted.numbers.variables, self._sums, strict=True):
                variable.assign(value)
            self._sums = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        progress = self.progress
        loss = float((logs or {})["loss"])
        # A mean over the epoch so far: it is no number from the first step on that was none.
        if not math.isfinite(loss):
            raise bad_batch(
                self.fitted,
                self.data,
                self.config.split,
                epoch=progress.epoch,
                step=progress.step,
            )
        progress.step += 1
        every = self.config.checkpoint_steps
        done = progress.epoch * self.steps_per_epoch + progress.step
        if every and done % every == 0 and progress.step < self.steps_per_epoch:
            self._count_time()
            self._save()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        # The metric still holds the sums of training; those of validation begin after this.
        self._end_training_part()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        progress = self.progress
        logs = {name: float(value) for name, value in (logs or {}).items()}
        if self._there_in_training is None:
            self._end_training_part()
        else:
            self._note_unseen()
        if self.validation_split is not None and not math.isfinite(logs["val_loss"]):
            raise bad_validation(self.fitted, self.data, self.validation_split, epoch=epoch)
        self._there_in_training = None
        self._count_time()
        row = {
            "epoch": epoch + 1,
            **{name: logs[name] for name in sorted(logs, key=number_order)},
            "learning_rate": float(self.fitted.optimizer.learning_rate),
            **self._pace,
            "seconds": round(self._epoch_seconds, 3),
        }
        progress.history.append(row)
        progress.epoch, progress.step = epoch + 1, 0
        self._judge(logs[self.monitor], epoch + 1)
        if self.writes:
            self.run.save_network(self.fitted.network, "last")
            if progress.best_epoch == epoch + 1:
                best = self.run.checkpoint("best")
                temporary = best.with_name(f".{best.name}")
                shutil.copyfile(self.run.checkpoint("last"), temporary)
                replace_synced(temporary, best)
            write_table(self.run.path / HISTORY_NAME, progress.history)
            self._write_boards(row)
        # Last, so that all that the state speaks of is there.
        self._save()

    def _judge(self, value: float, epoch: int) -> None:
        """Whether this epoch is the best so far, and what follows from it."""
        progress = self.progress
        if not progress.best_epoch or better(self.monitor, value, progress.best):
            progress.best_epoch, progress.best = epoch, value
            progress.waited = progress.waited_on_plateau = 0
            return
        progress.waited += 1
        progress.waited_on_plateau += 1
        if (
            self.config.schedule == "plateau"
            and progress.waited_on_plateau >= self.config.plateau_patience
        ):
            self.rate.lower()
            progress.waited_on_plateau = 0
        if self.config.patience is not None and progress.waited >= self.config.patience:
            progress.stopped = True
            self.fitted.stop_training = True

    def _end_training_part(self) -> None:
        """Takes from the metric what the numbers of Keras leave out."""
        self._count_time()
        numbers = self.fitted.numbers
        steps, slots = float(value_of(numbers.steps)), float(value_of(numbers.slots))
        self._pace = {
            "real_steps_per_second": round(steps / max(self._epoch_seconds, 1e-9), 1),
            "padding": round(1 - steps / max(slots, 1.0), 6),
        }
        self._there_in_training = value_of(getattr(numbers, "there", np.zeros(0)))

    def _note_unseen(self) -> None:
        """Classes that came in validation only; known after the first epoch."""
        there = value_of(getattr(self.fitted.numbers, "there", np.zeros(0)))
        if self.progress.history or self._there_in_training is None:
            return
        unseen = np.flatnonzero((there > 0) & (self._there_in_training == 0))
        self.progress.unseen = {
            self.run.task.class_name(int(index)): int(there[index]) for index in unseen
        }

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.progress.seconds += now - self._since
        self._epoch_seconds += now - self._since
        self._since = now

    def _save(self) -> None:
        variables = self.variables
        if not self.writes:
            # Sums over replicas are made by all workers together.
            for variable in variables["metrics"]:
                value_of(variable)
            return
        save_state(self.run.path / STATE_NAME, variables, asdict(self.progress))

    def _write_boards(self, row: Mapping[str, Any]) -> None:
        step = self.progress.epoch * self.steps_per_epoch
        for name, value in row.items():
            if name == "epoch":
                continue
            part = "validation" if name.startswith("val_") else "train"
            if part not in self._boards:
                folder = self.run.path / TENSORBOARD_FOLDER / part
                self._boards[part] = tf.summary.create_file_writer(str(folder))
            with self._boards[part].as_default():
                tag = name.removeprefix("val_")
                tf.summary.write(tag, float(value), step=step, metadata=_scalar_metadata())
        for board in self._boards.values():
            board.flush()

    def close(self) -> None:
        """Closes the files of TensorBoard."""
        for board in self._boards.values():
            board.close()


def _scalar_metadata() -> Any:
    """Tells TensorBoard to draw a scalar; `tf.summary.scalar` needs the package itself."""
    metadata: Any = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    metadata.data_class = 1  # DATA_CLASS_SCALAR
    return metadata
