"""The state of a run on disk: whole, of the same variables, or refused."""

from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest

from lengthwise.dataset import CorruptDataError
from lengthwise.model import checkpoint
from lengthwise.model.checkpoint import load_state, save_state


def variables_of(**values):
    return {
        name: [keras.Variable(np.asarray(value), trainable=False)] for name, value in values.items()
    }


def values_in(variables):
    return {name: np.asarray(members[0]).tolist() for name, members in variables.items()}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, variables_of(a=np.float32([1, 2]), n=np.int32(3)), {"epoch": 4})
    return path


def test_a_state_comes_back(path):
    variables = variables_of(a=np.zeros(2, np.float32), n=np.int32(0))
    assert load_state(path, variables) == {"epoch": 4}
    assert values_in(variables) == {"a": [1, 2], "n": 3}


def test_a_state_that_was_half_written_leaves_the_one_before(path, monkeypatch):
    def half(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, variables_of(a=np.zeros(2, np.float32), n=np.int32(0)), {})
    variables = variables_of(a=np.zeros(2, np.float32), n=np.int32(0))
    assert load_state(path, variables) == {"epoch": 4}
    assert values_in(variables) == {"a": [1, 2], "n": 3}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"a": np.zeros(2, np.float32)}, "it holds other variables"),
        ({"a": np.zeros(2, np.float32), "m": np.int32(0)}, "it holds other variables"),
        ({"a": np.zeros((1, 2), np.float32), "n": np.int32(0)}, r"'a-00000' has the shape \(2,\)"),
        ({"a": np.zeros(2, np.int32), "n": np.int32(0)}, "'a-00000' is float32"),
    ],
)
def test_a_state_of_other_variables_is_refused_and_changes_nothing(path, given, reason):
    variables = variables_of(**given)
    before = values_in(variables)
    with pytest.raises(CorruptDataError, match=rf"state\.npz: is no state of this run: {reason}"):
        load_state(path, variables)
    assert values_in(variables) == before


def test_an_array_that_unpacks_to_more_than_its_variable_is_not_read(path):
    variables = variables_of(a=np.zeros(2, np.float32), n=np.int32(0))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["a-00000.npy"] += bytes(1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(CorruptDataError, match="'a-00000' is larger than its variable"):
        load_state(path, variables)
