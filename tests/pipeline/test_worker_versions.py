"""Workers elsewhere: they get this Lengthwise, and say so where they have another."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.stager import Stager
from apache_beam.transforms import environments

from lengthwise.dataset import OutputError, PlanOptions, UsageError
from lengthwise.pipeline import Execution, FeatureNames, build, make_plan, runners
from lengthwise.pipeline.shipping import write_wheel
from lengthwise.pipeline.versions import WorkerError, versions
from tests.pipeline.conftest import folder_digest, ragged_table

NAMES = FeatureNames(sequences=("tokens",))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what was shipped, as pip has installed it."""
    folder = tmp_path_factory.mktemp("shipped")
    wheel = write_wheel(folder)
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", target, wheel], check=True, stderr=subprocess.DEVNULL)
    return target


def workers_with(folder: Path) -> Any:
    """Worker processes that import from a folder first."""
    environment: Any = environments.SubprocessSDKEnvironment
    return environment.from_command_string(
        f"env PYTHONPATH={folder} PYTHONSAFEPATH=1 {sys.executable} -m lengthwise.pipeline.worker"
    )


def test_what_is_shipped_is_what_is_installed_here(installed):
    asked = "from lengthwise.pipeline.versions import *; print(room_folder('pipeline'), versions())"
    code = f"import sys; sys.path[:0] = [{str(installed)!r}]; {asked}"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True
    ).stdout
    assert printed.split()[0] == str(installed / "lengthwise" / "pipeline")
    assert str(versions()) in printed


def test_the_same_installation_gives_the_same_wheel(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        write_wheel(folder)
    assert folder_digest(first) == folder_digest(second)
    with zipfile.ZipFile(next(first.iterdir())) as wheel:
        names = wheel.namelist()
    assert "lengthwise/model/py.typed" in names
    assert not any(name.endswith(".pyc") or "__pycache__" in name for name in names)


def test_ship_hands_the_wheel_to_the_runner(monkeypatch, tmp_path):
    staged = []

    class Pipeline:
        def __init__(self, runner: object, options: PipelineOptions) -> None:
            resources = Stager.create_job_resources(options, str(tmp_path))
            staged.extend(resource.type_payload.decode("latin-1") for resource in resources)

        def __enter__(self) -> Pipeline:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(runners.beam, "Pipeline", Pipeline)
    runners.run_pipeline(lambda _: None, Execution(runner="FlinkRunner"))
    assert not any(path.endswith(".whl") for path in staged)
    runners.run_pipeline(lambda _: None, Execution(runner="FlinkRunner", ship=True))
    assert any(path.endswith("py3-none-any.whl") for path in staged)


def test_the_local_runner_has_nobody_to_ship_to():
    with pytest.raises(UsageError, match="--ship is for workers elsewhere"):
        Execution(ship=True).check()


@pytest.fixture
def other(installed, tmp_path) -> Path:
    """A folder with another Lengthwise of the same version."""
    folder = tmp_path / "other"
    for path in installed.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            copy = folder / path.relative_to(installed)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    changed = folder / "lengthwise" / "transforms" / "padding.py"
    changed.write_text(changed.read_text() + "\n# Another day.\n")
    return folder


def test_workers_with_the_same_versions_write(write_input, installed, tmp_path, monkeypatch):
    path = write_input("a.parquet", ragged_table(60))
    monkeypatch.setattr(runners, "_worker_processes", lambda: workers_with(installed))
    build([path], tmp_path / "there", names=NAMES, execution=Execution(workers=2))
    build([path], tmp_path / "here", names=NAMES)
    assert folder_digest(tmp_path / "there") == folder_digest(tmp_path / "here")


def test_a_worker_with_another_lengthwise_stops_the_job_before_anything_is_written(
    write_input, other, tmp_path, monkeypatch
):
    path = write_input("a.parquet", ragged_table(60))
    build([path], tmp_path / "old", names=NAMES)
    before = folder_digest(tmp_path)
    monkeypatch.setattr(runners, "_worker_processes", lambda: workers_with(other))
    execution = Execution(workers=2)
    for out in ("new", "old"):
        with pytest.raises(WorkerError) as caught:
            build([path], tmp_path / out, names=NAMES, execution=execution)
        assert str(caught.value).startswith("a worker has lengthwise 0.1.0 (source ")
        assert "the driver 0.1.0 (source " in str(caught.value)
        assert str(caught.value).endswith("or --ship this Lengthwise")
        assert "numpy" not in str(caught.value)
    with pytest.raises(WorkerError):
        make_plan([path], names=NAMES, options=PlanOptions(), execution=execution)
    assert folder_digest(tmp_path) == before


def test_what_was_staged_before_outlives_a_worker_that_does_not_fit(
    write_input, other, tmp_path, monkeypatch
):
    path = write_input("a.parquet", ragged_table(60))
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("lengthwise.pipeline.building.commit", _full)
        with pytest.raises(OutputError):
            build([path], out, names=NAMES)
    staged = folder_digest(out / ".staging" / "units")
    assert staged
    # Its rows are there, its shards too: nothing is left for a worker to do but to be asked.
    monkeypatch.setattr(runners, "_worker_processes", lambda: workers_with(other))
    with pytest.raises(WorkerError):
        build([path], out, names=NAMES, execution=Execution(workers=2))
    assert folder_digest(out / ".staging" / "units") == staged


def _full(*_: object, **__: object) -> None:
    raise OutputError("the disk is full")


def test_a_worker_without_lengthwise_is_told_in_one_line():
    text = "Traceback\n  File x\nModuleNotFoundError: No module named 'lengthwise'\n"
    with pytest.raises(WorkerError, match="a worker has no Lengthwise"), runners.one_line_errors():
        raise RuntimeError(text)
