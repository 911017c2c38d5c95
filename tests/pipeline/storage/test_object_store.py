"""Everything by URL, against a server of the S3 protocol: the same bytes, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import (
    CorruptDataError,
    Manifest,
    ManifestError,
    OutputError,
    PlanOptions,
    storage,
    verify,
)
from lengthwise.dataset.manifest import MANIFEST_NAME, STAGING_NAME
from lengthwise.dataset.storage import (
    RemotePath,
    files_below,
    storage_path,
    written_whole,
)
from lengthwise.model import as_numpy
from lengthwise.pipeline import Execution, FeatureNames, build, build_from, make_plan
from lengthwise.pipeline.staging import open_staging, unit_report_path, write_report
from tests.pipeline.conftest import ragged_table
from tests.pipeline.storage.conftest import SECRET

NAMES = FeatureNames(sequences=("frames", "tokens"), labels=("label",))
OPTIONS = PlanOptions(num_buckets=3, shard_size=8_000, splits={"train": 0.8, "val": 0.2})


def digest(folder):
    """Every file below a folder or a URL, and a hash of its bytes."""
    folder = storage_path(folder)
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in files_below(folder)
    }


def put_table(path: RemotePath, table: pa.Table) -> str:
    with written_whole(path) as unfinished:
        pq.write_table(table, unfinished, row_group_size=40)
    return str(path)


@pytest.fixture(scope="module")
def rows(s3):
    """The URL of a file of 150 rows in four units."""
    return put_table(s3 / "rows" / "a.parquet", ragged_table(150, seed=1))


@pytest.fixture(scope="module")
def other_rows(s3):
    return put_table(s3 / "rows" / "b.parquet", ragged_table(90, seed=2))


@pytest.fixture(scope="module")
def local(rows, tmp_path_factory):
    """What the same build leaves in a folder."""
    out = tmp_path_factory.mktemp("local") / "out"
    build([rows], out, names=NAMES, options=OPTIONS)
    return digest(out)


@pytest.mark.parametrize(
    "execution",
    [Execution(exchange="spill"), Execution(exchange="engine"), Execution(workers=2)],
    ids=["spill", "engine", "workers"],
)
def test_a_build_has_the_bytes_of_a_local_one(prefix, rows, local, execution):
    build([rows], str(prefix), names=NAMES, options=OPTIONS, execution=execution)
    assert digest(prefix) == local
    assert verify(str(prefix)) == []


def test_the_commands_take_urls_and_never_show_credentials(run, prefix, s3, tmp_path, monkeypatch):
    # What --verbose sets ends with this test.
    monkeypatch.setenv("LENGTHWISE_VERBOSE", "")
    rows = put_table(
        prefix / "rows.parquet",
        pa.table({"words": [["a", "b"], ["b"], None] * 20, "x": [1.0, 2.0, None] * 20}),
    )
    plan, out = prefix / "plan.json", prefix / "out"
    printed = [
        run("--verbose", "plan", rows, "-o", plan, "--context", "x", "--max-rejected", "50%"),
        run("--verbose", "build", rows, out, "--plan", plan),
        run("verify", out),
        run("inspect", out),
        run("report", out),
        run("build", rows, tmp_path / "out", "--plan", plan),
        run("build", rows, "s3://no-such-bucket/out", "--plan", plan),
    ]
    assert [code for code, _, _ in printed] == [0, 0, 0, 0, 0, 0, 1], printed
    assert "whole: 40 records" in printed[2][1]
    assert len(printed[-1][2].strip().splitlines()) == 1
    assert digest(out) == digest(tmp_path / "out")
    assert {"vocabulary/words.txt", "report.html"} <= digest(out).keys()
    everything = [text.encode() for _, *texts in printed for text in texts]
    everything += [(s3 / name).read_bytes() for name in files_below(s3)]
    assert not any(SECRET.encode() in text for text in everything)
    endpoint = os.environ["AWS_ENDPOINT_URL"].encode()
    assert not any(endpoint in text for text in everything)


def test_rejected_rows_are_written_and_go_with_the_next_build(prefix, rows):
    faulty = put_table(
        prefix / "faulty.parquet",
        pa.table({"x": [[1.0], [float("inf")]] * 30, "y": [[1.0], [2.0]] * 30}),
    )
    out = prefix / "out"
    build([faulty], str(out), options=PlanOptions(max_rejected="100%"))
    assert pq.read_table(
        pa.BufferReader((out / "rejected/part-00000.parquet").read_bytes())
    ).num_rows
    build([rows], str(out), names=NAMES, options=OPTIONS)
    assert not any(name.startswith("rejected") for name in digest(out))


@pytest.mark.parametrize(
    "layout",
    [{}, {"canonical": True}, {"compression": "gzip"}],
    ids=["strided", "canonical", "gzip"],
)
def test_readers_take_urls(prefix, rows, tmp_path, layout):
    options = replace(OPTIONS, **layout)
    for out in (str(prefix), tmp_path / "out"):
        build([rows], out, names=NAMES, options=options)
    remote = list(as_numpy(str(prefix), split="train", batch_size=16))
    local = list(as_numpy(tmp_path / "out", split="train", batch_size=16))
    assert len(remote) == len(local) > 3
    for (mine, my_label), (theirs, their_label) in zip(remote, local, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
        assert np.array_equal(my_label, their_label)


def test_a_flipped_bit_is_found_by_verify_and_by_readers(prefix, rows):
    manifest = build([rows], str(prefix), names=NAMES, options=OPTIONS)
    path = manifest.path_of(manifest.shards_of("train")[0])
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 1
    with written_whole(path) as unfinished:
        unfinished.write_bytes(damaged)
    (fault,) = verify(str(prefix))
    assert fault.startswith(f"{path}: CRC32C is")
    with pytest.raises(CorruptDataError, match="CRC32C"):
        list(as_numpy(str(prefix), split="train", batch_size=16))
    with written_whole(manifest.data_folder / "train" / "stray") as unfinished:
        unfinished.write_bytes(b"")
    assert any("is not named by the manifest" in fault for fault in verify(str(prefix)))


class Stopped(BaseException):
    """As if the process was killed."""


def stop_at(monkeypatch, moment):
    """Counts what is sent to the store, and stops instead of one request and all after it."""
    count = 0

    def counted(ask):
        def asked(*arguments, **options):
            nonlocal count
            count += 1
            if count > moment:
                raise Stopped
            return ask(*arguments, **options)

        return asked

    for name in ("_send", "_copy", "_delete"):
        monkeypatch.setattr(storage, name, counted(getattr(storage, name)))


def test_stopped_at_any_request_the_old_dataset_stays_until_the_new_one_is_whole(
    prefix, rows, other_rows, local
):
    build([other_rows], str(prefix), names=NAMES, options=OPTIONS)
    old, done, moments = digest(prefix), False, 0
    while not done:
        moments += 1
        with pytest.MonkeyPatch.context() as patch:
            # Each run goes on where the one before was stopped, and may ask for more.
            stop_at(patch, 6 * moments)
            try:
                build([rows], str(prefix), names=NAMES, options=OPTIONS)
                done = True
            except (Stopped, OutputError) as reason:
                # Beam tells what has stopped its workers as an error of the job.
                assert isinstance(reason, Stopped) or "Stopped" in str(reason)
        now = digest(prefix)
        wanted = old if now[MANIFEST_NAME] == old[MANIFEST_NAME] else local
        of_data = {name for name in wanted if name.startswith("data-")} | {MANIFEST_NAME}
        assert {name: now.get(name) for name in of_data} == {name: wanted[name] for name in of_data}
    assert moments > 2
    assert digest(prefix) == local


def test_finished_units_and_shards_are_not_done_again(prefix, rows, local, monkeypatch):
    from lengthwise.pipeline import commit

    def stop(*_):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(commit, "copy_files", stop)
        with pytest.raises(Stopped):
            build([rows], str(prefix), names=NAMES, options=OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr("lengthwise.pipeline.ingest.read_unit", stop)
        patch.setattr("lengthwise.pipeline.exchange.write_shard", stop)
        build([rows], str(prefix), names=NAMES, options=OPTIONS)
    assert digest(prefix) == local


def test_a_file_whose_writing_fails_is_not_there(prefix):
    with pytest.raises(KeyError), written_whole(prefix / "a") as unfinished:
        unfinished.write_bytes(b"half of it")
        raise KeyError
    assert files_below(prefix) == {}


def test_of_two_builds_the_one_that_was_started_last_goes_on(prefix, rows, other_rows, monkeypatch):
    from lengthwise.pipeline import building

    def build_another(*arguments, **options):
        monkeypatch.undo()
        build([other_rows], str(prefix), names=NAMES, options=OPTIONS)
        return building.commit(*arguments, **options)

    monkeypatch.setattr(building, "commit", build_another)
    with pytest.raises(OutputError):
        build([rows], str(prefix), names=NAMES, options=OPTIONS)
    assert Manifest.load(str(prefix)).accounts["train"].read < 90
    assert verify(str(prefix)) == []
    build([rows], str(prefix), names=NAMES, options=OPTIONS)


def test_staging_that_another_build_has_claimed_stops_before_the_manifest(
    prefix, rows, monkeypatch
):
    from lengthwise.pipeline import commit

    def claimed(*arguments):
        with written_whole(prefix / STAGING_NAME / "claim") as unfinished:
            unfinished.write_text("another")
        copy_files(*arguments)

    copy_files = commit.copy_files
    monkeypatch.setattr(commit, "copy_files", claimed)
    with pytest.raises(OutputError, match="another build was started here"):
        build([rows], str(prefix), names=NAMES, options=OPTIONS)
    with pytest.raises(ManifestError, match="no dataset here"):
        Manifest.load(str(prefix))


def test_a_build_that_ends_leaves_the_staged_rows_to_the_same_build_started_after_it(prefix):
    first = open_staging(prefix / STAGING_NAME, {"of": 1})
    last = open_staging(prefix / STAGING_NAME, {"of": 1})
    write_report(unit_report_path(str(last.folder), 0), {})

    first.remove()

    assert unit_report_path(str(last.folder), 0).exists()
    last.confirm()
    last.remove()
    assert files_below(prefix) == {}


def test_a_place_that_holds_something_else_is_refused(prefix, rows):
    with written_whole(prefix / "thesis.tex") as unfinished:
        unfinished.write_bytes(b"years of work")
    with pytest.raises(OutputError, match=r"no dataset \(thesis.tex"):
        build([rows], str(prefix), names=NAMES, options=OPTIONS)
    assert list(digest(prefix)) == ["thesis.tex"]


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:hidden@bucket/x",
        # Keys of Amazon have slashes.
        "s3://ME:not/hidden@bucket/x",
        "s3://bucket/x?secret_key=hidden",
        "https://bucket/x?X-Amz-Signature=hidden",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_printed(run, rows, url):
    for arguments in (["build", url, "out"], ["build", rows, url], ["verify", url]):
        code, printed, error = run(*arguments)
        assert code == 1
        assert "holds credentials" in error
        assert "hidden" not in printed + error
        assert len(error.strip().splitlines()) == 1


def test_a_store_that_cannot_be_reached_is_told_in_one_line(run, rows, monkeypatch):
    code, _, error = run("verify", "s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http")
    assert code == 1
    assert len(error.strip().splitlines()) == 1
    assert SECRET not in error


def test_rows_of_a_collection_go_to_an_object_store(prefix, tmp_path):
    table = ragged_table(60)
    for out in (str(prefix), tmp_path / "out"):
        source = beam.Create(table.to_batches(max_chunksize=9))
        build_from(source, out, columns=table.schema, key="row", names=NAMES, options=OPTIONS)
    assert digest(prefix) == digest(tmp_path / "out")


def test_a_plan_is_the_same_whether_it_is_staged_here_or_there(prefix, rows):
    plan = make_plan([rows], names=NAMES, options=OPTIONS, staging=prefix / "staging")
    assert plan.dumps() == make_plan([rows], names=NAMES, options=OPTIONS).dumps()
    assert files_below(prefix) == {}


def test_a_run_is_trained_and_predicts_by_url(prefix, rows, tmp_path):
    from lengthwise.model import TrainConfig, train
    from lengthwise.pipeline.predicting import predict

    out, there = prefix / "dataset", prefix / "predictions.parquet"
    here = tmp_path / "predictions.parquet"
    build([rows], str(out), names=NAMES, options=OPTIONS)
    train(str(out), tmp_path / "run", TrainConfig(units=2, epochs=1))
    for output in (str(there), str(there), here):
        assert predict(tmp_path / "run", [rows], output).rows == 150
    assert there.read_bytes() == here.read_bytes()
    assert {path.name for path in prefix.iterdir()} == {"dataset", "predictions.parquet"}
    with written_whole(there) as unfinished:
        unfinished.write_bytes(b"something else")
    with pytest.raises(OutputError, match="holds no predictions"):
        predict(tmp_path / "run", [rows], str(there))
