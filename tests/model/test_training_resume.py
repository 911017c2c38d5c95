"""A run that is killed and started again ends as one that never was."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest

# Everything that a step may depend on: momentum, dropout, warm-up and plateau, early stopping,
# gradients that wait for the next batch, metrics in the middle of an epoch.
PROGRAM = """
import os, signal, sys
os.environ["LENGTHWISE_KERNEL"] = "hybrid"  # traced in half the time
from lengthwise.model import Run, TrainConfig, train
from lengthwise.model.journal import Journal

dataset, killed, whole, *kills = sys.argv[1:]
config = TrainConfig(
    inputs=("frames", "token"), units=4, embedding_size=3, epochs=5, batch_size=8, dropout=0.4,
    learning_rate=0.2, schedule="plateau", plateau_patience=1, plateau_factor=0.7, warmup_steps=4,
    weight_decay=0.01, accumulate_steps=2, class_weights="balanced", patience=3,
    monitor="accuracy", checkpoint_steps=3, seed=7,
)
def kill_at(place):
    if kill == place:
        os.kill(os.getpid(), signal.SIGKILL)

def count_steps(self, batch, logs=None, step=Journal.on_train_batch_end):
    global steps
    kill_at(f"before {steps}")
    step(self, batch, logs)
    steps += 1
    kill_at(f"after {steps}")

def save_network(self, network, which, save=Run.save_network):
    save(self, network, which)
    kill_at("network")

Journal.on_train_batch_end = count_steps
Run.save_network = save_network
# TensorFlow is imported once and starts anew in each process.
for kill in [*kills, "never"]:
    child, steps = os.fork(), 0
    if child == 0:
        print("resumed at", train(dataset, killed, config).resumed_at, flush=True)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == (0 if kill == "never" else -signal.SIGKILL), (kill, ended)
train(dataset, whole, config)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_rows, write_rows):
    """A run that was killed three times, and one that never was."""
    folder = tmp_path_factory.mktemp("resume")
    path = write_rows(folder / "dataset", {"train": make_rows(60), "val": make_rows(20, seed=1)})
    killed, whole = folder / "killed", folder / "whole"
    # An epoch has 9 steps, and there is a state after every third.
    kills = ["before 7", "network", "after 16"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, killed, whole, *kills],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Twice it began at 6: the second time one network of the epoch was written, its state was not.
    assert done.stdout == "resumed at 21\n"
    return killed, whole


def test_weights_optimizer_and_random_state_are_the_same_bit_by_bit(runs):
    states = [dict(np.load(run / "state.npz")) for run in runs]
    assert states[0].keys() == states[1].keys()
    assert len(states[0]) > 30
    for name in states[0].keys() - {"document"}:
        assert states[0][name].tobytes() == states[1][name].tobytes(), name


def test_history_is_the_same_but_for_the_clock(runs):
    tables = []
    for run in runs:
        with open(run / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            del row["seconds"], row["real_steps_per_second"]
        tables.append(rows)
    assert tables[0] == tables[1]
    # After 9 batches, which made 4 updates, the warm-up is over. No epoch was better than the
    # first: the rate fell before the last kill and after it, and training stopped early.
    rates = [float(row["learning_rate"]) for row in tables[0]]
    assert rates == pytest.approx([0.2, 0.2, 0.14, 0.098])


@pytest.mark.parametrize("which", ["best", "last"])
def test_networks_are_the_same(runs, which):
    from lengthwise.model import Run

    one, two = (Run.load(run).load_model(which).get_weights() for run in runs)
    for a, b in zip(one, two, strict=True):
        assert a.tobytes() == b.tobytes()
