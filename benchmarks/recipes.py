"""Measures every recipe for masking a BiLSTM against each sequence run alone.

Writes the table of `docs/masking.md` between its two marks:

    python benchmarks/recipes.py            # prints the table
    python benchmarks/recipes.py --write    # and puts it into docs/masking.md

One recipe is PyTorch's: `pip install torch`.

Deviations are the largest over all rows: of outputs at real steps, of the last h of both
directions, and of the gradients by all six weights, relative to the largest gradient. An output of
an LSTM lies within ±1.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# As a program, and as a module of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tensorflow as tf

from benchmarks.masked_rows import Rows
from benchmarks.masking_recipes import RECIPES, Recipe

PAGE = Path(__file__).resolve().parents[1] / "docs" / "masking.md"
START, END = "<!-- recipes: start -->", "<!-- recipes: end -->"


@dataclass(frozen=True)
class Deviation:
    """How far a recipe is from each sequence run alone."""

    outputs: float
    states: float
    gradients: float

    @property
    def largest(self) -> float:
        return max(self.outputs, self.states, self.gradients)


def measure(recipe: Recipe) -> Deviation:
    """Runs a recipe and each of its rows alone, with the same weights."""
    rows = Rows(recipe.rows)
    real = rows.mask

    def loss(outputs: Any, states: Any, weight: Any) -> Any:
        return tf.reduce_sum(tf.sin(outputs * 3) * weight) + tf.reduce_sum(tf.sin(states * 2))

    variables = [w.value for w in rows.bilstm.trainable_variables]
    with tf.GradientTape() as tape:
        outputs, states = recipe.run(rows)
        total = loss(outputs, states, tf.cast(real[:, :, np.newaxis], tf.float32))
    got: Any = tape.gradient(total, variables)

    alone, last = np.zeros(outputs.shape), np.zeros(states.shape)
    with tf.GradientTape() as tape:
        total = tf.zeros([])
        for row in range(len(real)):
            steps = tf.constant(rows.steps[row, real[row]][np.newaxis])
            mine, forward, _, backward, _ = rows.bilstm(steps)
            ends = tf.concat([forward, backward], axis=-1)
            total += loss(mine, ends, 1.0)
            alone[row, real[row]], last[row] = mine[0], ends[0]
    expected: Any = tape.gradient(total, variables)
    scale = max(float(tf.reduce_max(tf.abs(g))) for g in expected)
    return Deviation(
        outputs=float(np.abs(np.asarray(outputs) - alone)[real].max()),
        states=float(np.abs(np.asarray(states) - last).max()),
        gradients=max(
            float(tf.reduce_max(tf.abs(a - b))) / scale for a, b in zip(got, expected, strict=True)
        ),
    )


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| recipe | real steps | last states | gradients | right | when, or why not | Lengthwise |",
        "|---|---:|---:|---:|---|---|---|",
    ]
    for recipe in RECIPES:
        found = measure(recipe)
        figures = " | ".join(
            _figure(value) for value in (found.outputs, found.states, found.gradients)
        )
        verdict = "yes" if recipe.right else "**no**"
        lines.append(f"| {recipe.name} | {figures} | {verdict} | {recipe.when} | `{recipe.ours}` |")
    return "\n".join(lines)


def _figure(value: float) -> str:
    return "0" if value < 1e-5 else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/masking.md")
    text = table()
    print(text)
    if parser.parse_args().write:
        page = PAGE.read_text("utf-8")
        before, rest = page.split(START)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{START}\n{text}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
