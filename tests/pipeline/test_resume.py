"""A build that was killed leaves the old dataset whole, and goes on when it is run again."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lengthwise.dataset import Manifest, ManifestError, OutputError, PlanOptions, verify
from lengthwise.dataset.manifest import STAGING_NAME
from lengthwise.pipeline import FeatureNames, build
from lengthwise.pipeline.staging import Staging
from tests.pipeline.conftest import LAYOUTS, folder_digest

NAMES = FeatureNames(sequences=("frames", "tokens"), labels=("label",))
GIVEN = {"num_buckets": 4, "align": 4, "shard_size": 10_000}
OPTIONS = PlanOptions(**GIVEN)

# Builds, and kills itself at the n-th file operation (an audit event of Python) after the start.
_KILLED_BUILD = """
import json, os, signal, sys
inputs, out, moment, options = json.loads(sys.argv[1])
from lengthwise.dataset import PlanOptions
from lengthwise.pipeline import FeatureNames, build, building, commit
events = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.scandir"}
count = 0
def tick(event, arguments):
    global count
    if event in events and out in str(arguments[0]):
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(tick)
build(
    inputs, out,
    names=FeatureNames(sequences=("frames", "tokens"), labels=("label",)),
    options=PlanOptions(**options),
)
print(count)
"""


def run_and_kill(
    inputs: list[Path], out: Path, moment: int, **layout: Any
) -> subprocess.CompletedProcess[str]:
    options = {**GIVEN, **layout}
    arguments = json.dumps([[str(path) for path in inputs], str(out), moment, options])
    return subprocess.run(
        [sys.executable, "-c", _KILLED_BUILD, arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def layout(request) -> dict[str, Any]:
    return getattr(request, "param", {})


@pytest.fixture
def reference(two_files, tmp_path, layout) -> dict[str, str]:
    options = replace(OPTIONS, **layout)
    build(two_files, tmp_path / "reference", names=NAMES, options=options)
    return folder_digest(tmp_path / "reference")


@pytest.mark.parametrize(("layout", "kills"), [({}, 10), (LAYOUTS[-1], 4)], indirect=["layout"])
def test_killed_at_random_moments_and_run_again_gives_the_same_bytes(
    two_files, tmp_path, reference, layout, kills
):
    whole = run_and_kill(two_files, tmp_path / "whole", 0, **layout)
    operations = int(whole.stdout)
    assert operations > 50
    out = tmp_path / "out"
    for moment in random.Random(7).sample(range(1, operations + 1), kills):
        killed = run_and_kill(two_files, out, moment, **layout)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if (out / "dataset.json").exists():
            assert Manifest.load(out).records("train") == 240
            assert verify(out) == [] or (out / STAGING_NAME).exists()
        else:
            with pytest.raises(ManifestError, match="no dataset here"):
                Manifest.load(out)
        build(two_files, out, names=NAMES, options=replace(OPTIONS, **layout))
        assert folder_digest(out) == reference
        subprocess.run(["rm", "-rf", str(out)], check=True)


def test_the_old_dataset_is_whole_while_a_new_build_is_killed(two_files, tmp_path):
    out = tmp_path / "out"
    build(two_files[:1], out, names=NAMES, options=OPTIONS)
    old = folder_digest(out)
    new = None
    for moment in (5, 25, 60, 100):
        killed = run_and_kill(two_files, out, moment)
        assert killed.returncode == -signal.SIGKILL
        now = {
            name: digest
            for name, digest in folder_digest(out).items()
            if name in old and not name.startswith(STAGING_NAME)
        }
        assert now == old, f"killed at {moment}"
    build(two_files, out, names=NAMES, options=OPTIONS)
    build(two_files, tmp_path / "fresh", names=NAMES, options=OPTIONS)
    new = folder_digest(out)
    assert new == folder_digest(tmp_path / "fresh")


@pytest.mark.parametrize("layout", [{}, LAYOUTS[-1]], indirect=True)
def test_finished_units_and_shards_are_not_done_again(
    two_files, tmp_path, reference, layout, monkeypatch
):
    options = replace(OPTIONS, **layout)
    from lengthwise.pipeline import building, exchange, ingest

    out = tmp_path / "out"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(building, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            build(two_files, out, names=NAMES, options=options)
    assert (out / STAGING_NAME).is_dir()
    with monkeypatch.context() as patched:
        patched.setattr(ingest, "read_unit", stop)
        patched.setattr(exchange, "write_shard", stop)
        build(two_files, out, names=NAMES, options=options)
    assert folder_digest(out) == reference


def test_an_input_that_changed_since_is_read_again(two_files, write_input, tmp_path, monkeypatch):
    from lengthwise.pipeline import building
    from tests.pipeline.conftest import ragged_table

    out = tmp_path / "out"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(building, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            build(two_files, out, names=NAMES, options=OPTIONS)
    write_input("a.parquet", ragged_table(120, seed=9))
    build(two_files, out, names=NAMES, options=OPTIONS)
    build(two_files, tmp_path / "fresh", names=NAMES, options=OPTIONS)
    assert folder_digest(out) == folder_digest(tmp_path / "fresh")


def test_two_builds_into_one_folder_at_once_are_refused(two_files, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    first = Staging(out / STAGING_NAME, {})
    try:
        with pytest.raises(OutputError, match="another build is at work here"):
            build(two_files, out, names=NAMES, options=OPTIONS)
        assert (out / STAGING_NAME / "lock").exists()
    finally:
        first.remove()


def test_a_build_at_work_is_left_alone_by_another_process(two_files, tmp_path, reference):
    """Two real processes: the first stands still half-way while the second runs to its end."""
    out = tmp_path / "out"
    arguments = json.dumps([[str(path) for path in two_files], str(out), 30, GIVEN])
    stopping = _KILLED_BUILD.replace("signal.SIGKILL", "signal.SIGSTOP")
    with subprocess.Popen(
        [sys.executable, "-c", stopping, arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as first:
        _, status = os.waitpid(first.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        try:
            second = run_and_kill(two_files, out, 0)
            half_way = folder_digest(out)
        finally:
            first.send_signal(signal.SIGCONT)
        _, complaint = first.communicate()
    assert second.returncode == 1
    assert "another build is at work here; wait for it" in second.stderr
    assert any(STAGING_NAME in name for name in half_way)
    assert first.returncode == 0, complaint
    assert folder_digest(out) == reference


def test_documents_that_a_killed_commit_left_without_a_name_are_swept(
    two_files, tmp_path, reference
):
    out = tmp_path / "reference"
    for folder in ("", "vocabulary", "rejected"):
        (out / folder).mkdir(exist_ok=True)
        (out / folder / f".tmp-{'0123456789abcdef' * 2}").write_text("half")
    (out / "rejected" / f".tmp-{'0123456789abcdef' * 2}").write_text("half")
    (out / ".tmp-of-somebody-else").write_text("whole")
    build(two_files, out, names=NAMES, options=OPTIONS)
    assert (out / ".tmp-of-somebody-else").read_text() == "whole"
    (out / ".tmp-of-somebody-else").unlink()
    assert folder_digest(out) == reference
    assert not (out / "vocabulary").exists() and not (out / "rejected").exists()


def test_space_is_asked_for_only_for_shards_that_are_still_to_be_written(
    two_files, tmp_path, reference, monkeypatch
):
    from lengthwise.pipeline import building

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(building, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            build(two_files, out, names=NAMES, options=OPTIONS)
    shards = sorted((out / STAGING_NAME).rglob("*.tfrecord"))
    lost = shards[0].stat().st_size
    shards[0].unlink()
    # Room for the shard that is lost, and for none of those that are there.
    usage = collections.namedtuple("usage", ("total", "used", "free"))
    with monkeypatch.context() as patched:
        patched.setattr(building.shutil, "disk_usage", lambda _: usage(0, 0, lost - 1))
        with pytest.raises(OutputError, match=f"the shards take {lost:,} bytes"):
            build(two_files, out, names=NAMES, options=OPTIONS)
    with monkeypatch.context() as patched:
        patched.setattr(building.shutil, "disk_usage", lambda _: usage(0, 0, lost))
        build(two_files, out, names=NAMES, options=OPTIONS)
    assert folder_digest(out) == reference
