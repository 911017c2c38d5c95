"""Data sets saved by Hugging Face `datasets`, read without that library.

    save_to_disk of a Dataset      state.json  dataset_info.json  data-00000-of-00002.arrow …
    save_to_disk of a DatasetDict  dataset_dict.json  train/ (as above)  test/ …

The data files are Arrow streams; `state.json` names them, beside caches that do not count. Shapes
of arrays stand in the metadata of the Arrow schema, which is also in Parquet files made from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from lengthwise.dataset.errors import InputError

STATE = "state.json"
DICTIONARY = "dataset_dict.json"

_MAX_DOCUMENT_BYTES = 1 << 26


def data_files(
    folder: str, read: Callable[[str], bytes | None], split: str | None = None
) -> Iterator[tuple[str, str | None]]:
    """The data files of a saved data set, and the split each belongs to.

    Args:
        folder: its name, for messages.
        read: path in the folder -> its bytes, None where there is no such file.
        split: given to all files of a single data set.

    Yields:
        Path in the folder, split.

    Raises:
        InputError: the documents of the data set are malformed or name files elsewhere.
    """
    splits = read(DICTIONARY)
    if splits is None:
        for name in _named_files(folder, read(STATE)):
            yield name, split
        return
    if split is not None:
        raise InputError(
            f"{folder}: has splits of its own; leave '{split}=' out, or name the folder of one"
        )
    for name in _names(f"{folder}/{DICTIONARY}", splits, "splits"):
        state = read(f"{name}/{STATE}")
        for file in _named_files(f"{folder}/{name}", state):
            yield f"{name}/{file}", name


def _named_files(folder: str, state: bytes | None) -> list[str]:
    if state is None:
        raise InputError(f"{folder}: no {STATE}, so no data set saved by save_to_disk")
    place = f"{folder}/{STATE}"
    document = _document(place, state)
    if document.get("_indices_data_files"):
        raise InputError(f"{place}: rows are chosen by an index; call flatten_indices() and save")
    files = document.get("_data_files")
    if not isinstance(files, list):
        raise InputError(f"{place}: names no data files")
    names = [file.get("filename") if isinstance(file, dict) else file for file in files]
    return [_plain_name(place, name) for name in names]


def _names(place: str, data: bytes, member: str) -> list[str]:
    names = _document(place, data).get(member)
    if not isinstance(names, list):
        raise InputError(f"{place}: names no {member}")
    return [_plain_name(place, name) for name in names]


def _plain_name(place: str, name: Any) -> str:
    """A name that stays in its folder."""
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or name in ("", ".", "..")
        or {"/", "\\"} & set(name)
    ):
        raise InputError(f"{place}: {str(name)[:80]!r} is no name of a file in its folder")
    return name


def _document(place: str, data: bytes) -> dict[str, Any]:
    try:
        if len(data) > _MAX_DOCUMENT_BYTES:
            raise ValueError(f"{len(data)} bytes are too many")
        document = json.loads(data)
    except (ValueError, RecursionError) as reason:
        raise InputError(f"{place}: not valid JSON: {str(reason)[:200]}") from None
    if not isinstance(document, dict):
        raise InputError(f"{place}: not a JSON object")
    return document


def huggingface_shapes(columns: pa.Schema) -> dict[str, tuple[int, ...]]:
    """Shapes of the steps of array columns, which Arrow has as lists of lists.

    Example:
        >>> info = '{"info": {"features": {"x": {"shape": [null, 12], "_type": "Array2D"}}}}'
        >>> columns = pa.schema([("x", pa.list_(pa.list_(pa.float32())))])
        >>> huggingface_shapes(columns.with_metadata({"huggingface": info}))
        {'x': (12,)}
    """
    text = (columns.metadata or {}).get(b"huggingface")
    if text is None or len(text) > _MAX_DOCUMENT_BYTES:
        return {}
    try:
        features = json.loads(text)["info"]["features"]
        shapes = {name: _shape(features[name]) for name in columns.names if name in features}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: shape for name, shape in shapes.items() if shape}


def _shape(feature: Any) -> tuple[int, ...]:
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _shape(feature["feature"])
    shape = feature.get("shape") or ()
    # The first size of an array may be open: then it is the number of steps.
    sizes = tuple(shape[1:] if shape and shape[0] is None else shape)
    return sizes if all(isinstance(size, int) and size > 0 for size in sizes) else ()
