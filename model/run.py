"""The run folder: what a training run leaves behind, enough to explain and to use it.

RUN/
  config.json       options, task, fingerprint of the dataset, versions; written first
  history.csv       loss and accuracy of every epoch
  metrics.json      which epoch was best, and its numbers; written last
  best.keras        the model of the best epoch
  last.keras        the model of the last epoch, with the state of its optimizer
"""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lengthwise.dataset import CorruptDataError, ManifestError, OutputError, Schema, UsageError
from lengthwise.dataset.document import Fields, read_document, to_json
from lengthwise.model import layers  # noqa: F401  Models that have them load.
from lengthwise.model.configuration import TrainConfig

CONFIG_NAME = "config.json"
HISTORY_NAME = "history.csv"
METRICS_NAME = "metrics.json"
CHECKPOINTS = ("best", "last")
RUN_FORMAT = "lengthwise-run"
RUN_VERSION = 1


@dataclass(frozen=True)
class Run:
    """A run folder and what its `config.json` says.

    Attributes:
        path: the folder.
        config: the options.
        label: the feature that the model predicts.
        classes: the values of the label; logit i stands for classes[i].
        inputs: the features that the model takes.
        num_ids: name -> ids are below this, for every integer input.
        fingerprint: of the dataset that the model was trained on.
    """

    path: Path
    config: TrainConfig
    label: str
    classes: tuple[int, ...]
    inputs: Schema
    num_ids: Mapping[str, int]
    fingerprint: str

    def checkpoint(self, which: str) -> Path:
        """The file of a checkpoint, "best" or "last"."""
        if which not in CHECKPOINTS:
            raise UsageError(f"checkpoint '{which}' is none of {', '.join(CHECKPOINTS)}")
        return self.path / f"{which}.keras"

    def create(self) -> None:
        """Makes the folder ready for a new run; the same run again replaces what it left before.

        Raises:
            OutputError: the folder holds another run, or something that is no run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            inside = sorted(os.listdir(self.path))
        except OSError as reason:
            raise OutputError(f"{self.path}: cannot be a run folder: {reason.strerror}") from None
        if CONFIG_NAME in inside:
            if self._to_json() != _without_versions(_read_config(self.path).members):
                raise OutputError(
                    f"{self.path}: holds a run with other options or of another dataset; "
                    "give another --run-dir, or remove it first"
                )
        elif inside:
            raise OutputError(
                f"{self.path}: holds {inside[0]!r} and is no run folder; give another --run-dir"
            )
        for name in (METRICS_NAME, HISTORY_NAME, *(f"{which}.keras" for which in CHECKPOINTS)):
            (self.path / name).unlink(missing_ok=True)
            (self.path / f".{name}").unlink(missing_ok=True)
        document = {**self._to_json(), "versions": _versions()}
        replace_text(self.path / CONFIG_NAME, to_json(document))

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
        classes = fields.integers("classes", low=-(2**63))
        if sorted(set(classes)) != classes or not classes:
            raise fields.fail("'classes' must ascend")
        return cls(
            path=Path(path),
            config=TrainConfig.from_json(
                fields.nested("config").members, place=f"{fields.place}: config"
            ),
            label=fields.text("label"),
            classes=tuple(classes),
            inputs=Schema.from_json(fields.objects("inputs")),
            num_ids=fields.counts("num_ids"),
            fingerprint=fields.text("dataset_fingerprint"),
        )

    def save_model(self, model: Any, which: str) -> None:
        """Writes a checkpoint; a reader finds the old one or the new one, whole."""
        path = self.checkpoint(which)
        temporary = path.with_name(f".{path.name}")
        model.save(temporary)
        os.replace(temporary, path)

    def load_model(self, which: str) -> Any:
        """Reads a checkpoint.

        Args:
            which: "best" or "last".

        Returns:
            The `keras.Model`, not compiled.

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
            raise CorruptDataError(f"{path}: cannot be read: {cause}") from reason

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": RUN_FORMAT,
            "version": RUN_VERSION,
            "config": self.config.to_json(),
            "label": self.label,
            "classes": list(self.classes),
            "inputs": self.inputs.to_json(),
            "num_ids": dict(sorted(self.num_ids.items())),
            "dataset_fingerprint": self.fingerprint,
        }


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line an epoch, with the columns of the first."""
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


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


def _without_versions(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "versions"}


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
