"""What a run must have in common with the dataset that it is measured on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from lengthwise.dataset import Feature, InputError, Manifest, Normalization, SchemaError
from lengthwise.model.evaluation import _check_classes, check_fit
from lengthwise.model.task import Task

SPEAKER = Feature("speaker", "int64", sequence=False, label=True)
INPUTS = (Feature("frames", "float32", (2,)), Feature("token", "int64"))


def run_of(*, ids=300, vocabularies=None, normalizations=None, inputs=INPUTS) -> Any:
    """A run that was trained on another dataset."""
    return SimpleNamespace(
        path="run",
        fingerprint="another",
        task=Task("classify", SPEAKER, inputs, {"token": ids}, classes=(10, 11, 12)),
        plan=SimpleNamespace(vocabularies=vocabularies or {}, normalizations=normalizations or {}),
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, make_rows, write_rows):
    path = write_rows(tmp_path_factory.mktemp("data") / "dataset", {"test": make_rows(30)})
    return Manifest.load(path)


def test_a_dataset_of_another_build_fits_if_its_numbers_mean_the_same(manifest):
    check_fit(run_of(), manifest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ids": 100},
            r"'token' has ids from \d+ to 2\d\d, the model of run knows those below 100",
        ),
        ({"vocabularies": {"token": ("a",)}}, "the ids of 'token' stand for other strings than"),
        ({"vocabularies": {"speaker": ("a",)}}, "the ids of 'speaker' stand for other strings"),
        (
            {"normalizations": {"frames": Normalization("zscore", (0.0, 0.0), (1.0, 1.0))}},
            "'frames' is normalised by other constants than those",
        ),
        ({"inputs": (Feature("frames", "float32", (3,)),)}, "takes frames: .*, which here is fr"),
        ({"inputs": (Feature("pitch", "float32"),)}, "takes pitch: .*, which here is missing"),
    ],
)
def test_a_dataset_whose_numbers_mean_something_else_is_refused(manifest, options, message):
    with pytest.raises(SchemaError, match=message):
        check_fit(run_of(**options), manifest)


def test_labels_of_several_that_are_neither_0_nor_1_are_named():
    label = Feature("traits", "int64", (2,), sequence=False, label=True)
    task = Task("multilabel", label, INPUTS, {"token": 3})
    _check_classes(task, {}, tf.constant([[0, 1], [1, 1]]), place="data", run=run_of())
    with pytest.raises(InputError, match="data has the label 2, which the model of run has never"):
        _check_classes(task, {}, tf.constant([[0, 1], [2, 1]]), place="data", run=run_of())
