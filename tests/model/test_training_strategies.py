"""The same run on more replicas: the same global batch, the same numbers."""

from __future__ import annotations

import csv
import socket
import subprocess
import sys

import pytest

from lengthwise.dataset import UsageError
from lengthwise.model import TrainConfig, train

# One import of TensorFlow serves all processes: each starts it anew.
PROGRAM = """
import json, os, signal, sys
os.environ["LENGTHWISE_KERNEL"] = "hybrid"  # traced in half the time
import tensorflow as tf
from lengthwise.model import TrainConfig, train
from lengthwise.model.journal import Journal

dataset, runs, *workers = sys.argv[1:]
options = dict(
    inputs=("frames", "token"), units=3, embedding_size=2, epochs=3, batch_size=8, dropout=0.0,
    learning_rate=0.05, clip_norm=0.1, class_weights="balanced", checkpoint_steps=2, seed=2,
)

def start(strategy, task=None, devices=1, kill=0):
    child = os.fork()
    if child:
        return child
    if task is not None:
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": task}}
        os.environ["TF_CONFIG"] = json.dumps(cluster)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
    def step(self, batch, logs=None, step=Journal.on_train_batch_end):
        step(self, batch, logs)
        if kill and self.progress.step == kill:
            os.kill(os.getpid(), signal.SIGKILL)
    Journal.on_train_batch_end = step
    result = train(dataset, f"{runs}/{strategy}", TrainConfig(strategy=strategy, **options))
    assert result.resumed_at == (4 if strategy == "mirrored" else 0), result.resumed_at
    os._exit(0)

def end(children, codes):
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == codes, ended

end([start("mirrored", devices=2, kill=5)], [-signal.SIGKILL])
end([start("multiworker", 0), start("multiworker", 1)], [0, 0])
end([start("mirrored", devices=2), start("none")], [0, 0])
"""


@pytest.fixture(scope="module")
def losses(tmp_path_factory, make_rows, write_rows):
    """Strategy -> loss of each epoch, in training and validation."""
    folder = tmp_path_factory.mktemp("strategies")
    splits = {"train": make_rows(45, longest=8), "val": make_rows(13, longest=8, seed=1)}
    for row in (*splits["train"], *splits["val"]):
        # The same id again and again in a batch, and in the batch of the other replica.
        row["token"] %= 5
    path = write_rows(folder / "dataset", splits, max_lengths=(4, 8))
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    workers = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, folder, *workers],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for strategy in ("none", "mirrored", "multiworker"):
        with open(folder / strategy / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        names = ("loss", "accuracy", "macro_f1", "val_loss", "val_accuracy", "padding")
        found[strategy] = [float(row[name]) for row in rows for name in names]
    return found


@pytest.mark.parametrize("strategy", ["mirrored", "multiworker"])
def test_two_replicas_give_the_numbers_of_one_with_the_same_global_batch(losses, strategy):
    # Padding is what it is: rows that fill a batch are slots too.
    assert len(losses[strategy]) == 3 * 6
    for number, (one, two) in enumerate(zip(losses["none"], losses[strategy], strict=True)):
        if number % 6 < 5:
            assert two == pytest.approx(one, abs=1e-4), number


def test_workers_without_a_cluster_are_told_what_is_missing(tmp_path, dataset_of_one, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match="--strategy multiworker needs the environment variable"):
        train(dataset_of_one, tmp_path / "run", TrainConfig(strategy="multiworker"))


@pytest.fixture
def dataset_of_one(write_dataset, make_rows):
    return write_dataset({"train": make_rows(3)})
