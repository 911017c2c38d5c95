"""The staging folder: what a build has done so far, so that a killed build can go on.

    OUT/.staging/
      lock                    held while a build runs
      staging.json            what the staged rows depend on; another build starts afresh
      units/000007.arrow       rows of a unit, packed and sorted by (split, length)
      units/000007-….strings.arrow   different strings of a feature, with counts
      units/000007.json        its report; written last, so a unit with a report is whole
      shards-<plan>/…json      one for each finished shard
      shards-<plan>/data/…     the finished shards, until they are moved into the dataset
      shards-<plan>/places/000007   where the rows of each shard are in a unit, in their order

Rows that were staged before the machine was started again are not trusted: they were never synced.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from lengthwise.dataset.errors import OutputError
from lengthwise.transforms.writing import TEMPORARY_PREFIX, write_text

_LOCK_NAME = "lock"
IDENTITY_NAME = "staging.json"


class Staging:
    """The staging folder of one build, locked while it is open.

    Args:
        folder: made if it is not there.
        identity: JSON of everything that the staged rows depend on.

    Raises:
        OutputError: another build works in this folder.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._lock = _locked(folder)
        text = json.dumps({**identity, "boot": _boot_id()}, sort_keys=True)
        path = folder / IDENTITY_NAME
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            # First what makes the rest believable, so that being killed here does no harm.
            path.unlink(missing_ok=True)
            for child in folder.iterdir():
                if child.name != _LOCK_NAME:
                    _remove(child)
            write_text(path, text)
        (folder / "units").mkdir(exist_ok=True)
        for stray in folder.rglob(f"{TEMPORARY_PREFIX}*"):
            stray.unlink(missing_ok=True)

    def remove(self) -> None:
        """Deletes the folder and lets go of the lock."""
        (self.folder / IDENTITY_NAME).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def close(self) -> None:
        """Lets go of the lock; what was staged stays for the next run."""
        self._lock.close()


def is_staging(folder: Path) -> bool:
    """Whether a folder is the staging folder of a build, and nothing else stands in it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {child.name for child in folder.iterdir()}
    known = {_LOCK_NAME, IDENTITY_NAME, "units"}
    return _LOCK_NAME in names and all(
        name in known or name.startswith(("shards-", TEMPORARY_PREFIX)) for name in names
    )


def unit_rows_path(folder: str, number: int) -> Path:
    """Where the packed rows of a unit are."""
    return Path(folder) / "units" / f"{number:06d}.arrow"


def unit_report_path(folder: str, number: int) -> Path:
    """Where the report of a unit is; it exists once the unit is whole."""
    return Path(folder) / "units" / f"{number:06d}.json"


def unit_strings_path(folder: str, number: int, feature: str) -> Path:
    """Where the different strings of a feature in a unit are, with their counts."""
    return Path(folder) / "units" / f"{number:06d}-{quote(feature, safe='')}.strings.arrow"


def shards_folder(folder: str, plan_hash: str) -> Path:
    """Where the reports of the shards of a plan are; the shards are in `data` below it."""
    return Path(folder) / f"shards-{plan_hash}"


def unit_places_path(shards: Path, number: int) -> Path:
    """Where a unit's places of rows are, sorted by shard."""
    return shards / "places" / f"{number:06d}"


def shard_report_path(shards: Path, shard: tuple[str, int, int]) -> Path:
    """Where the report of a shard is; it exists once the shard has its final name."""
    split, max_length, index = shard
    return shards / f"{split}-{max_length:08d}-{index:05d}.json"


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Writes a report whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{os.getpid()}")
    # Not synced: what is staged is only believed while the machine stays up.
    temporary.write_text(json.dumps(report), encoding="utf-8")
    os.replace(temporary, path)


def read_reports(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Reads the reports that are there, in the order given."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]


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
