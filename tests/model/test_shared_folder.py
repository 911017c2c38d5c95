"""One dataset folder, many readers, and builds that replace it while they read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import chain

import pytest

from lengthwise.dataset import CorruptDataError, Manifest
from lengthwise.model import as_numpy, read_dataset

PROGRAM = """
import os, sys
from lengthwise.model import as_numpy

def refuse_writing(event, arguments):
    # Permissions would not stop root.
    if event == "open" and str(arguments[0]).startswith(sys.argv[1]):
        assert not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT), arguments

sys.addaudithook(refuse_writing)
ids = [i for e in range(20) for f, _ in as_numpy(sys.argv[1], epoch=e) for i in f["id"].tolist()]
assert sorted(ids) == sorted(list(range(61)) * 20)
"""


def ids_of(batches):
    return sorted(chain.from_iterable(features["id"].tolist() for features, _ in batches))


@pytest.fixture
def dataset(write_dataset, make_rows):
    return write_dataset({"train": make_rows(61)})


def test_a_read_only_copy_is_read_by_several_processes_at_once(dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    shutil.rmtree(dataset)
    folders = [copy, *(path for path in copy.rglob("*") if path.is_dir())]
    for path in copy.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    copy.chmod(0o555)
    try:
        readers = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(copy)], stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for reader in readers:
            _, errors = reader.communicate(timeout=120)
            assert reader.returncode == 0, errors
    finally:
        for folder in folders:
            folder.chmod(0o755)


def replace(dataset, write_dataset, make_rows):
    """A newer build of other rows takes the place of the old one, which is swept."""
    newer = write_dataset({"train": make_rows(40, seed=9, first_id=1000)}, name="newer")
    old = Manifest.load(dataset).data_folder
    shutil.move(Manifest.load(newer).data_folder, dataset)
    for name in ("plan.json", "dataset.json"):
        os.replace(newer / name, dataset / name)
    shutil.rmtree(old)


def test_a_reader_finishes_the_build_that_it_opened(dataset, write_dataset, make_rows):
    iterator = read_dataset(dataset, batch_size=4, epochs=3).as_numpy_iterator()
    first = [next(iterator) for _ in range(3)]
    replace(dataset, write_dataset, make_rows)
    assert ids_of([*first, *iterator]) == sorted(list(range(61)) * 3)
    assert ids_of(as_numpy(dataset)) == list(range(1000, 1040))


def test_a_manifest_of_a_build_that_is_gone_gives_one_clear_line(dataset, write_dataset, make_rows):
    manifest = Manifest.load(dataset)
    replace(dataset, write_dataset, make_rows)
    with pytest.raises(CorruptDataError, match="a newer build may have replaced it") as error:
        read_dataset(manifest)
    assert "\n" not in str(error.value)
