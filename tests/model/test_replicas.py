"""Under tf.distribute, in processes of their own: devices are made before TensorFlow starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import tensorflow as tf

path, options, mirrored = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "mirrored"
if mirrored:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
else:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()

from lengthwise.model.replicas import distribute_dataset

data = distribute_dataset(strategy, path, batch_size=4, seed=1, **options)
steps = []
for features, label, weight in data:
    def total(features, weight):
        context = tf.distribute.get_replica_context()
        return context.all_reduce("sum", tf.reduce_sum(weight))

    everywhere = strategy.run(total, args=(features, weight))
    parts = strategy.experimental_local_results(features["id"])
    masks = strategy.experimental_local_results(features["mask"])
    weights = strategy.experimental_local_results(weight)
    steps.append({
        "ids": [i[w > 0].numpy().tolist() for i, w in zip(parts, weights)],
        "shapes": [mask.shape.as_list() for mask in masks],
        "rows": float(strategy.experimental_local_results(everywhere)[0]),
    })
print("STEPS" + json.dumps(steps))
"""


@pytest.fixture
def dataset(write_dataset, make_rows):
    return write_dataset({"train": make_rows(61)}, shard_records=50)


def start(dataset, kind, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(dataset), json.dumps({"pad_remainder": True}), kind],
        env={**os.environ, "GRPC_VERBOSITY": "NONE", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps_of(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output.rpartition("STEPS")[2])


def check(steps):
    """For each step what each replica read."""
    assert sorted(i for step in steps for ids in step["ids"] for i in ids) == list(range(61))
    for step in steps:
        assert len({tuple(shape) for shape in step["shapes"]}) == 1
        assert step["rows"] == sum(map(len, step["ids"]))


def test_mirrored_replicas_share_every_step(dataset):
    steps = steps_of(start(dataset, "mirrored"))
    assert {len(step["ids"]) for step in steps} == {2}
    check(steps)


def test_workers_in_two_processes_share_every_step(dataset):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    workers = [
        start(
            dataset,
            "workers",
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in range(2)
    ]
    try:
        one, two = map(steps_of, workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    check(
        [
            {"ids": a["ids"] + b["ids"], "shapes": a["shapes"] + b["shapes"], "rows": a["rows"]}
            for a, b in zip(one, two, strict=True)
        ]
    )


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
