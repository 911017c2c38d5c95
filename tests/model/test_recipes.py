"""A way of masking that is right gives what each sequence alone gives; a wrong one does not."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.masking_recipes import RECIPES
from benchmarks.recipes import END, START, measure

PAGE = Path(__file__).resolve().parents[2] / "docs" / "masking.md"


def page_rows():
    """Rows of the table: name, figures of outputs, states and gradients, verdict, …"""
    table = PAGE.read_text("utf-8").split(START)[1].split(END)[0]
    return [re.split(r" \| ", line.strip("| ")) for line in table.strip().splitlines()[2:]]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipe_is_what_the_page_says(recipe):
    if recipe.needs:
        pytest.importorskip(recipe.needs)
    found = measure(recipe)
    (figures,) = [row[1:4] for row in page_rows() if row[0] == recipe.name]
    measured = (found.outputs, found.states, found.gradients)
    np.testing.assert_allclose([float(text) for text in figures], measured, atol=0.01)
    if recipe.right:
        assert found.largest < 1e-5
    else:
        # An output of an LSTM lies within ±1, so this is no rounding.
        assert max(found.outputs, found.states) > 0.05


def test_page_has_every_recipe_with_its_verdict():
    rows = page_rows()
    assert [row[0] for row in rows] == [recipe.name for recipe in RECIPES]
    assert [row[4] == "yes" for row in rows] == [recipe.right for recipe in RECIPES]


def test_hand_written_loop_has_nan_gradients_where_padding_is_nan():
    cell = keras.layers.LSTMCell(2)
    cell.build((1, 1))
    zeros = tf.zeros((1, 2))
    with tf.GradientTape() as tape:
        _, (h, _) = cell(tf.constant([[np.nan]]), [zeros, zeros])
        kept = tf.where(tf.constant([[False]]), h, zeros)
        total = tf.reduce_sum(kept)
    assert float(total) == 0
    assert np.isnan(tape.gradient(total, cell.kernel.value)).any()


def test_keras_refuses_ragged_tensors():
    ragged = tf.ragged.constant([[[1.0]], [[1.0], [2.0]]], ragged_rank=1)
    with pytest.raises((ValueError, TypeError, AttributeError, NotImplementedError)):
        keras.layers.Bidirectional(keras.layers.LSTM(2))(ragged)


def test_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 2
    exec("\n".join(blocks), {})
