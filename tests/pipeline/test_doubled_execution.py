"""Runners may run a piece of work twice, at once, or again after half of it: it does no harm."""

from __future__ import annotations

import functools
import shutil
import sys
import threading

import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from lengthwise.dataset import PlanOptions, verify
from lengthwise.dataset.tfrecord import frame_matrix
from lengthwise.pipeline import Execution, FeatureNames, build, exchange, ingest, planning, runners
from lengthwise.pipeline.commit import commit
from lengthwise.pipeline.exchange import refer_to_rows, write_shard_of
from lengthwise.pipeline.ingest import ingest_batches, ingest_unit
from lengthwise.pipeline.staged_rows import StagedRows
from lengthwise.transforms.writing import write_shard
from tests.pipeline.conftest import folder_digest

NAMES = FeatureNames(sequences=("frames", "tokens"), labels=("label",))
OPTIONS = PlanOptions(num_buckets=3, shard_size=10_000)
EXCHANGES = ["spill", "engine"]


@pytest.fixture
def interleaved():
    """Threads take turns after so few instructions that each is somewhere within the other."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def twice(work):
    """Does a piece of work in two threads at once; returns what both have found."""
    found, faults, start = [], [], threading.Barrier(2)

    def attempt():
        start.wait()
        try:
            found.append(work())
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    return found


@pytest.mark.parametrize("kind", EXCHANGES)
def test_every_unit_and_shard_done_twice_at_once(
    two_files, tmp_path, monkeypatch, interleaved, kind
):
    build(two_files, tmp_path / "once", names=NAMES, options=OPTIONS)
    doubled = set()

    def ingest_twice(numbered, job):
        twice(lambda: ingest_unit(numbered, job))

    def refer_twice(number, job):
        first, second = twice(lambda: list(refer_to_rows(number, job)))
        assert first == second
        return first

    def write_twice(group, job, staged):
        shard, references = group[0], list(group[1])
        doubled.add(shard)
        twice(lambda: write_shard_of((shard, references), job, StagedRows(job.staging, job.shards)))

    monkeypatch.setattr(planning, "ingest_unit", ingest_twice)
    monkeypatch.setattr(exchange, "write_shard_of", write_twice)
    monkeypatch.setattr(exchange, "refer_to_rows", refer_twice)
    execution = Execution(exchange=kind)
    manifest = build(
        two_files, tmp_path / "twice", names=NAMES, options=OPTIONS, execution=execution
    )
    assert len(doubled) == len(manifest.shards)
    assert folder_digest(tmp_path / "twice") == folder_digest(tmp_path / "once")
    assert verify(tmp_path / "twice") == []


@pytest.mark.parametrize("kind", EXCHANGES)
def test_every_bundle_run_again_by_the_runner(two_files, tmp_path, monkeypatch, kind):
    build(two_files, tmp_path / "once", names=NAMES, options=OPTIONS)
    written = []

    def counted(path, blocks, **options):
        written.append(path)
        return write_shard(path, blocks, **options)

    monkeypatch.setattr(exchange, "write_shard", counted)
    monkeypatch.setattr(runners, "FnApiRunner", functools.partial(FnApiRunner, bundle_repeat=1))
    execution = Execution(exchange=kind)
    manifest = build(
        two_files, tmp_path / "again", execution=execution, names=NAMES, options=OPTIONS
    )
    assert len(written) >= 2 * len(manifest.shards)
    assert folder_digest(tmp_path / "again") == folder_digest(tmp_path / "once")


@pytest.mark.parametrize("kind", EXCHANGES)
def test_a_worker_that_was_given_up_and_goes_on_after_the_end(
    two_files, tmp_path, monkeypatch, kind
):
    """It leaves a staging folder that nothing names, and that is gone after the next build."""
    out = tmp_path / "out"
    late = []

    def ingest_and_remember(number, unit, batches, job):
        late.append(lambda: ingest_unit((number, unit), job))
        ingest_batches(number, unit, batches, job)

    def write_and_remember(group, job, staged):
        element = group[0], list(group[1])
        # It stands before its first byte for as long as the build takes.
        late.append(lambda: write_shard_of(element, job, StagedRows(copy, job.shards)))
        write_shard_of(element, job, staged)

    monkeypatch.setattr(ingest, "ingest_batches", ingest_and_remember)
    monkeypatch.setattr(exchange, "write_shard_of", write_and_remember)
    copy = str(tmp_path / "staged")
    monkeypatch.setattr(
        "lengthwise.pipeline.building.commit", _copying(out / ".staging", tmp_path / "staged")
    )
    options = {"names": NAMES, "options": OPTIONS, "execution": Execution(exchange=kind)}
    build(two_files, out, **options)
    monkeypatch.undo()
    before = folder_digest(out)
    for work in late:
        try:
            work()
        except Exception as fault:
            # The places of a unit went with the staging folder: it cannot write, and need not.
            assert isinstance(fault, FileNotFoundError)
    assert verify(out) == []
    after = folder_digest(out)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith(".staging/") for name in after.keys() - before.keys())
    assert after.keys() - before.keys()
    build(two_files, out, **options)
    assert folder_digest(out) == before


def _copying(staging, copy):
    def copied(*arguments, **options):
        shutil.copytree(staging, copy)
        commit(*arguments, **options)

    return copied


def test_an_attempt_that_dies_half_way_leaves_what_a_finished_one_has_written(tmp_path):
    block = frame_matrix(np.arange(40, dtype=np.uint8).reshape(2, 20))
    write_shard(tmp_path / "a", [block, block])
    whole = folder_digest(tmp_path)

    def dying():
        yield block
        raise MemoryError

    with pytest.raises(MemoryError):
        write_shard(tmp_path / "a", dying())
    assert folder_digest(tmp_path) == whole
