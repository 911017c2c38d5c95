"""The output folder: claimed before a build, switched to the new dataset in one step at its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from lengthwise.dataset.document import read_document
from lengthwise.dataset.errors import ManifestError, OutputError
from lengthwise.dataset.manifest import (
    MANIFEST_FORMAT,
    MANIFEST_NAME,
    PLAN_NAME,
    REJECTED_NAME,
    REPORT_NAME,
    VOCABULARY_FOLDER,
    Manifest,
    data_folder_name,
)
from lengthwise.dataset.plan import Plan
from lengthwise.pipeline.accounts import Rejected
from lengthwise.pipeline.report import render_report
from lengthwise.pipeline.staging import STAGING_NAME
from lengthwise.transforms.vocabulary import vocabulary_text
from lengthwise.transforms.writing import TEMPORARY_PREFIX, sync_folder, write_text


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
    if names and MANIFEST_NAME not in names and STAGING_NAME not in names:
        raise OutputError(
            f"{out}: holds something that is no dataset ({sorted(names)[0]}, …); choose an empty "
            "or a new output folder"
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


def commit(manifest: Manifest, plan: Plan, rejected: Sequence[Rejected] = ()) -> None:
    """Makes a finished build the dataset of its folder.

    Up to the rename of the manifest, readers see the old dataset; from then on the new one. The
    plan stands in the data folder too, so that at no moment a manifest is without its plan.
    """
    plan_text = plan.dumps()
    sync_folder(manifest.data_folder)
    write_text(manifest.data_folder / PLAN_NAME, plan_text)
    write_text(manifest.root / MANIFEST_NAME, manifest.dumps())
    write_text(manifest.root / PLAN_NAME, plan_text)
    _write_vocabularies(manifest.root / VOCABULARY_FOLDER, plan)
    _write_rejected(manifest.root / REJECTED_NAME, rejected)
    write_text(manifest.root / REPORT_NAME, render_report(manifest))
    sweep(manifest)


def sweep(manifest: Manifest) -> None:
    """Deletes data folders and shards that the manifest does not name."""
    named = {manifest.path_of(shard) for shard in manifest.shards}
    named.add(manifest.data_folder / PLAN_NAME)
    for folder in manifest.root.glob(data_folder_name("*")):
        if folder != manifest.data_folder:
            shutil.rmtree(folder)
    for path in sorted(manifest.data_folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in named:
            path.unlink()


def _write_vocabularies(folder: Path, plan: Plan) -> None:
    """The vocabularies for people to read; programs take them from the plan."""
    names = {f"{quote(name, safe='')}.txt": name for name in plan.vocabularies}
    if folder.is_dir() and not folder.is_symlink():
        for path in folder.glob("*.txt"):
            if path.name not in names:
                path.unlink()
        if not names and not any(folder.iterdir()):
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
