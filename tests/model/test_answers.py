"""From the outputs of a network to named answers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lengthwise.model.answers import Answers

NAN = float("nan")


def test_a_class_is_the_likeliest_and_unknown_where_there_is_no_number():
    answers = Answers("classes", (-4, 7))
    numbers = np.array([[0.75, 0.25], [NAN, NAN], [0.5, 0.5]], np.float32)
    columns = answers.columns(numbers)
    assert columns["class"].to_pylist() == [-4, None, -4]
    assert columns["probabilities"].to_pylist() == [[0.75, 0.25], None, [0.5, 0.5]]
    tensors = answers.tensors(tf.constant(numbers))
    assert tensors["class"].numpy().tolist() == [-4, -1, -4]


def test_classes_of_strings_keep_their_names():
    answers = Answers("classes", ("é", ""))
    numbers = np.array([[0.75, 0.25], [0.25, 0.75], [NAN, NAN]], np.float32)
    assert answers.columns(numbers)["class"].to_pylist() == ["é", "", None]
    names = answers.tensors(tf.constant(numbers))["class"].numpy()
    assert [name.decode() for name in names] == ["é", "", ""]


def test_labels_are_those_of_at_least_one_half():
    answers = Answers("labels", (0, 1, 2))
    numbers = np.array([[0.5, 0.25, 0.75], [NAN] * 3, [0.0, 0.25, 0.25]], np.float32)
    columns = answers.columns(numbers)
    assert columns["labels"].to_pylist() == [[0, 2], None, []]
    assert columns["probabilities"].to_pylist()[1] is None
    assert list(answers.tensors(tf.constant(numbers))) == ["probabilities"]


def test_tags_are_lists_with_nulls_at_steps_that_were_not_seen():
    answers = Answers("classes", ("NOUN", "VERB"), per_step=True)
    numbers = np.array([[0.75, 0.25], [NAN, NAN], [0.25, 0.75]], np.float32)
    columns = answers.columns(numbers, np.array([2, 0, 1]))
    assert columns["tags"].to_pylist() == [["NOUN", None], [], ["VERB"]]
    assert columns["tag_probabilities"].to_pylist() == [[0.75, None], [], [0.75]]


@pytest.mark.parametrize(
    ("shape", "name", "found"),
    [((), "value", [1.5, None]), ((2,), "values", [[1.5, 2.5], None])],
)
def test_values_are_numbers_or_lists(shape, name, found):
    numbers = np.array([[1.5, 2.5], [NAN, NAN]], np.float32)[:, : 2 if shape else 1]
    answers = Answers("values", shape=shape)
    columns = answers.columns(numbers.reshape(-1, *shape))
    assert {name: column.to_pylist() for name, column in columns.items()} == {name: found}
    assert list(answers.tensors(tf.constant(numbers))) == [name]


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_nothing_has_all_columns(kind, per_step):
    names = () if kind == "values" else ("a", "b")
    answers = Answers(kind, names, per_step=per_step)
    numbers = np.zeros((0, 2) if names else (0,), np.float32)
    columns = answers.columns(numbers, np.zeros(0, np.int64) if per_step else None)
    assert columns and all(len(column) == 0 for column in columns.values())
