"""The files of the input: found, told apart, and named so that moving them changes nothing."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lengthwise.dataset.errors import InputError

_SPLIT_PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class InputFile:
    """A file of the input.

    Attributes:
        path: where it is now.
        name: path relative to the inputs' common folder, with `/`; part of every row key.
        split: the split that all its rows belong to; None draws the split of each row.
    """

    path: str
    name: str
    split: str | None = None


def find_files(inputs: Sequence[str], is_input: Callable[[Path], bool]) -> tuple[InputFile, ...]:
    """Finds the input files, each once, in the order of their names.

    Args:
        inputs: files, globs or folders (searched to any depth); `SPLIT=PATH` puts all rows found
            there into one split. A path that exists as it is written is never taken apart.
        is_input: which files of a folder count.

    Raises:
        InputError: nothing is found for one of the inputs, or one file is given two splits.
    """
    if not inputs:
        raise InputError("no input: name files, globs or folders")
    splits: dict[Path, str | None] = {}
    for written in inputs:
        split, pattern = _split_of(written)
        for path in _expand(pattern, is_input):
            path = path.resolve()
            if splits.setdefault(path, split) != split:
                raise InputError(
                    f"{path}: is named for split '{splits[path]}' and for '{split}'; name it once"
                )
    common = Path(os.path.commonpath([path.parent for path in splits]))
    files = [
        InputFile(str(path), path.relative_to(common).as_posix(), split)
        for path, split in splits.items()
    ]
    return tuple(sorted(files, key=lambda file: file.name.encode()))


def _split_of(written: str) -> tuple[str | None, str]:
    match = _SPLIT_PREFIX.fullmatch(written)
    if match is None or os.path.lexists(written) or glob.glob(written):
        return None, written
    return match[1], match[2]


def _expand(pattern: str, is_input: Callable[[Path], bool]) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        found = [file for file in path.rglob("*") if is_input(file) and file.is_file()]
        if not found:
            raise InputError(f"{pattern}: no Parquet file in this folder")
        return found
    if path.exists():
        return [path]
    found = []
    for name in glob.glob(pattern, recursive=True):
        matched = Path(name)
        found += _expand(name, is_input) if matched.is_dir() else [matched]
    if not found:
        raise InputError(f"{pattern}: no such file or folder")
    return found
