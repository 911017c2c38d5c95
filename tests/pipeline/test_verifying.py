"""`verify` finds every kind of damage, names the file and exits with 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lengthwise.dataset import Manifest, ManifestError, Shard, verify
from tests.pipeline.conftest import ragged_table

LAYOUTS = [[], ["--canonical"], ["--compression", "gzip"], ["--canonical", "--compression", "gzip"]]


@pytest.fixture
def dataset(request, run, write_input, tmp_path) -> Path:
    path = write_input("a.parquet", ragged_table(60))
    code, _, error = run(
        *("build", path, tmp_path / "out", "--label", "label", "--buckets", 3),
        *("--shard-size", "10K", *getattr(request, "param", [])),
    )
    assert code == 0, error
    return tmp_path / "out"


def shard_paths(dataset: Path) -> list[Path]:
    manifest = Manifest.load(dataset)
    return [Path(str(manifest.path_of(shard))) for shard in manifest.shards]


def test_a_whole_dataset_passes(run, dataset):
    code, printed, _ = run("verify", dataset)
    assert code == 0
    assert "whole: 60 records" in printed


@pytest.mark.parametrize("dataset", LAYOUTS, indirect=True)
def test_a_flipped_bit_in_any_shard_is_found(run, dataset):
    for number, path in enumerate(shard_paths(dataset)):
        data = bytearray(path.read_bytes())
        at = number * 7919 % len(data)
        data[at] ^= 1 << number % 8
        path.write_bytes(data)
        code, printed, error = run("verify", dataset)
        assert code == 1
        assert f"{path}: CRC32C is" in printed
        assert "1 fault in" in error
        data[at] ^= 1 << number % 8
        path.write_bytes(data)
    assert run("verify", dataset)[0] == 0


def test_the_damaged_record_is_named(dataset):
    path = shard_paths(dataset)[0]
    manifest = Manifest.load(dataset)
    stride = manifest.layouts[manifest.shards[0].max_length].stride
    data = bytearray(path.read_bytes())
    data[stride + 40] ^= 1
    path.write_bytes(data)
    assert "record 1: checksum of the data does not match" in verify(dataset)[0]


@pytest.mark.parametrize("dataset", LAYOUTS[1:], indirect=True)
def test_a_truncated_shard_is_found(run, dataset):
    path = shard_paths(dataset)[-1]
    path.write_bytes(path.read_bytes()[:-1])
    code, printed, _ = run("verify", dataset)
    assert code == 1
    assert f"{path}: has " in printed


def test_a_missing_shard_is_found(run, dataset):
    path = shard_paths(dataset)[0]
    path.unlink()
    code, printed, _ = run("verify", dataset)
    assert code == 1
    assert f"{path}: is missing" in printed


def test_a_stray_shard_is_found(run, dataset):
    path = shard_paths(dataset)[0]
    stray = path.with_name("len00008-00009-of-00010.tfrecord")
    stray.write_bytes(path.read_bytes())
    code, printed, _ = run("verify", dataset)
    assert code == 1
    assert f"{stray}: is not named by the manifest" in printed


def edit(dataset: Path, change) -> None:
    path = dataset / "dataset.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("count", ["records", "steps", "bytes"])
def test_an_edited_count_of_a_shard_is_found(run, dataset, count):
    name = Manifest.load(dataset).shards[1].name
    edit(dataset, lambda document: document["shards"][1].update({count: 7}))
    code, printed, _ = run("verify", dataset)
    assert code == 1
    assert "dataset.json: was changed after the build" in printed
    assert name in printed


@pytest.mark.parametrize("count", ["read", "written"])
def test_an_edited_account_is_found(run, dataset, count):
    edit(dataset, lambda document: document["accounts"]["train"].update({count: 61}))
    code, printed, _ = run("verify", dataset)
    assert code == 1
    assert "dataset.json: split 'train'" in printed


def test_readers_refuse_an_edited_manifest(dataset):
    edit(dataset, lambda document: document.update(seed=5))
    with pytest.raises(ManifestError, match="was changed after the build"):
        Manifest.load(dataset)


def test_an_edited_plan_is_found(run, dataset):
    path = dataset / "plan.json"
    path.write_text(path.read_text().replace('"align": 8', '"align": 4'))
    code, printed, _ = run("verify", dataset)
    assert code == 1
    assert f"{path}: was changed after the build" in printed


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "train/../../x"])
def test_a_manifest_that_points_elsewhere_is_refused(run, dataset, name):
    edit(dataset, lambda document: document["shards"][0].update(name=name))
    code, printed, _ = run("verify", dataset)
    assert code == 1
    assert "the name" in printed


def test_no_dataset_is_one_line(run, tmp_path):
    code, _, error = run("verify", tmp_path)
    assert code == 1
    assert "no dataset here" in error


@pytest.mark.parametrize("dataset", LAYOUTS, indirect=True)
def test_inspect_shows_schema_buckets_and_rows(run, dataset):
    code, printed, _ = run("inspect", dataset, "--rows", 2)
    assert code == 0
    shard: Shard = Manifest.load(dataset).shards[0]
    assert "tokens: int64 (steps,)" in printed
    assert f"{shard.name}, record 0: length " in printed
    assert "record 1" in printed
    assert "record 2" not in printed


def test_the_report_is_written_again_with_the_same_bytes(run, dataset):
    report = dataset / "report.html"
    before = report.read_bytes()
    report.unlink()
    assert run("report", dataset)[0] == 0
    assert report.read_bytes() == before
    manifest = Manifest.load(dataset)
    for part in (manifest.fingerprint, "60 rows", f"{manifest.padding_fraction('train'):.1%}"):
        assert part in before.decode()
