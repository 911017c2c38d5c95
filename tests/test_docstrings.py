"""Every example in a docstring of the four rooms runs and says the truth."""

import doctest
import importlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("dataset", "transforms", "pipeline", "model")


def modules_of(room):
    for path in sorted((REPOSITORY / room).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        yield ".".join(("lengthwise", *parts)).removesuffix(".__init__")


@pytest.mark.parametrize("name", [name for room in ROOMS for name in modules_of(room)])
def test_examples_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # By its own name: the collector of pytest would import the file again under another.
    module = importlib.import_module(name)

    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)

    assert result.failed == 0, capsys.readouterr().out
