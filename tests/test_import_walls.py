"""Who may import whom: each room, its libraries, and what importing it must not load."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "dataset": {"numpy", "pyarrow", "crc32c", "isal"},
    "transforms": {"lengthwise.dataset", "numpy", "pyarrow", "crc32c", "apache_beam"},
    "pipeline": {
        *("lengthwise.dataset", "lengthwise.transforms"),
        *("numpy", "pyarrow", "crc32c", "apache_beam", "click", "grpc", "rich"),
    },
    "pipeline/commands": {
        *("lengthwise.dataset", "lengthwise.transforms", "lengthwise.model"),
        *("numpy", "pyarrow", "crc32c", "apache_beam", "click", "rich"),
    },
    "model": {
        *("lengthwise.dataset", "numpy", "pyarrow", "crc32c", "tensorflow", "keras"),
        *("matplotlib", "optuna", "rich", "torch", "yaml"),
    },
}

# Importing all modules of a room must load none of these, not even by way of somebody else.
MUST_NOT_LOAD = {
    "dataset": {"apache_beam", "tensorflow", "keras"},
    "transforms": {"tensorflow", "keras"},
    "pipeline": {"tensorflow", "keras"},
    # PyTorch and Optuna are extras, imported by the function that needs them.
    "model": {"apache_beam", "optuna", "torch"},
}


def module_name(path):
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(("lengthwise", *parts)).removesuffix(".__init__")


def imported_names(source, *, package):
    """Absolute names of all that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = importlib.util.resolve_name("." * level + (module or ""), package)
                # `from lengthwise import model` names a room only after the `import`.
                whole = base == "lengthwise"
                yield from (f"{base}.{alias.name}" for alias in names) if whole else [base]
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def forbidden_imports(source, *, package, allowed, own):
    def is_allowed(name):
        top = name.partition(".")[0]
        prefixes = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)} | {top}
        return top in sys.stdlib_module_names or own in prefixes or bool(prefixes & allowed)

    names = imported_names(source, package=package)
    return sorted({name for name in names if not is_allowed(name)})


def rules_of(path):
    room, *below = path.relative_to(REPOSITORY).parts
    with_model = room == "pipeline" and below[0] in ("commands", "predicting.py")
    place = f"{room}/commands" if with_model else room
    return MAY_IMPORT[place], f"lengthwise.{room}"


def room_files():
    files = [path for room in MUST_NOT_LOAD for path in sorted((REPOSITORY / room).rglob("*.py"))]
    assert {path.relative_to(REPOSITORY).parts[0] for path in files} == set(MUST_NOT_LOAD)
    return files


def test_modules_import_only_what_their_room_may():
    faults = {}
    for path in room_files():
        allowed, own = rules_of(path)
        name = module_name(path)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = forbidden_imports(
            path.read_text("utf-8"), package=package, allowed=allowed, own=own
        )
        if found:
            faults[str(path.relative_to(REPOSITORY))] = found
    assert faults == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import numpy.random", []),
        ("import os, json", []),
        ("from lengthwise.model import masked_bilstm", []),
        ("from . import masking", []),
        ("from .masking import mask_from_length", []),
        ("from lengthwise.dataset.schema import Schema", []),
        ("import apache_beam as beam", ["apache_beam"]),
        ("from apache_beam.io import fileio", ["apache_beam.io"]),
        ("from lengthwise import pipeline", ["lengthwise.pipeline"]),
        ("from ..pipeline import building", ["lengthwise.pipeline"]),
        ("from lengthwise.transforms.padding import x", ["lengthwise.transforms.padding"]),
        ("def f():\n    import jax", ["jax"]),
        ("if TYPE_CHECKING:\n    import pandas", ["pandas"]),
        ("importlib.import_module('apache_beam')", ["apache_beam"]),
        ("import model", ["model"]),
    ],
)
def test_forbidden_imports_are_found(source, found):
    assert found == forbidden_imports(
        source, package="lengthwise.model", allowed=MAY_IMPORT["model"], own="lengthwise.model"
    )


@pytest.mark.parametrize("room", MUST_NOT_LOAD)
def test_importing_a_room_loads_no_foreign_library(room, tmp_path):
    modules = [
        module_name(path)
        for path in room_files()
        # A command imports what it needs, when it runs; test_light_start.py looks after those.
        if rules_of(path)[1] == f"lengthwise.{room}" and "commands" not in path.parts
    ]
    program = (
        f"import sys, {', '.join(modules)}\nprint(*(m.partition('.')[0] for m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & MUST_NOT_LOAD[room] == set()
