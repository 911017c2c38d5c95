"""The files of the input: found, told apart, and named so that moving them changes nothing."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from lengthwise.dataset.errors import InputError, UsageError
from lengthwise.dataset.manifest import MANIFEST_NAME as DATASET
from lengthwise.dataset.reading import SourceOptions
from lengthwise.dataset.storage import is_url
from lengthwise.pipeline.sources import huggingface
from lengthwise.pipeline.sources.locations import file_system, in_file_system, open_random
from lengthwise.pipeline.sources.source import InputFile, one_line

_SPLIT_PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)", re.DOTALL)

_COMPRESSED = r"(\.(gz|zst|zstd))?"
_SUFFIXES = {
    "parquet": re.compile(r"\.(parquet|pq)$"),
    "arrow": re.compile(r"\.(arrows?|feather|ipc)$"),
    "jsonl": re.compile(rf"\.(jsonl|ndjson|json){_COMPRESSED}$"),
    "csv": re.compile(rf"\.csv{_COMPRESSED}$"),
    "tsv": re.compile(rf"\.(tsv|tab){_COMPRESSED}$"),
    "text": re.compile(rf"\.(txt|text){_COMPRESSED}$"),
    "tfrecord": re.compile(rf"\.tfrecords?(-\d+-of-\d+)?{_COMPRESSED}$"),
}
# In a folder these are as likely a note or a configuration.
_NEVER_BY_CHANCE = re.compile(rf"\.(json|txt|text){_COMPRESSED}$")

_MAX_DOCUMENT_BYTES = 1 << 26


def format_of_name(path: str) -> str | None:
    """The format that the suffix of a file stands for.

    Example:
        >>> format_of_name("rows/a.jsonl.gz"), format_of_name("s3://b/a.tfrecord-00000-of-00002")
        ('jsonl', 'tfrecord')
    """
    name = path.partition("?")[0] if is_url(path) else path
    for format_, suffix in _SUFFIXES.items():
        if suffix.search(name.lower()):
            return format_
    return None


def find_files(
    inputs: Sequence[str], options: SourceOptions | None = None
) -> tuple[InputFile, ...]:
    """Finds the input files, each once, in the order of their names.

    Args:
        inputs: files, globs, folders (searched to any depth) or URLs of such; `SPLIT=PATH` puts
            all rows found there into one split. A path that exists as it is written is never taken
            apart.
        options: how files are read; in a folder, those count whose suffix is one of the format, or
            of any format that is not also common for notes.

    Raises:
        InputError: nothing is found for one of the inputs, or one file is given two splits.
    """
    if not inputs:
        raise InputError("no input: name files, globs or folders")
    options = options or SourceOptions()
    splits: dict[str, str | None] = {}
    for written in inputs:
        split, pattern = _split_of(written)
        if not pattern.strip():
            raise UsageError("an INPUT is empty; name a file, a glob or a folder")
        expand = _expand_url if is_url(pattern) else _expand
        for path, own_split in expand(pattern, split, options):
            if splits.setdefault(path, own_split) != own_split:
                raise InputError(
                    f"{path}: is named for split '{splits[path]}' and for '{own_split}'; "
                    "name it once"
                )
    for path in splits:
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"{path!a}: the file's name is not UTF-8; rename it") from None
    names = _names_of(list(splits))
    files = [InputFile(path, names[path], split) for path, split in splits.items()]
    return tuple(sorted(files, key=lambda file: os.fsencode(file.name)))


def _split_of(written: str) -> tuple[str | None, str]:
    match = _SPLIT_PREFIX.fullmatch(written)
    if match is None or os.path.lexists(written) or glob.glob(written):
        return None, written
    return match[1], match[2]


def _names_of(paths: list[str]) -> dict[str, str]:
    """Paths relative to their common folder."""
    parts = {path: _as_named(path).split("/") for path in paths}
    least, greatest = min(parts.values()), max(parts.values())
    shared = 0
    while shared < min(len(least), len(greatest)) - 1 and least[shared] == greatest[shared]:
        shared += 1
    if shared == 0 and len(paths) > 1:
        raise InputError(
            f"{paths[0]} and {paths[-1]} are in different file systems; bring them into one"
        )
    return {path: "/".join(parts_[shared:]) for path, parts_ in parts.items()}


def _as_named(path: str) -> str:
    """A path as its file is called, however the URL writes it."""
    if not is_url(path):
        return Path(path).as_posix()
    url = path.partition("?")[0]
    return unquote(url) if url.startswith("file://") else url


def _expand(
    pattern: str, split: str | None, options: SourceOptions
) -> list[tuple[str, str | None]]:
    path = Path(pattern)
    if path.is_dir():
        return _in_folder(path, split, options)
    if path.exists():
        return [(str(path.resolve()), split)]
    found = []
    for name in sorted(glob.glob(pattern, recursive=True)):
        matched = Path(name)
        if matched.is_dir():
            found += _in_folder(matched, split, options)
        else:
            found.append((str(matched.resolve()), split))
    if not found:
        raise InputError(f"{pattern}: no such file or folder")
    return found


def _in_folder(
    folder: Path, split: str | None, options: SourceOptions
) -> list[tuple[str, str | None]]:
    """The input files below a folder, and their splits."""
    found: list[tuple[str, str | None]] = []
    formats: dict[str, str] = {}
    walked: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in walked or DATASET in names:
            # A link back to where we have been, or a dataset of ours: output, not input.
            folders.clear()
            continue
        walked.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        saved = {huggingface.STATE, huggingface.DICTIONARY} & set(names)
        if saved and options.format in (None, "hf"):
            folders.clear()
            formats.setdefault("hf", place)
            found += [
                (str(Path(place, name).resolve()), own_split)
                for name, own_split in huggingface.data_files(place, _reader(Path(place)), split)
            ]
            continue
        for name in sorted(names):
            path = Path(place, name)
            format_ = _format_in_folder(name, options)
            if format_ is not None and path.is_file():
                formats.setdefault(format_, str(path))
                found.append((str(path.resolve()), split))
    return _of_one_format(str(folder), found, formats)


def _unreadable(reason: OSError) -> None:
    raise InputError(f"{reason.filename}: cannot be read: {reason.strerror}") from None


def _reader(folder: Path):
    def read(name: str) -> bytes | None:
        try:
            with open(folder / name, "rb") as file:
                return file.read(_MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as reason:
            raise InputError(f"{folder / name}: cannot be read: {reason.strerror}") from None

    return read


def _format_in_folder(name: str, options: SourceOptions) -> str | None:
    """The format of a file in a folder; None where it is not taken for input."""
    if name.startswith((".", "_")) or options.format == "hf":
        return None
    format_ = format_of_name(name)
    if options.format is not None:
        # Parts written by other systems often have no suffix at all.
        return options.format if format_ == options.format or "." not in name else None
    return None if _NEVER_BY_CHANCE.search(name.lower()) else format_


def _of_one_format(
    folder: str, found: list[tuple[str, str | None]], formats: dict[str, str]
) -> list[tuple[str, str | None]]:
    if not found:
        raise InputError(
            f"{folder}: no input file in this folder; say --format where suffixes do not tell"
        )
    if len(formats) > 1:
        examples = ", ".join(f"{format_} ({path})" for format_, path in sorted(formats.items()))
        raise InputError(f"{folder}: files of several formats: {examples}; choose with --format")
    return found


def _expand_url(
    pattern: str, split: str | None, options: SourceOptions
) -> list[tuple[str, str | None]]:
    from pyarrow import fs

    system, path = file_system(pattern)
    try:
        if not glob.has_magic(path):
            kind = system.get_file_info(path).type
            if kind == fs.FileType.File:
                return [(pattern, split)]
            if kind == fs.FileType.Directory:
                return _in_url_folder(pattern, path, split, options)
            raise InputError(f"{pattern}: no such file or folder")
        folder = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
        matches = re.compile(_glob_regex(path))
        found = [
            (in_file_system(pattern, name), split)
            for name in _listed(system, folder)
            if matches.fullmatch(name)
        ]
    except (OSError, pa.ArrowException) as reason:
        raise InputError(f"{pattern}: cannot be listed: {one_line(reason)}") from None
    if not found:
        raise InputError(f"{pattern}: no such file")
    return found


def _in_url_folder(
    url: str, folder: str, split: str | None, options: SourceOptions
) -> list[tuple[str, str | None]]:
    system, _ = file_system(url)
    listed = [name[len(folder) :].lstrip("/") for name in _listed(system, folder)]

    def read(name: str) -> bytes | None:
        if name not in listed:
            return None
        with open_random(in_file_system(url, f"{folder.rstrip('/')}/{name}")) as file:
            return file.read(_MAX_DOCUMENT_BYTES + 1)

    def url_of(name: str) -> str:
        return in_file_system(url, f"{folder.rstrip('/')}/{name}")

    if {huggingface.STATE, huggingface.DICTIONARY} & set(listed) and options.format in (None, "hf"):
        return [
            (url_of(name), own_split)
            for name, own_split in huggingface.data_files(url, read, split)
        ]
    found, formats = [], {}
    for name in listed:
        *folders, own = name.split("/")
        format_ = _format_in_folder(own, options)
        if format_ is not None and not any(part.startswith((".", "_")) for part in folders):
            formats.setdefault(format_, name)
            found.append((url_of(name), split))
    return _of_one_format(url, found, formats)


def _listed(system, folder: str) -> Iterator[str]:
    from pyarrow import fs

    for info in system.get_file_info(fs.FileSelector(folder, recursive=True)):
        if info.type == fs.FileType.File:
            yield info.path


def _glob_regex(pattern: str) -> str:
    """A regular expression for a glob over a whole path: `**/` is any folders, `*` stays in one."""
    expression = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern):
        expression += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(
            part, part if part[:1] == "[" else re.escape(part)
        )
    return expression
