"""The output folder: claimed before a build, switched to the new dataset in one step at its end."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

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
from lengthwise.pipeline.accounts import Rejected
from lengthwise.pipeline.report import render_report
from lengthwise.pipeline.staging import is_staging
from lengthwise.transforms.vocabulary import vocabulary_text
from lengthwise.transforms.writing import TEMPORARY_PREFIX, sync_folder, write_text

_UNFINISHED = re.compile(
    re.escape(TEMPORARY_PREFIX) + rf"([0-9a-f]{{32}}|{re.escape(Path(REJECTED_NAME).name)})"
)


def claim_output(out: Path) -> bool:
    """Makes the output folder; returns whether it was not there before.

    Raises:
        OutputError: there is something that Lengthwise did not write, or nothing can be written.
    """
    try:
        if not out.exists():
            out.mkdir(parents=True)
            return True
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
    if not os.access(out, os.W_OK):
        raise OutputError(f"{out}: cannot be written to; choose another output folder")
    return False


def release_output(out: Path, *, was_made: bool) -> None:
    """Removes the output folder again if the build made it and nothing is in it."""
    if was_made and out.is_dir() and not any(out.iterdir()):
        out.rmdir()


def commit(manifest: Manifest, plan: Plan, staged: Path, rejected: Sequence[Rejected] = ()) -> None:
    """Makes a finished build the dataset of its folder.

    Up to the rename of the manifest, readers see the old dataset; from then on the new one. The
    plan stands in the data folder too, so that at no moment a manifest is without its plan.

    Args:
        manifest: of the new dataset.
        plan: of the new dataset.
        staged: folder of its shards.
        rejected: faulty rows that were left out.
    """
    plan_text = plan.dumps()
    _sweep_unfinished(manifest.root)
    _move_shards(manifest, staged)
    write_text(manifest.data_folder / PLAN_NAME, plan_text)
    old_vocabularies = _vocabulary_files(manifest.root)
    write_text(manifest.root / MANIFEST_NAME, manifest.dumps())
    write_text(manifest.root / PLAN_NAME, plan_text)
    _write_vocabularies(manifest.root / VOCABULARY_FOLDER, plan, old_vocabularies)
    _write_rejected(manifest.root / REJECTED_NAME, rejected)
    write_text(manifest.root / REPORT_NAME, render_report(manifest))
    sweep(manifest)


def sweep(manifest: Manifest) -> None:
    """Deletes data folders and shards that the manifest does not name; nobody else's files."""
    named = {manifest.path_of(shard) for shard in manifest.shards}
    named.add(manifest.data_folder / PLAN_NAME)
    for folder in data_folders(manifest.root):
        if folder != manifest.data_folder:
            shutil.rmtree(folder)
    for path in sorted(manifest.data_folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in named:
            path.unlink()


def _sweep_unfinished(root: Path) -> None:
    """Deletes documents that a build was killed over before they had a name."""
    for folder in (root, root / VOCABULARY_FOLDER, (root / REJECTED_NAME).parent):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()


def _move_shards(manifest: Manifest, staged: Path) -> None:
    """Moves the shards to the data folder, which is named by what is in them."""
    target = manifest.data_folder
    if manifest.shards and not target.exists():
        os.rename(staged, target)
    for shard in manifest.shards:
        path = manifest.path_of(shard)
        if (staged / shard.name).is_file():
            # The folder was there: the same bytes again, or better ones where they were damaged.
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged / shard.name, path)
        if not path.is_file() or path.stat().st_size != shard.nbytes:
            raise OutputError(f"{path}: vanished while the build ran; run the same command again")
    for split in {shard.split for shard in manifest.shards}:
        sync_folder(target / split)
    target.mkdir(exist_ok=True)
    sync_folder(target)
    sync_folder(manifest.root)


def _vocabulary_files(root: Path) -> set[str]:
    """Names of the vocabularies of the dataset that is there now."""
    try:
        return {_vocabulary_file(name) for name in Plan.load(root / PLAN_NAME).vocabularies}
    except PlanError:
        return set()


def _vocabulary_file(feature: str) -> str:
    return f"{quote(feature, safe='')}.txt"


def _write_vocabularies(folder: Path, plan: Plan, old: set[str]) -> None:
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


def _write_rejected(path: Path, rejected: Sequence[Rejected]) -> None:
    """The rows that were left out because they are faulty, for people to look at."""
    if not rejected:
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
        return
    path.parent.mkdir(exist_ok=True)
    table = pa.table(
        {
            "file": pa.array([row.file for row in rejected], pa.string()),
            "row": pa.array([row.row for row in rejected], pa.int64()),
            "reason": pa.array([row.reason for row in rejected], pa.string()),
            "raw": pa.array([row.raw for row in rejected], pa.string()),
        }
    )
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
    try:
        pq.write_table(table, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def text_crc32c(text: str) -> int:
    """CRC32C of a document as it stands in its file."""
    return crc32c.crc32c(text.encode("utf-8"))


def _require_ours(path: Path) -> None:
    try:
        document = read_document(path, error=ManifestError)
    except ManifestError as reason:
        raise OutputError(f"{reason}; choose another output folder") from None
    if document.get("format") != MANIFEST_FORMAT:
        raise OutputError(f"{path}: was not written by Lengthwise; choose another output folder")
