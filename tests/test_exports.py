"""What a room exports: imported late, seen by type checkers, and the same in all three lists."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOM = "lengthwise.model"

ARRAYS = """
import json, sys
import lengthwise.model
from lengthwise.model import TokenBudget, as_numpy, open_rows

try:
    as_numpy("nowhere", batch_size=TokenBudget(64))
except Exception as error:
    assert "no dataset here" in str(error), error
else:
    sys.exit("there is no dataset")
import lengthwise.model.streams
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported_for_type_checkers():
    tree = ast.parse((REPOSITORY / "model" / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_every_name_comes_from_where_type_checkers_see_it():
    room, seen = importlib.import_module(ROOM), imported_for_type_checkers()
    assert sorted(seen) == sorted(room.__all__)
    assert set(room.__all__) <= set(dir(room))
    for name, module in seen.items():
        assert getattr(room, name) is getattr(importlib.import_module(module), name)


def test_no_name_hides_a_module():
    modules = {path.stem for path in (REPOSITORY / "model").iterdir()}
    assert modules & set(imported_for_type_checkers()) == set()


def test_a_name_that_is_not_there_is_an_attribute_error():
    room = importlib.import_module(ROOM)
    with pytest.raises(AttributeError, match="no attribute 'read_datasets'"):
        _ = room.read_datasets


def test_arrays_are_read_without_tensorflow(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ARRAYS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & {"tensorflow", "keras", "torch", "apache_beam"} == set()
