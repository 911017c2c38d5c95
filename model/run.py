"""The run folder: what a training run leaves behind, enough to explain, to go on with and to use.

RUN/
  config.json       options, task, fingerprint of the dataset, versions; written first
  plan.json         the plan of the dataset: vocabularies, normalisation, what becomes of raw rows
  state.npz         where the run is: weights, optimizer, random state, history; see `checkpoint`
  history.csv       the numbers of every epoch
  metrics.json      which epoch was best, and its numbers; written last
  best.keras        the network of the best epoch
  last.keras        the network of the last epoch
  curves.png        the history, drawn
  tensorboard/      the history, for TensorBoard
  evaluation/SPLIT/ what `evaluate` measured: metrics.json, tables, plots
"""

from __future__ import annotations

import csv
import fcntl
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import crc32c
import keras
import numpy as np
import tensorflow as tf

from lengthwise.dataset import CorruptDataError, ManifestError, OutputError, Plan, UsageError
from lengthwise.dataset.document import Fields, read_document, to_json
from lengthwise.dataset.manifest import PLAN_NAME
from lengthwise.dataset.storage import StoragePath
from lengthwise.model import layers  # noqa: F401  Models that have them load.
from lengthwise.model.configuration import TrainConfig
from lengthwise.model.task import Task

CONFIG_NAME = "config.json"
HISTORY_NAME = "history.csv"
METRICS_NAME = "metrics.json"
STATE_NAME = "state.npz"
CURVES_NAME = "curves.png"
TENSORBOARD_FOLDER = "tensorboard"
EVALUATION_FOLDER = "evaluation"
CHECKPOINTS = ("best", "last")
RUN_FORMAT = "lengthwise-run"
RUN_VERSION = 2

_FILES = (METRICS_NAME, STATE_NAME, HISTORY_NAME, CURVES_NAME, "best.keras", "last.keras")


@dataclass(frozen=True)
class Run:
    """A run folder and what its `config.json` says.

    Attributes:
        path: the folder.
        config: the options.
        task: inputs and output of the network, and what its numbers mean.
        fingerprint: of the dataset that the network was trained on.
        plan_crc32c: of `plan.json`.
    """

    path: Path
    config: TrainConfig
    task: Task
    fingerprint: str
    plan_crc32c: int

    @cached_property
    def plan(self) -> Plan:
        """The plan of the dataset: vocabularies, normalisation, fill, overlong rows.

        Raises:
            CorruptDataError: it is missing or was changed.
        """
        path = self.path / PLAN_NAME
        try:
            if not self._has_plan():
                raise CorruptDataError(
                    f"{path}: was changed after the run began; the same `lengthwise train` again "
                    "puts it back"
                )
        except OSError as reason:
            raise CorruptDataError(f"{path}: cannot be read: {reason.strerror}") from None
        return Plan.load(path)

    def checkpoint(self, which: str) -> Path:
        """The file of a checkpoint, "best" or "last"."""
        if which not in CHECKPOINTS:
            raise UsageError(f"checkpoint '{which}' is none of {', '.join(CHECKPOINTS)}")
        return self.path / f"{which}.keras"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder, and keeps other processes from training in it.

        Raises:
            OutputError: it cannot be made, or another process trains in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as reason:
            raise OutputError(f"{self.path}: cannot be a run folder: {reason.strerror}") from None
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"{self.path}: another process is training in it; wait for its end, or give "
                    "another --run-dir"
                ) from None
            except OSError:
                # Not all network file systems have locks.
                pass
            yield
        finally:
            os.close(folder)

    def create(self, plan: StoragePath, *, fresh: bool = False) -> None:
        """Makes the folder, which is `held`, ready for the run, or finds it half done.

        Args:
            plan: the `plan.json` of the dataset.
            fresh: begin again, whatever the run in the folder has done so far.

        Raises:
            OutputError: the folder holds another run, a run on a dataset that was built again
                since, or something that is no run.
        """
        inside = sorted(os.listdir(self.path))
        if CONFIG_NAME in inside:
            if not fresh:
                self._check_same(_read_config(self.path).members)
        elif [name for name in inside if name != PLAN_NAME]:
            raise OutputError(
                f"{self.path}: holds {inside[0]!r} and no {CONFIG_NAME}, so it is no run folder, "
                "or one that lost it; give another --run-dir"
            )
        for name in (CONFIG_NAME, PLAN_NAME, *_FILES):
            if (self.path / name).is_dir():
                raise OutputError(
                    f"{self.path / name}: is a folder where a run has a file; remove it, or give "
                    "another --run-dir"
                )
        if fresh or not (self.path / STATE_NAME).is_file():
            self._clear()
            _replace_bytes(self.path / PLAN_NAME, plan.read_bytes())
            document = {**self._to_json(), "versions": _versions()}
            replace_text(self.path / CONFIG_NAME, to_json(document))
        elif not (self.path / PLAN_NAME).is_file() or not self._has_plan():
            # The dataset is the same, and so is its plan.
            _replace_bytes(self.path / PLAN_NAME, plan.read_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Reads the `config.json` of a run.

        Raises:
            ManifestError: there is no run here, or its `config.json` is malformed.

        Example:
            >>> Run.load("nowhere")
            Traceback (most recent call last):
            ...
            lengthwise.dataset.errors.ManifestError: nowhere: no run here (config.json is \
missing); make one with `lengthwise train`
        """
        fields = _read_config(Path(path))
        return cls(
            path=Path(path),
            config=TrainConfig.from_json(
                fields.nested("config").members, place=f"{fields.place}: config"
            ),
            task=Task.from_json(fields.nested("task")),
            fingerprint=fields.text("dataset_fingerprint"),
            plan_crc32c=fields.integer("plan_crc32c", high=2**32 - 1),
        )

    def save_network(self, network: Any, which: str) -> None:
        """Writes a checkpoint; a reader finds the old one or the new one, whole."""
        path = self.checkpoint(which)
        temporary = path.with_name(f".{path.name}")
        network.save(temporary)
        replace_synced(temporary, path)

    def load_model(self, which: str) -> Any:
        """Reads the network of a checkpoint.

        Args:
            which: "best" or "last".

        Returns:
            The `keras.Model`, not compiled: it takes a dict of features as `read_dataset` yields
            them, and gives what `lengthwise.model.task` says.

        Raises:
            CorruptDataError: it is missing or cannot be read.
        """
        path = self.checkpoint(which)
        if not path.is_file():
            raise CorruptDataError(
                f"{path}: is missing; the run did not finish an epoch: `lengthwise train` again"
            )
        try:
            return keras.saving.load_model(path, compile=False)
        # Damaged archives fail in as many ways as there are bytes in them.
        except Exception as reason:
            cause = str(reason).strip().partition("\n")[0]
            own = self.config.build_model
            hint = (
                f"; import the module that knows its layers before: --build-model {own}"
                if own
                else ""
            )
            raise CorruptDataError(f"{path}: cannot be read: {cause}{hint}") from reason

    def _has_plan(self) -> bool:
        return crc32c.crc32c((self.path / PLAN_NAME).read_bytes()) == self.plan_crc32c

    def _clear(self) -> None:
        for name in (CONFIG_NAME, *_FILES):
            (self.path / name).unlink(missing_ok=True)
            (self.path / f".{name}").unlink(missing_ok=True)
        for folder in (TENSORBOARD_FOLDER, EVALUATION_FOLDER):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    def _check_same(self, there: Mapping[str, Any]) -> None:
        mine = self._to_json()
        options = there.get("config")
        if isinstance(options, dict) and options != mine["config"]:
            names = sorted({*options, *mine["config"]})
            name = next(n for n in names if options.get(n) != mine["config"].get(n))
            raise OutputError(
                f"{self.path}: holds a run with other options: {name} is {options.get(name)!r} "
                f"there, {mine['config'].get(name)!r} here; give another --run-dir, or --fresh to "
                "begin again in this one"
            )
        if there.get("dataset_fingerprint") != self.fingerprint:
            raise OutputError(
                f"{self.path}: holds a run on the dataset {there.get('dataset_fingerprint')}, "
                f"which is now {self.fingerprint}: another one, or built again since; give another "
                "--run-dir, or --fresh to begin again in this one"
            )
        if {name: value for name, value in there.items() if name != "versions"} != mine:
            raise OutputError(
                f"{self.path}: holds a run of another task; give another --run-dir, or --fresh to "
                "begin again in this one"
            )

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "config": self.config.to_json(),
            "task": self.task.to_json(),
            "dataset_fingerprint": self.fingerprint,
            "plan_crc32c": self.plan_crc32c,
        }


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as CSV, with the columns of the first, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    _replace_bytes(path, text.encode("utf-8"))


def replace_synced(temporary: Path, path: Path) -> None:
    """Puts a file in the place of another; one of both is there, whole, even after a power cut."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _replace_bytes(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    replace_synced(temporary, path)


def _read_config(folder: Path) -> Fields:
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise ManifestError(
            f"{folder}: no run here ({CONFIG_NAME} is missing); make one with `lengthwise train`"
        )
    document = read_document(path, error=ManifestError)
    fields = Fields(document, place=str(path), error=ManifestError)
    if document.get("format") != RUN_FORMAT:
        raise fields.fail("not the configuration of a run of Lengthwise")
    if fields.integer("version") != RUN_VERSION:
        raise fields.fail(
            f"version {fields.integer('version')} of the run is not known here; train again"
        )
    return fields


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
