"""The output folder: claimed before a build, switched to the new dataset in one step at its end."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import crc32c
import pyarrow as pa

from lengthwise.dataset.document import read_document
from lengthwise.dataset.errors import ManifestError, OutputError, PlanError
from lengthwise.dataset.manifest import (
    MANIFEST_FORMAT,
    MANIFEST_NAME,
    PLAN_NAME,
    REJECTED_NAME,
    REPORT_NAME,
    STAGING_NAME,
    VOCABULARY_FOLDER,
    Manifest,
    data_folders,
)
from lengthwise.dataset.plan import Plan
from lengthwise.dataset.storage import (
    TEMPORARY_PREFIX,
    RemotePath,
    StoragePath,
    copy_files,
    files_below,
    remove_folder,
    rename,
    written_whole,
)
from lengthwise.pipeline.rejected import LISTED
from lengthwise.pipeline.report import render_report
from lengthwise.pipeline.row_groups import write_row_groups
from lengthwise.pipeline.staging import is_staging
from lengthwise.transforms.vocabulary import vocabulary_text
from lengthwise.transforms.writing import sync_folder, write_text

# Of the list of rejected rows, whose texts may be a few KiB each.
_ROW_GROUP_ROWS = 1 << 14
_UNFINISHED = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{32}")


def claim_output(out: StoragePath) -> bool:
    """Makes the output folder; returns whether it was not there before.

    Raises:
        OutputError: there is something that Lengthwise did not write, or nothing can be written.
    """
    try:
        if not out.exists():
            out.mkdir(parents=True)
            return isinstance(out, Path)
        if not out.is_dir():
            raise OutputError(f"{out}: is a file, not a folder; choose another output folder")
        names = {child.name for child in out.iterdir()}
    except OSError as reason:
        raise OutputError(f"{out}: cannot be used: {reason.strerror}") from None
    staging = out / STAGING_NAME
    ours = MANIFEST_NAME in names or is_staging(staging)
    if (names and not ours) or (STAGING_NAME in names and not is_staging(staging)):
        strange = STAGING_NAME if ours else min(names)
        raise OutputError(
            f"{out}: holds something that is no dataset ({strange}, …); choose an empty or a new "
            "output folder"
        )
    if MANIFEST_NAME in names:
        _require_ours(out / MANIFEST_NAME)
    if isinstance(out, Path) and not os.access(out, os.W_OK):
        raise OutputError(f"{out}: cannot be written to; choose another output folder")
    return False


def release_output(out: StoragePath, *, was_made: bool) -> None:
    """Removes the output folder again if the build made it and nothing is in it."""
    if was_made and out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def commit(
    manifest: Manifest,
    plan: Plan,
    staged: StoragePath,
    rejected: Iterable[pa.Table] = (),
    *,
    confirm: Callable[[], None] = lambda: None,
) -> None:
    """Makes a finished build the dataset of its folder.

    Up to the moment when the manifest is replaced, readers see the old dataset; from then on the
    new one. The plan stands in the data folder too, so that at no moment a manifest is without it.

    Args:
        manifest: of the new dataset.
        plan: of the new dataset.
        staged: folder of its shards.
        rejected: faulty rows that were left out, in tables with the columns of `LISTED`.
        confirm: called right before the manifest is replaced, to raise where that must not be.
    """
    plan_text = plan.dumps()
    _sweep_unfinished(manifest.root)
    _move_shards(manifest, staged)
    write_text(manifest.data_folder / PLAN_NAME, plan_text)
    old_vocabularies = _vocabulary_files(manifest.root)
    with _listed(manifest.root / REJECTED_NAME, rejected):
        confirm()
        write_text(manifest.root / MANIFEST_NAME, manifest.dumps())
        write_text(manifest.root / PLAN_NAME, plan_text)
        _write_vocabularies(manifest.root / VOCABULARY_FOLDER, plan, old_vocabularies)
    write_text(manifest.root / REPORT_NAME, render_report(manifest))
    sweep(manifest)


def sweep(manifest: Manifest) -> None:
    """Deletes data folders and shards that the manifest does not name; nobody else's files."""
    data = manifest.data_folder
    for folder in data_folders(manifest.root):
        if folder != data:
            remove_folder(folder)
    for name in files_below(data).keys() - {PLAN_NAME, *(shard.name for shard in manifest.shards)}:
        (data / name).unlink()
    if isinstance(data, Path):
        for path in sorted(data.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()


def _sweep_unfinished(root: StoragePath) -> None:
    """Deletes documents that a build was killed over before they had a name."""
    if isinstance(root, RemotePath):
        return
    for folder in (root, root / VOCABULARY_FOLDER, (root / REJECTED_NAME).parent):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()


def _move_shards(manifest: Manifest, staged: StoragePath) -> None:
    """Moves the shards to the data folder, which is named by what is in them."""
    target = manifest.data_folder
    if isinstance(target, RemotePath):
        # The store copies them; those in staging stay, should this be stopped half-way.
        try:
            copy_files((staged / shard.name, target / shard.name) for shard in manifest.shards)
        except OSError as reason:
            raise OutputError(f"{reason.filename}: {reason.strerror}; build again") from None
    elif manifest.shards and not target.exists():
        rename(staged, target)
    else:
        for shard in manifest.shards:
            if (staged / shard.name).is_file():
                # The folder was there: the same bytes again, or better ones for damaged ones.
                manifest.path_of(shard).parent.mkdir(parents=True, exist_ok=True)
                rename(staged / shard.name, manifest.path_of(shard))
    there = files_below(target)
    for shard in manifest.shards:
        if there.get(shard.name) != shard.nbytes:
            raise OutputError(
                f"{manifest.path_of(shard)}: vanished while the build ran; run the same command "
                "again"
            )
    for split in {shard.split for shard in manifest.shards}:
        sync_folder(target / split)
    target.mkdir(exist_ok=True)
    sync_folder(target)
    sync_folder(manifest.root)


def _vocabulary_files(root: StoragePath) -> set[str]:
    """Names of the vocabularies of the dataset that is there now."""
    try:
        return {_vocabulary_file(name) for name in Plan.load(root / PLAN_NAME).vocabularies}
    except PlanError:
        return set()


def _vocabulary_file(feature: str) -> str:
    return f"{quote(feature, safe='')}.txt"


def _write_vocabularies(folder: StoragePath, plan: Plan, old: set[str]) -> None:
    """The vocabularies for people to read; programs take them from the plan."""
    names = {_vocabulary_file(name): name for name in plan.vocabularies}
    for file in old - set(names):
        (folder / file).unlink(missing_ok=True)
    if folder.is_dir() and not names and not any(folder.iterdir()):
        folder.rmdir()
    if names:
        folder.mkdir(exist_ok=True)
    for file, name in names.items():
        write_text(folder / file, vocabulary_text(plan.vocabularies[name]))


@contextlib.contextmanager
def _listed(path: StoragePath, rejected: Iterable[pa.Table]) -> Iterator[None]:
    """Writes the list of faulty rows for people to look at; it has its name when the body ends."""
    # Pages end where chunks do.
    tables = (table.combine_chunks() for table in rejected)
    first = next(tables, None)
    if first is not None:
        tables = itertools.chain([first], tables)
        with written_whole(path) as unfinished:
            write_row_groups(unfinished, LISTED, tables, rows=_ROW_GROUP_ROWS, compression="snappy")
            yield
        return
    yield
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def text_crc32c(text: str) -> int:
    """CRC32C of a document as it stands in its file."""
    return crc32c.crc32c(text.encode("utf-8"))


def _require_ours(path: StoragePath) -> None:
    try:
        document = read_document(path, error=ManifestError)
    except ManifestError as reason:
        raise OutputError(f"{reason}; choose another output folder") from None
    if document.get("format") != MANIFEST_FORMAT:
        raise OutputError(f"{path}: was not written by Lengthwise; choose another output folder")
