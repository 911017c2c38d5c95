"""What a commit takes for its own, and what it leaves alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import Manifest, OutputError, PlanOptions, verify
from lengthwise.dataset.manifest import REJECTED_NAME, STAGING_NAME
from lengthwise.pipeline import FeatureNames, build, building, commit, planning
from lengthwise.pipeline.staging import Staging, is_staging, unit_report_path, write_report
from tests.pipeline.conftest import folder_digest, ragged_table

NAMES = FeatureNames(sequences=("tokens",), labels=("label",))
OPTIONS = PlanOptions(num_buckets=3, shard_size=4_000)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it, nothing is cleaned up."""


def build_and_stop(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, *arguments, **options
):
    """Builds, and stops where `module.name` is called."""

    def stop(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(module, name, stop)
        patched.setattr(building, "release_output", lambda *_, **__: None)
        with pytest.raises(Killed):
            build(*arguments, **options)


def test_folders_of_the_user_survive_although_their_names_begin_alike(write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(20))
    out = tmp_path / "out"
    build([path], out, names=NAMES)
    mine = [out / "data-raw", out / "data-2024", out / "vocabulary"]
    for folder in mine:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    (out / "data-link").symlink_to(mine[0])
    build([path], out, names=NAMES, options=PlanOptions(seed=1))
    for folder in mine:
        assert (folder / "notes.txt").read_text() == "mine"
    assert verify(out) == []


def test_a_staging_folder_of_another_program_is_not_taken_over(write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(20))
    out = tmp_path / "out"
    (out / STAGING_NAME / "job_1").mkdir(parents=True)
    with pytest.raises(OutputError, match="holds something that is no dataset"):
        build([path], out, names=NAMES)
    assert (out / STAGING_NAME / "job_1").is_dir()


def swapped(table: pa.Table) -> pa.Table:
    """The same table with the labels of two rows exchanged: same footer, same statistics."""
    labels = table["label"].to_pylist()
    first = next(i for i, label in enumerate(labels) if label != labels[-1])
    labels[first], labels[-1] = labels[-1], labels[first]
    at = table.schema.get_field_index("label")
    return table.set_column(at, "label", pa.array(labels))


def test_datasets_of_different_rows_never_share_a_folder(write_input, tmp_path, monkeypatch):
    table = ragged_table(60)
    path = write_input("a.parquet", table)
    out = tmp_path / "out"
    old = build([path], out, names=NAMES)
    digest = folder_digest(out)
    write_input("a.parquet", swapped(table))
    build_and_stop(monkeypatch, commit, "write_text", [path], out, names=NAMES)
    assert {name: d for name, d in folder_digest(out).items() if name in digest} == digest
    new = build([path], out, names=NAMES)
    assert new.fingerprint != old.fingerprint
    assert verify(out) == []


def test_a_shard_that_was_lost_after_a_kill_is_written_again(write_input, tmp_path, monkeypatch):
    path = write_input("a.parquet", ragged_table(80))
    out = tmp_path / "out"
    build([path], tmp_path / "reference", names=NAMES, options=OPTIONS)
    build_and_stop(monkeypatch, building, "commit", [path], out, names=NAMES, options=OPTIONS)
    shards = sorted((out / STAGING_NAME).rglob("*.tfrecord"))
    assert len(shards) > 3
    shards[0].unlink()
    shards[1].write_bytes(b"short")
    build([path], out, names=NAMES, options=OPTIONS)
    assert folder_digest(out) == folder_digest(tmp_path / "reference")


def test_killed_builds_with_other_options_in_between_do_no_harm(write_input, tmp_path, monkeypatch):
    path = write_input("a.parquet", ragged_table(80))
    out = tmp_path / "out"
    other = PlanOptions(num_buckets=2, shard_size=4_000)
    build([path], tmp_path / "reference", names=NAMES, options=OPTIONS)
    build_and_stop(monkeypatch, building, "commit", [path], out, names=NAMES, options=OPTIONS)
    build_and_stop(monkeypatch, Staging, "remove", [path], out, names=NAMES, options=other)
    assert Manifest.load(out).max_lengths != ()
    build([path], out, names=NAMES, options=OPTIONS)
    assert verify(out) == []
    assert folder_digest(out) == folder_digest(tmp_path / "reference")


def test_all_rejected_rows_are_listed_whatever_limit_a_killed_build_had(tmp_path, monkeypatch):
    path, out = tmp_path / "a.jsonl", tmp_path / "out"
    path.write_text('{"x": [1]}\n' + "{broken\n" * 20)
    build_and_stop(monkeypatch, planning, "merged_findings", [path], out)
    build([path], out, options=PlanOptions(max_rejected="100%"))
    assert Manifest.load(out).accounts["train"].rejected == {"broken line": 20}
    assert pq.read_table(out / REJECTED_NAME)["row"].to_pylist() == list(range(1, 21))


@pytest.mark.parametrize("lost", ["000000.arrow", "000000.json", "staging.json"])
def test_half_deleted_staging_does_not_stand_in_the_way(write_input, tmp_path, monkeypatch, lost):
    path = write_input("a.parquet", ragged_table(80))
    out = tmp_path / "out"
    build_and_stop(monkeypatch, building, "commit", [path], out, names=NAMES)
    next((out / STAGING_NAME).rglob(lost)).unlink()
    shutil.rmtree(next((out / STAGING_NAME).rglob("shards-*")))
    build([path], out, names=NAMES)
    assert verify(out) == []


def test_a_commit_killed_after_the_manifest_is_no_fault(write_input, tmp_path, monkeypatch):
    path = write_input("a.parquet", ragged_table(80))
    out = tmp_path / "out"
    build([path], out, names=NAMES)
    build_and_stop(
        monkeypatch, commit, "_write_vocabularies", [path], out, names=NAMES, options=OPTIONS
    )
    manifest = Manifest.load(out)
    assert manifest.max_lengths != ()
    faults = verify(out)
    assert len(faults) == 1
    assert "is left of another build" in faults[0]
    build([path], out, names=NAMES, options=OPTIONS)
    assert verify(out) == []


def test_the_lock_is_of_the_file_that_has_its_name(tmp_path):
    folder = tmp_path / STAGING_NAME
    first = Staging(folder, {})
    os.unlink(folder / "lock")
    (folder / "lock").touch()
    second = Staging(folder, {})
    with pytest.raises(OutputError, match="another build is at work"):
        Staging(folder, {})
    first.close()
    second.remove()
    assert not folder.exists()


def test_workers_of_a_killed_build_do_not_write_among_the_rows_of_another(tmp_path):
    # A cluster's job goes on when its command is killed.
    killed = Staging(tmp_path / STAGING_NAME, {"max_length": 8})
    killed.close()
    staging = Staging(tmp_path / STAGING_NAME, {"max_length": 9})

    write_report(unit_report_path(str(killed.folder), 0), {"of": "the killed build"})

    assert not unit_report_path(str(staging.folder), 0).exists()
    assert is_staging(tmp_path / STAGING_NAME)
    staging.remove()
    assert list(tmp_path.iterdir()) == []


def test_staging_that_was_being_deleted_is_not_believed(tmp_path, monkeypatch):
    old = Staging(tmp_path / STAGING_NAME, {"of": 1})
    write_report(unit_report_path(str(old.folder), 0), {"of": "units with and without strings"})
    old.close()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lengthwise.pipeline.staging.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            Staging(tmp_path / STAGING_NAME, {"of": 2})

    again = Staging(tmp_path / STAGING_NAME, {"of": 1})
    assert again.is_new
    assert not unit_report_path(str(again.folder), 0).exists()
    again.remove()


def test_the_output_below_the_input_is_not_taken_for_input(write_input, tmp_path):
    write_input("a.parquet", ragged_table(30))
    out = tmp_path / "in" / "out"
    build([tmp_path / "in"], out, names=NAMES)
    digest = folder_digest(out)
    build([tmp_path / "in"], out, names=NAMES)
    assert folder_digest(out) == digest


def test_linked_folders_are_read(write_input, tmp_path):
    write_input("a.parquet", ragged_table(30))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tmp_path / "in" / "a.parquet", elsewhere / "b.parquet")
    (tmp_path / "in" / "linked").symlink_to(elsewhere)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    manifest = build([tmp_path / "in"], tmp_path / "out", names=NAMES)
    assert manifest.accounts["train"].read == 60


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--runner", "Foo"], 2, "--runner Foo"),
        (["--buckets", "²"], 2, "neither 'auto' nor a number"),
        (["--workers", "1000000"], 1, "--workers is 1000000"),
        (["--", "--direct_num_workers=x"], 2, "options of Beam"),
    ],
)
def test_options_that_cannot_be_are_one_line_and_leave_nothing(
    run, write_input, tmp_path, arguments, code, says
):
    path: Path = write_input("a.parquet", ragged_table(5))
    found, _, error = run("build", path, tmp_path / "out", *arguments)
    assert found in (code, 2)
    assert says in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_an_empty_path_is_not_the_current_folder(run, write_input, tmp_path, monkeypatch):
    path = write_input("a.parquet", ragged_table(5))
    monkeypatch.chdir(tmp_path / "in")
    for arguments in (["", tmp_path / "out"], [path, ""]):
        code, _, error = run("build", *arguments)
        assert code == 2
        assert "is empty" in error
    assert sorted(os.listdir(tmp_path / "in")) == ["a.parquet"]


def test_names_with_brackets_and_line_breaks_are_printed_as_they_are(run, write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x[/y]": [[1, 2]], "acc[g]": [1]}))
    code, printed, _ = run("plan", path, "-o", tmp_path / "pl[a]n.json", "--context", "acc[g]")
    assert code == 0
    assert "acc[g]: int64" in printed and "x[/y]: int64" in printed
    assert f"plan: {tmp_path / 'pl[a]n.json'}" in printed
    code, _, error = run("build", tmp_path / "a\nb.parquet", tmp_path / "out")
    assert code == 1
    assert len(error.strip().splitlines()) == 1
