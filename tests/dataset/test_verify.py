"""Verifying finds every difference between a dataset and its manifest, and names the file."""

import dataclasses
import gzip
import json
import os
import shutil

import crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import Account, ManifestError, verify
from lengthwise.dataset.manifest import MANIFEST_NAME, PLAN_NAME
from lengthwise.dataset.tfrecord import FRAME_BYTES, frame_record, read_records
from tests.dataset.conftest import LAYOUTS


def state_of(root):
    return {
        path.relative_to(root): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in root.rglob("*")
    }


def rewrite(manifest, **changes):
    """Writes another manifest of the dataset, with a checksum that fits it."""
    changed = dataclasses.replace(manifest, **changes)
    (manifest.root / MANIFEST_NAME).write_text(changed.dumps())


def with_shard(manifest, **changes):
    first, *others = manifest.shards
    return (dataclasses.replace(first, **changes), *others)


def test_a_whole_dataset_has_no_fault_and_is_not_touched(dataset):
    before = state_of(dataset.root)

    assert verify(dataset.root) == verify(str(dataset.root)) == []
    assert state_of(dataset.root) == before


def test_no_dataset_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="no dataset here"):
        verify(tmp_path)


@settings(max_examples=40)
@given(st.data())
def test_any_flipped_bit_of_any_shard_is_found_with_its_record(shared_dataset, data):
    number = data.draw(st.integers(0, len(shared_dataset.shards) - 1))
    shard = shared_dataset.shards[number]
    bit = data.draw(st.integers(0, shard.nbytes * 8 - 1))
    path = shared_dataset.path_of(shard)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(flipped)
        faults = verify(shared_dataset.root)
    finally:
        path.write_bytes(whole)

    assert len(faults) == 1
    assert faults[0].startswith(f"{path}: CRC32C is ")
    if shared_dataset.compression == "none":
        sizes = [FRAME_BYTES + len(record) for record in read_records(path)]
        record = int(np.searchsorted(np.cumsum(sizes), bit // 8, side="right"))
        assert f"(record {record}: " in faults[0]


@pytest.mark.parametrize("dataset", LAYOUTS, indirect=True)
@pytest.mark.parametrize("size", [0, 1, 100, -16, -1])
def test_a_truncated_shard_is_found(dataset, size):
    path = dataset.path_of(dataset.shards[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:size])

    size_fault, crc_fault = verify(dataset.root)

    assert size_fault == f"{path}: has {len(whole[:size])} bytes, the manifest says {len(whole)}"
    assert crc_fault.startswith(f"{path}: CRC32C is ")


@pytest.mark.parametrize("dataset", LAYOUTS, indirect=True)
@pytest.mark.parametrize("extra", [b"\0", frame_record(b"one more")])
def test_a_shard_that_is_too_long_is_found(dataset, extra):
    path = dataset.path_of(dataset.shards[0])
    path.write_bytes(path.read_bytes() + extra)

    faults = verify(dataset.root)

    assert len(faults) == 2
    assert all(fault.startswith(f"{path}: ") for fault in faults)


def test_a_missing_shard_is_found(dataset):
    path = dataset.path_of(dataset.shards[-1])
    path.unlink()

    assert verify(dataset.root) == [f"{path}: is missing"]


def test_a_folder_in_the_place_of_a_shard_is_found(dataset):
    path = dataset.path_of(dataset.shards[0])
    path.unlink()
    path.mkdir()

    assert verify(dataset.root) == [f"{path}: cannot be read: Is a directory"]


def test_swapped_shards_are_found(dataset):
    first, second = (dataset.path_of(shard) for shard in dataset.shards_of("train", 8))
    swapped = first.with_name("swap")
    first.rename(swapped), second.rename(first), swapped.rename(second)

    faults = verify(dataset.root)

    assert {fault.split(": ")[0] for fault in faults} == {str(first), str(second)}


@pytest.mark.parametrize(
    "place",
    [
        "data-{}/train/len00004-00002-of-00003.tfrecord",
        "data-{}/stray",
        "data-{}/test/.hidden",
    ],
)
def test_a_stray_file_is_found(dataset, place):
    stray = dataset.root / place.format(dataset.fingerprint)
    stray.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(dataset.path_of(dataset.shards[0]), stray)

    assert verify(dataset.root) == [f"{stray}: is not named by the manifest"]


def test_a_stray_link_is_found_and_not_followed(dataset, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").touch()
    stray = dataset.data_folder / "train/link"
    stray.symlink_to(tmp_path / "elsewhere", target_is_directory=True)

    assert verify(dataset.root) == [f"{stray}: is not named by the manifest"]


def test_an_edited_manifest_is_found(dataset):
    path = dataset.root / MANIFEST_NAME
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))

    assert verify(dataset.root) == [
        f"{path}: was changed after the build: its checksum does not match"
    ]


def test_a_count_edited_in_the_manifest_is_found(dataset):
    path = dataset.root / MANIFEST_NAME
    document = json.loads(path.read_text())
    document["shards"][0]["records"] += 1
    path.write_text(json.dumps(document))

    faults = verify(dataset.root)

    assert faults[0] == f"{path}: was changed after the build: its checksum does not match"
    assert any(fault.startswith(f"{dataset.path_of(dataset.shards[0])}: ") for fault in faults)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"records": 1}, ["the manifest says 1 records of", "records, the manifest says 1"]),
        ({"steps": 1}, ["real steps, the manifest says 1"]),
        ({"nbytes": 1}, ["bytes, the manifest says 1", "but 1 bytes in all"]),
        ({"crc32c": 1}, ["the manifest says 00000001"]),
    ],
)
def test_a_shard_that_is_not_what_a_consistent_manifest_says_is_found(dataset, changes, reasons):
    shard = dataset.shards[0]
    accounts = dataset.accounts
    if "records" in changes:
        read = 30 - shard.records + 1
        accounts = {**accounts, "train": Account(read, read)}
    rewrite(dataset, shards=with_shard(dataset, **changes), accounts=accounts)

    faults = verify(dataset.root)

    assert len(faults) == len(reasons)
    for fault, reason in zip(faults, reasons, strict=True):
        assert fault.startswith(f"{dataset.path_of(shard)}: ")
        assert reason in fault


@pytest.mark.parametrize("dataset", LAYOUTS[1:], indirect=True)
@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"steps": 1}, ["real steps, the manifest says 1"]),
        ({"nbytes": 1}, ["bytes, the manifest says 1"]),
        ({"crc32c": 1}, ["the manifest says 00000001"]),
    ],
)
def test_other_layouts_are_held_to_the_manifest_too(dataset, changes, reasons):
    rewrite(dataset, shards=with_shard(dataset, **changes))

    (fault,) = verify(dataset.root)

    assert fault.startswith(f"{dataset.path_of(dataset.shards[0])}: ")
    assert reasons[0] in fault


@pytest.mark.parametrize("dataset", [{"compression": "gzip"}], indirect=True)
def test_a_file_that_unpacks_to_more_than_its_records_is_refused(dataset):
    shard = dataset.shards[0]
    bomb = gzip.compress(bytes(1 << 24))
    dataset.path_of(shard).write_bytes(bomb)
    rewrite(dataset, shards=with_shard(dataset, nbytes=len(bomb), crc32c=crc32c.crc32c(bomb)))
    most = shard.records * dataset.layouts[shard.max_length].stride

    (fault,) = verify(dataset.root)

    assert fault == (
        f"{dataset.path_of(shard)}: unpacks to more than the {most} bytes of its records"
    )


def test_a_malformed_manifest_is_one_fault(dataset):
    path = dataset.root / MANIFEST_NAME
    path.write_text("{}")
    assert verify(dataset.root) == [f"{path}: not a manifest of Lengthwise"]

    path.write_text("{")
    assert len(verify(dataset.root)) == 1


def test_a_data_folder_of_another_build_is_found(dataset):
    other = dataset.root / "data-fedcba9876543210"
    (other / "train").mkdir(parents=True)

    assert verify(dataset.root) == [
        f"{other}: is left of another build; build again to be rid of it"
    ]


def test_folders_of_the_user_are_left_in_peace(dataset):
    (dataset.root / "data-2024").mkdir()
    (dataset.root / "data-2024" / "notes").touch()

    assert verify(dataset.root) == []


def test_accounts_that_do_not_balance_are_found(dataset):
    rewrite(dataset, accounts={"train": Account(31, 30), "val": Account(9, 8, {"x": 1})})

    place = dataset.root / MANIFEST_NAME
    assert verify(dataset.root) == [
        f"{place}: split 'train': read + pieces is not written + dropped + rejected",
        f"{place}: split 'val': 8 rows were written, but its shards hold 9",
    ]


@pytest.mark.parametrize("of_the_data_folder", [False, True])
def test_a_changed_or_missing_plan_is_found(dataset, of_the_data_folder):
    path = (dataset.data_folder if of_the_data_folder else dataset.root) / PLAN_NAME
    path.write_text(path.read_text() + "\n")
    assert verify(dataset.root) == [
        f"{path}: was changed after the build: its checksum does not match"
    ]

    path.unlink()
    assert verify(dataset.root) == [f"{path}: cannot be read: No such file or directory"]


def test_every_fault_is_found_at_once(dataset):
    missing, broken, *_ = (dataset.path_of(shard) for shard in dataset.shards)
    missing.unlink()
    broken.write_bytes(b"")
    stray = dataset.data_folder / "stray"
    stray.touch()
    os.utime(dataset.root / PLAN_NAME, (0, 0))

    files = [fault.split(": ")[0] for fault in verify(dataset.root)]

    assert sorted(set(files)) == sorted(map(str, (missing, broken, stray)))
