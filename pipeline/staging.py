"""The staging folder: what a build has done so far, so that a killed build can go on.

    OUT/.staging/
      lock                    held while a build runs
      staging.json            what the staged rows depend on; another build starts afresh
      units/000007.arrow       rows of a unit, packed and sorted by (split, length)
      units/000007-….strings.arrow   different strings of a feature, with counts
      units/000007.rejected.arrow    its faulty rows, where there are any
      units/000007.json        its report; written last, so a unit with a report is whole
      shards-<plan>/…json      one for each finished shard
      shards-<plan>/data/…     the finished shards, until they are moved into the dataset
      shards-<plan>/places/000007   where the rows of each shard are in a unit, in their order

Rows that were staged before the machine was started again are not trusted: they were never synced.

Each build has a folder of its own, named by what its staged rows depend on: workers of a cluster
can go on for a while after their command was killed, and what they write must not get among the
rows of another build.

An object store has no locks. There, a build that was started later takes the claim away from an
earlier one, which then stops before it replaces the dataset:

    OUT/.staging/claim           names the build that was started last, and its folder
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

from lengthwise.dataset.errors import OutputError
from lengthwise.dataset.storage import (
    TEMPORARY_PREFIX,
    RemotePath,
    StoragePath,
    files_below,
    read_files,
    remove_folder,
    storage_path,
    written_whole,
)
from lengthwise.transforms.writing import write_text

T = TypeVar("T")

_LOCK_NAME = "lock"
_CLAIM_NAME = "claim"
_OWN_FOLDER = re.compile(r"[0-9a-f]{16}")
IDENTITY_NAME = "staging.json"


class Staging:
    """The staging folder of one build, locked while it is open.

    Args:
        folder: of all builds of a dataset, made if it is not there.
        identity: JSON of everything that the staged rows depend on.

    Attributes:
        folder: where to stage.
        is_new: whether no earlier run of the same build has left anything there.

    Raises:
        OutputError: another build works in this folder.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._all = folder
        self._lock = _locked(folder)
        text = json.dumps({**identity, "boot": _boot_id()}, sort_keys=True)
        self.folder = folder / _name_of(text)
        path = self.folder / IDENTITY_NAME
        self.is_new = not path.is_file()
        kept = {_LOCK_NAME} if self.is_new else {_LOCK_NAME, self.folder.name}
        for child in list(folder.iterdir()):
            if child.name not in kept:
                # First what makes the rest believable, so that being killed here does no harm.
                if child.is_dir():
                    (child / IDENTITY_NAME).unlink(missing_ok=True)
                _remove(child)
        if self.is_new:
            write_text(path, text)
        (self.folder / "units").mkdir(exist_ok=True)
        for stray in self.folder.rglob(f"{TEMPORARY_PREFIX}*"):
            stray.unlink(missing_ok=True)

    def confirm(self) -> None:
        """Nothing: the lock has kept other builds away."""

    def remove(self) -> None:
        """Deletes the folder and lets go of the lock."""
        (self.folder / IDENTITY_NAME).unlink(missing_ok=True)
        remove_folder(self._all)
        self._lock.close()

    def close(self) -> None:
        """Lets go of the lock; what was staged stays for the next run."""
        self._lock.close()


class RemoteStaging:
    """The staging folder of one build in an object store.

    Args:
        folder: of all builds of a dataset.
        identity: JSON of everything that the staged rows depend on.

    Attributes:
        folder: where to stage.
        is_new: whether no earlier run of the same build has left anything there.
    """

    def __init__(self, folder: RemotePath, identity: Mapping[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True)
        self._all = folder
        self.folder = folder / _name_of(text)
        self._claim = f"{uuid.uuid4().hex} {self.folder.name}"
        write_text(folder / _CLAIM_NAME, self._claim)
        for other in list(folder.iterdir()):
            if other.is_dir() and other != self.folder:
                _remove_staged(other)
        self.is_new = not (self.folder / IDENTITY_NAME).exists()
        if self.is_new:
            remove_folder(self.folder)  # what is left of one that was being deleted
        write_text(self.folder / IDENTITY_NAME, text)

    def confirm(self) -> None:
        """Raises OutputError where another build was started here after this one."""
        if self._last() != self._claim:
            raise OutputError(
                f"{self._all.parent}: another build was started here, or has ended; the dataset is "
                "left to it; run the same command again once it is done"
            )

    def remove(self) -> None:
        """Deletes the folder, with all of other builds unless one of them is the last."""
        last = self._last()
        if last == self._claim:
            _remove_staged(self.folder)
            remove_folder(self._all)
        elif not last.endswith(self.folder.name):
            _remove_staged(self.folder)  # else the last one, the same build, works in it

    def close(self) -> None:
        """Does nothing: what was staged stays for the next run."""

    def _last(self) -> str:
        (claim,) = read_files([self._all / _CLAIM_NAME])
        return (claim or b"").decode(errors="replace")


def open_staging(folder: StoragePath, identity: Mapping[str, Any]) -> Staging | RemoteStaging:
    """The staging folder of a build, wherever it is."""
    if isinstance(folder, RemotePath):
        return RemoteStaging(folder, identity)
    return Staging(folder, identity)


def is_staging(folder: StoragePath) -> bool:
    """Whether a folder is the staging folder of a build, and nothing else stands in it."""
    if isinstance(folder, RemotePath):
        names = {child.name for child in folder.iterdir()}
        return bool(names) and all(
            name == _CLAIM_NAME or _OWN_FOLDER.fullmatch(name) for name in names
        )
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {child.name for child in folder.iterdir()}
    # Without a lock it is what a worker has written that went on after its build had ended.
    return all(name == _LOCK_NAME or _OWN_FOLDER.fullmatch(name) for name in names)


def _name_of(identity: str) -> str:
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


def unit_rows_path(folder: str, number: int) -> StoragePath:
    """Where the packed rows of a unit are."""
    return storage_path(folder) / "units" / f"{number:06d}.arrow"


def unit_report_path(folder: str, number: int) -> StoragePath:
    """Where the report of a unit is; it exists once the unit is whole."""
    return storage_path(folder) / "units" / f"{number:06d}.json"


def unstaged(folder: str, units: Sequence[T]) -> list[tuple[int, T]]:
    """The units that are not staged yet, with their numbers."""
    there = files_below(unit_report_path(folder, 0).parent)
    return [
        (number, unit)
        for number, unit in enumerate(units)
        if unit_report_path(folder, number).name not in there
        or unit_rows_path(folder, number).name not in there
    ]


def unit_strings_path(folder: str, number: int, feature: str) -> StoragePath:
    """Where the different strings of a feature in a unit are, with their counts."""
    return storage_path(folder) / "units" / f"{number:06d}-{quote(feature, safe='')}.strings.arrow"


def damaged(folder: str) -> OutputError:
    """What is raised where rows in a staging folder are not what was staged."""
    return OutputError(
        f"{folder}: staged rows are damaged; delete this folder and run the same command again"
    )


def unit_rejected_path(folder: str, number: int) -> StoragePath:
    """Where the rejected rows of a unit are; not there where it has none."""
    return storage_path(folder) / "units" / f"{number:06d}.rejected.arrow"


def shards_folder(folder: str, plan_hash: str) -> StoragePath:
    """Where the reports of the shards of a plan are; the shards are in `data` below it."""
    return storage_path(folder) / f"shards-{plan_hash}"


def unit_places_path(shards: StoragePath, number: int) -> StoragePath:
    """Where a unit's places of rows are, sorted by shard."""
    return shards / "places" / f"{number:06d}"


def shard_report_path(shards: StoragePath, shard: tuple[str, int, int]) -> StoragePath:
    """Where the report of a shard is; it exists once the shard has its final name."""
    split, max_length, index = shard
    return shards / f"{split}-{max_length:08d}-{index:05d}.json"


def write_report(path: StoragePath, report: Mapping[str, Any]) -> None:
    """Writes a report whole or not at all."""
    # Not synced: what is staged is only believed while the machine stays up.
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(report), encoding="utf-8")


def read_reports(paths: Iterable[StoragePath]) -> Iterator[dict[str, Any]]:
    """Reads the reports that are there, in the order given, one at a time."""
    return (json.loads(report) for report in read_files(paths) if report is not None)


def _locked(folder: Path) -> IO[str]:
    """The open lock file of a staging folder, which nobody else holds."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _LOCK_NAME
        try:
            lock = open(path, "w")
        except FileNotFoundError:
            continue  # the folder was removed in between, by a build that ended
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise OutputError(
                f"{folder.parent}: another build is at work here; wait for it, or choose another "
                "output folder"
            ) from None
        try:
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                return lock
        except FileNotFoundError:
            pass
        lock.close()  # the file that was locked is no longer the one of that name


def _remove_staged(folder: RemotePath) -> None:
    (folder / IDENTITY_NAME).unlink(missing_ok=True)
    remove_folder(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
