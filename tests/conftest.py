"""What every test runs under: quiet, small, repeatable, and nothing left behind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Read when TensorFlow is first imported, here and in the commands that tests start.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
# Several test processes run side by side, each with a thread pool of its own.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

# No clock and no memory of earlier runs: a property holds or fails on every machine alike.
settings.register_profile(
    "lengthwise",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lengthwise")

_temporary = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Puts all temporary files of the tests, and of what they start, below one folder."""
    if hasattr(config, "workerinput") or config.option.basetemp:
        return
    folder = Path(tempfile.mkdtemp(prefix="lengthwise-tests-")).resolve()
    config.stash[_temporary] = folder
    config.option.basetemp = folder / "pytest"
    # The workers of pytest-xdist and the commands that tests start inherit it.
    os.environ["TMPDIR"] = str(folder)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
    tempfile.tempdir = None


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_temporary, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def quick_kernel() -> Iterator[None]:
    """The kernel that is traced in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENGTHWISE_KERNEL", "hybrid")
        yield
