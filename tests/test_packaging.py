"""The wheel holds all of the four rooms, and works where the repository is not."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("dataset", "transforms", "pipeline", "model")
SOURCES = (*ROOMS, "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def run(*command, cwd, **environment):
    """Runs a command that must know nothing of the repository, and returns what it prints."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind, source, out):
    run(
        *(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source),
        cwd=out.parent,
        PYTHONWARNINGS="ignore",
    )
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def source(folder):
    """A copy of what is built from: building leaves files in the folder it builds in."""
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(folder, source):
    return build("wheel", source, folder / "wheel")


@pytest.fixture(scope="module")
def sdist(folder, source):
    return build("sdist", source, folder / "sdist")


@pytest.fixture(scope="module")
def installed(folder, wheel):
    """The Python of a new environment: the wheel in it, and the packages that this one runs with.

    A folder named in a `.pth` file does not have its own `.pth` files read, so an editable install
    of the repository is not passed on.
    """
    place = folder / "environment"
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    packages = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    run(
        *(sys.executable, "-m", "pip", "--python", python),
        *("install", "--quiet", "--no-index", "--no-deps", wheel),
        cwd=folder,
    )
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return python


def contents(wheel):
    """Path -> bytes of the files in a wheel, its own record excepted."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/RECORD")]
        return {name: archive.read(name) for name in names}


def metadata(wheel):
    (text,) = [text for name, text in contents(wheel).items() if name.endswith("/METADATA")]
    return Parser().parsestr(text.decode())


def test_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel, source):
    files = {
        f"lengthwise/{path.relative_to(source)}": path.read_bytes()
        for room in ROOMS
        for path in (source / room).rglob("*")
        if path.is_file()
    }
    packaged = {name: data for name, data in contents(wheel).items() if ".dist-info/" not in name}
    assert packaged.keys() == files.keys()
    assert packaged == files
    assert {f"lengthwise/{room}/py.typed" for room in ROOMS} <= packaged.keys()
    assert "lengthwise/__init__.py" not in packaged


def test_every_folder_of_a_room_is_a_package():
    lacking = {
        str(path.parent.relative_to(REPOSITORY))
        for room in ROOMS
        for path in (REPOSITORY / room).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert lacking == set()


def test_sdist_makes_the_same_wheel(sdist, wheel, folder):
    with tarfile.open(sdist) as archive:
        # The first releases of Python 3.10 do not know filters.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder / "unpacked", **safely)
    (unpacked,) = (folder / "unpacked").iterdir()
    assert contents(build("wheel", unpacked, folder / "wheel-of-sdist")) == contents(wheel)


def test_command_works_without_the_repository(installed, folder):
    command = installed.with_name("lengthwise")
    version = importlib.metadata.PathDistribution(
        next(installed.parents[1].rglob("lengthwise-*.dist-info"))
    ).version
    assert version in run(command, "--version", cwd=folder)
    assert "build" in run(command, "--help", cwd=folder)


def test_rooms_import_from_the_wheel_alone(installed, folder, wheel):
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in contents(wheel)
        if name.endswith(".py")
    )
    # Looked up by name: a function that a package exports may hide the module of the same name.
    program = (
        f"import sys\nfor name in {modules}:\n"
        "    __import__(name)\n    print(sys.modules[name].__file__)"
    )
    printed = run(installed, "-c", program, cwd=folder)
    files = [Path(line) for line in printed.splitlines()]
    assert len(files) == len(modules)
    assert [file for file in files if folder not in file.parents] == []


def pins():
    """Name -> the one version that constraints.txt allows for this Python."""
    versions = {}
    for line in (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), line
            assert requirement.url is None, line
            if requirement.marker is None or requirement.marker.evaluate():
                name = canonicalize_name(requirement.name)
                assert name not in versions, line
                versions[name] = str(requirement.specifier).removeprefix("==")
    return versions


def requirements_of(name, extras, version):
    """What a package asks for here; nothing if it is not here in the version that is meant."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return []
    return applicable(found.requires or [], extras) if found.version == version else []


def applicable(lines, extras):
    return [
        requirement
        for requirement in map(Requirement, lines)
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def test_constraints_pin_every_package_that_gets_installed(wheel):
    versions, seen = pins(), set()
    own = metadata(wheel).get_all("Requires-Dist", [])
    waiting = applicable(own, {"test"})
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = (name, frozenset(requirement.extras))
        if wanted not in seen:
            seen.add(wanted)
            if name == "lengthwise":
                waiting += applicable(own, requirement.extras)
                continue
            assert name in versions, requirement
            assert requirement.specifier.contains(versions[name]), requirement
            waiting += requirements_of(*wanted, versions[name])
    assert {"tensorflow", "apache-beam", "pytest", "rich", "optuna"} <= {name for name, _ in seen}
