"""The state of a run between two steps: all variables, and where the run is."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from lengthwise.dataset import CorruptDataError
from lengthwise.model.run import replace_synced

_DOCUMENT = "document"
_MAX_DOCUMENT_BYTES = 1 << 26
# What NumPy writes before the values of an array.
_HEADER_BYTES = 1 << 12


def save_state(
    path: Path, variables: Mapping[str, Sequence[Any]], document: Mapping[str, Any]
) -> None:
    """Writes a state; a reader finds the old one or the new one, whole, even after a power cut.

    Args:
        path: an .npz file.
        variables: name of a group -> Keras variables.
        document: a JSON object.
    """
    arrays = {
        _key(group, number): value_of(variable)
        for group, members in variables.items()
        for number, variable in enumerate(members)
    }
    text = json.dumps(document, allow_nan=True).encode()
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "wb") as file:
        save: Any = np.savez
        save(file, **{_DOCUMENT: np.frombuffer(text, np.uint8)}, **arrays)
    replace_synced(temporary, path)


def load_state(path: Path, variables: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Reads what `save_state` wrote into the same variables.

    Args:
        path: the file.
        variables: as they were given to `save_state`; they change only if all of it fits.

    Returns:
        The document.

    Raises:
        CorruptDataError: the file is damaged, or of other variables.
    """
    expected = {
        _key(group, number): variable
        for group, members in variables.items()
        for number, variable in enumerate(members)
    }
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {
                info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()
            }
        if set(sizes) != {_DOCUMENT, *expected}:
            raise ValueError("it holds other variables")
        for name, size in sizes.items():
            most = _MAX_DOCUMENT_BYTES
            if name in expected:
                most = int(np.prod(expected[name].shape)) * 8
            if size > most + _HEADER_BYTES:
                raise ValueError(f"'{name}' is larger than its variable")
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in sizes}
        for name, variable in expected.items():
            if values[name].shape != tuple(variable.shape):
                raise ValueError(f"'{name}' has the shape {values[name].shape}")
            if values[name].dtype != variable.dtype:
                raise ValueError(f"'{name}' is {values[name].dtype}")
        document = json.loads(values[_DOCUMENT].tobytes())
        if not isinstance(document, dict):
            raise ValueError("it holds no document")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as reason:
        raise CorruptDataError(
            f"{path}: is no state of this run: {reason}; begin again with --fresh"
        ) from None
    for name, variable in expected.items():
        variable.assign(values[name])
    return document


def value_of(variable: Any) -> np.ndarray:
    """The value of a Keras variable; under a strategy that of all replicas together.

    Where a variable is summed over workers, all of them must ask for it at the same step.
    """
    return np.asarray(tf.convert_to_tensor(getattr(variable, "value", variable)))


def _key(group: str, number: int) -> str:
    return f"{group}-{number:05d}"
