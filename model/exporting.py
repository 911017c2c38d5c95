"""Export: a trained run as a SavedModel that takes ragged rows as they come.

DIR/saved_model.pb, variables/   for TensorFlow and TensorFlow Serving; needs no Lengthwise
DIR/model.keras                  the network alone; import `MaskedBiLSTM` before loading it
DIR/serving.json                 what goes in, what comes out, names of the classes
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from lengthwise.dataset import Feature, OutputError, UsageError
from lengthwise.dataset.document import to_json
from lengthwise.dataset.schema import LENGTH, MASK, NUMBERS
from lengthwise.model.loading import load_run
from lengthwise.model.prediction import Predictor
from lengthwise.model.preprocessing import observed_name
from lengthwise.model.run import Run

NETWORK_NAME = "model.keras"
DESCRIPTION_NAME = "serving.json"


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    Attributes:
        path: the folder.
        inputs: name in the signature -> dtype and shape, for people.
        outputs: names.
    """

    path: Path
    inputs: dict[str, str]
    outputs: tuple[str, ...]


def export(
    run: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
) -> Exported:
    """Exports the network of a run, with all that happens to a row before and after it.

    Args:
        run: the run folder that `train` left.
        directory: a folder that does not exist yet, or is empty.
        checkpoint: "best" or "last".

    Raises:
        LengthwiseError: the run cannot be used, or the folder cannot be made.

    Example:
        >>> export("nowhere", "model")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.ManifestError: nowhere: no run here (config.json is missing); \
make one with `lengthwise train`
    """
    if not os.fspath(directory).strip():
        raise UsageError("DIR is empty; name the folder of the export")
    directory = Path(os.path.abspath(directory))
    loaded = Run.load(run)
    _check_new(directory)
    predictor = load_run(run, checkpoint=checkpoint)
    exported = Exported(directory, _signature_inputs(predictor), predictor.serving.output_names)
    temporary = directory.with_name(f".{directory.name}-{uuid.uuid4().hex}")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        predictor.serving.save(temporary)
        shutil.copyfile(loaded.checkpoint(checkpoint), temporary / NETWORK_NAME)
        description = to_json(_description(predictor, loaded, exported))
        (temporary / DESCRIPTION_NAME).write_text(description, encoding="utf-8")
        # An empty folder gives way, any other does not.
        os.rename(temporary, directory)
    except OSError as reason:
        cause = reason.strerror or reason
        raise OutputError(f"{directory}: cannot be written: {cause}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return exported


def _check_new(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise OutputError(f"{directory}: is there already; choose a new folder, or remove it first")


def _signature_inputs(predictor: Predictor) -> dict[str, str]:
    names = predictor.serving.input_names
    lines = {
        names[feature.name]: f"{_dtype(feature)} {_shape(feature)}" for feature in predictor.inputs
    }
    return {**lines, LENGTH: "int64 (rows,)"}


def _description(predictor: Predictor, run: Run, exported: Exported) -> dict[str, Any]:
    names = predictor.serving.input_names
    return {
        "format": "lengthwise-serving",
        "version": 1,
        "task": run.task.kind,
        "label": run.task.label.name,
        "classes": list(predictor.answers.names),
        "inputs": [
            {
                "name": names[feature.name],
                "feature": feature.name,
                "dtype": _dtype(feature),
                "shape": ["steps" if feature.sequence else "rows", *feature.shape],
            }
            for feature in predictor.inputs
        ]
        + [
            {"name": LENGTH, "dtype": "int64", "shape": ["rows"]},
            {"name": MASK, "dtype": "bool", "shape": ["steps"], "signature": "with_mask"},
        ]
        + [
            {
                "name": names[observed_name(feature.name)],
                "dtype": "bool",
                "shape": ["steps", *feature.shape],
                "signature": "with_mask",
            }
            for feature in predictor.inputs
            if feature.name in predictor.serving.preprocessing.element_masked
        ],
        "outputs": list(exported.outputs),
        "per_step": predictor.answers.per_step,
        "dataset_fingerprint": run.fingerprint,
        "tensorflow": tf.__version__,
    }


def _dtype(feature: Feature) -> str:
    return feature.dtype if feature.encoding == NUMBERS else "string"


def _shape(feature: Feature) -> str:
    axes = ["steps" if feature.sequence else "rows", *map(str, feature.shape)]
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"
