"""Every task, from a dataset with labels of all kinds to a run and its evaluation."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import Any

import keras
import numpy as np
import pytest

from lengthwise.dataset import Feature, Manifest, Schema, SchemaError, UsageError
from lengthwise.model import (
    MaskedBiLSTM,
    MeanPooling,
    Run,
    TrainConfig,
    evaluate,
    read_dataset,
    train,
)
from lengthwise.model.evaluation import write_evaluation

pytestmark = pytest.mark.usefixtures("quick_kernel")

SCHEMA = Schema(
    (
        Feature("frames", "float32", (2,)),
        Feature("kind", "int64", sequence=False),
        Feature("phase", "int64", label=True),
        Feature("place", "float32", (2,), sequence=False, label=True),
        Feature("size", "float32", sequence=False, label=True),
        Feature("token", "int64"),
        Feature("traits", "int64", (3,), sequence=False, label=True),
        Feature("word", "int64", sequence=False, label=True),
    )
)
SMALL = TrainConfig(
    units=8,
    embedding_size=4,
    epochs=3,
    batch_size=8,
    learning_rate=0.03,
    dropout=0.1,
)
TASKS = {
    "classify": {"label": "word", "pooling": "mean", "class_weights": "balanced"},
    "multilabel": {"label": "traits", "class_weights": "balanced", "pooling": "max"},
    "regress": {"task": "regress", "label": "size", "pooling": "mean", "inputs": ("frames",)},
    "vector": {"task": "regress", "label": "place", "pooling": "attention", "layers": 2},
    "tag": {"task": "tag", "label": "phase", "class_weights": "balanced", "context": "onehot"},
}


def make_rows(count, seed):
    """Rows whose labels follow from their steps."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length, token = int(rng.integers(1, 13)), int(rng.integers(4))
        frames = rng.normal(size=(length, 2)).astype(np.float32)
        frames += rng.normal(size=2).astype(np.float32)
        mean = frames.mean(0)
        tokens = np.where(rng.random(length) < 0.7, token, rng.integers(0, 4, length))
        rows.append(
            {
                "frames": frames,
                "token": tokens,
                "kind": int(rng.integers(3)),
                "phase": 5 + 2 * (tokens > 1) + 1 * (frames[:, 0] > 0),
                "place": 1000.0 + 50.0 * mean,
                "size": np.float32(-30.0 + 10.0 * mean[0]),
                "traits": np.array([token % 2, token > 1, mean[0] > 0], np.int64),
                "word": 3 + 2 * token,
            }
        )
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_rows):
    splits = {"train": make_rows(120, 0), "val": make_rows(40, 1), "test": make_rows(40, 2)}
    path = tmp_path_factory.mktemp("data") / "dataset"
    return write_rows(path, splits, schema=SCHEMA)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, dataset):
    """Trains a task once; gives what came out."""
    runs: dict[str, Any] = {}

    def run(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp("runs") / name
            runs[name] = train(dataset, folder, dataclasses.replace(SMALL, **TASKS[name]))
        return runs[name]

    return run


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_learnt_and_measured_over_its_real_items(dataset, run_of, name):
    result = run_of(name)
    first, last = result.history[0], result.history[-1]
    assert last["loss"] < first["loss"]
    report = evaluate(result.run.path, dataset, "test")
    expected = numbers_by_hand(result.run, dataset, "test")
    for number, value in expected.items():
        assert report[number] == pytest.approx(value, rel=2e-5), number
    # Better than to give always the same.
    if name in ("regress", "vector"):
        assert report["loss"] < 0.9
    else:
        assert (
            report["accuracy"]
            > max(item["items"] for item in report["classes"])
            / (report["items"] / (3 if name == "multilabel" else 1))
            or name == "multilabel"
        )


def numbers_by_hand(run, path, split):
    """Numbers of rows run one at a time without padding, in double precision."""
    task, network = run.task, run.load_model("best")
    losses, given, there = [], [], []
    for features, labels in read_dataset(
        path, split, shuffle=False, label=task.label.name
    ).as_numpy_iterator():
        for row, length in enumerate(features["length"]):
            alone = {
                name: value[row : row + 1, :length]
                if name in ("frames", "token", "mask")
                else value[row : row + 1]
                for name, value in features.items()
            }
            outputs = np.asarray(network(alone))[0].astype(np.float64)
            label = labels[row]
            if task.kind in ("classify", "tag"):
                label = label[:length] if task.kind == "tag" else label[np.newaxis]
                index = np.searchsorted(task.classes, label)
                logits = outputs.reshape(-1, len(task.classes))
                normal = np.log(np.exp(logits).sum(-1))
                losses += (normal - logits[np.arange(len(index)), index]).tolist()
                given += logits.argmax(-1).tolist()
                there += index.tolist()
            elif task.kind == "multilabel":
                losses += (np.log1p(np.exp(outputs)) - label * outputs).tolist()
                given.append(outputs > 0)
                there.append(label > 0)
            else:
                error = outputs - np.ravel(label)
                losses += np.square(error / np.array(task.scale)).tolist()
                given += outputs.tolist()
                there += np.ravel(label).tolist()
    given, there = np.array(given), np.array(there)
    numbers = {"loss": np.mean(losses), "items": len(losses)}
    if task.kind == "regress":
        error = given - there
        return {
            **numbers,
            "rmse": np.sqrt(np.mean(np.square(error))),
            "mae": np.mean(np.abs(error)),
        }
    pairs = (
        [(given[:, k], there[:, k]) for k in range(3)]
        if task.kind == "multilabel"
        else [(given == c, there == c) for c in range(len(task.classes))]
    )
    scores = [2 * (g & t).sum() / (g.sum() + t.sum()) for g, t in pairs if (g | t).any()]
    return {**numbers, "accuracy": np.mean(given == there), "macro_f1": np.mean(scores)}


def test_numbers_of_buckets_and_classes_add_up(dataset, run_of):
    report = evaluate(run_of("tag").run.path, dataset, "test")
    items = [bucket["items"] for bucket in report["buckets"]]
    assert [bucket["max_length"] for bucket in report["buckets"]] == [4, 8, 12]
    assert sum(items) == report["items"] > report["rows"]
    for name in ("loss", "accuracy"):
        parts = [bucket[name] for bucket in report["buckets"]]
        assert np.average(parts, weights=items) == pytest.approx(report[name], rel=1e-6)
    confusion = np.array(report["confusion"])
    assert confusion.sum() == report["items"]
    assert np.trace(confusion) / confusion.sum() == pytest.approx(report["accuracy"])
    for i, item in enumerate(report["classes"]):
        assert item["name"] == str(5 + i)
        assert (item["items"], item["given"]) == (confusion[i].sum(), confusion[:, i].sum())
        assert item["precision"] == pytest.approx(confusion[i, i] / max(confusion[:, i].sum(), 1))
        assert item["recall"] == pytest.approx(confusion[i, i] / confusion[i].sum())
        both = confusion[i].sum() + confusion[:, i].sum()
        assert item["f1"] == pytest.approx(2 * confusion[i, i] / both)


def test_numbers_come_in_the_unit_of_the_label(dataset, run_of):
    run = run_of("vector").run
    labels = np.concatenate(
        [np.asarray(label) for _, label in read_dataset(dataset, "train", label="place")]
    )
    np.testing.assert_allclose(run.task.shift, labels.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(run.task.scale, labels.std(0, dtype=np.float64), rtol=1e-4)
    features, _ = next(iter(read_dataset(dataset, "test", label="place")))
    given = np.asarray(run.load_model("best")(features))
    assert given.shape[1:] == (2,)
    assert 800 < given.min() < given.max() < 1200


def test_a_run_says_what_its_outputs_mean(dataset, run_of):
    run = Run.load(run_of("tag").run.path)
    assert run.task == run_of("tag").run.task
    assert (run.task.kind, run.task.classes) == ("tag", (5, 6, 7, 8))
    assert run.plan.statistics["phase"].values is not None
    assert Run.load(run_of("multilabel").run.path).task.kind == "multilabel"


def test_an_evaluation_leaves_tables_and_plots(dataset, run_of):
    path = run_of("tag").run.path
    report = evaluate(path, dataset, "val", checkpoint="last")
    folder = write_evaluation(path, "val", report, checkpoint="last")
    assert folder == path / "evaluation" / "val-last"
    assert {file.name for file in folder.iterdir()} == {
        *("metrics.json", "buckets.csv", "buckets.png", "classes.csv"),
        *("confusion.csv", "confusion.png"),
    }
    assert json.loads((folder / "metrics.json").read_text())["loss"] == report["loss"]
    with open(folder / "buckets.csv", newline="") as file:
        assert [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
        ] == report["buckets"]
    with open(folder / "classes.csv", newline="") as file:
        assert [int(row["given"]) for row in csv.DictReader(file)] == [
            item["given"] for item in report["classes"]
        ]
    with open(folder / "confusion.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["class", "5", "6", "7", "8"]
    assert [[int(count) for count in line[1:]] for line in lines[1:]] == report["confusion"]
    for plot in folder.glob("*.png"):
        assert plot.read_bytes().startswith(b"\x89PNG")


def own_network(inputs, output, config):
    """A network of the user: frames alone, averaged."""
    frames = keras.Input((None, 2), name="frames")
    mask = keras.Input((None,), dtype="bool", name="mask")
    steps = MaskedBiLSTM(config.units, return_sequences=True)(frames, mask=mask)
    row = MeanPooling()(steps, mask=mask)
    return keras.Model([frames, mask], keras.layers.Dense(output.size)(row))


def wrong_network(inputs, output, config):
    frames = keras.Input((None, 2), name="frames")
    return keras.Model([frames], keras.layers.Dense(output.size)(frames))


def test_a_network_of_ones_own_is_trained(dataset, tmp_path):
    config = dataclasses.replace(SMALL, label="word", epochs=1)
    result = train(dataset, tmp_path / "run", config, build_model=own_network)
    assert result.run.config.build_model.endswith(":own_network")
    assert evaluate(result.run.path, dataset, "test")["rows"] == 40
    assert [type(layer).__name__ for layer in result.run.load_model("last").layers].count(
        "MeanPooling"
    )


def test_a_network_that_gives_something_else_is_refused(dataset, tmp_path):
    config = dataclasses.replace(SMALL, label="word", epochs=1)
    with pytest.raises(UsageError, match=r"gave a model of output .*; the task needs \(None, 4\)"):
        train(dataset, tmp_path / "run", config, build_model=wrong_network)
    config = dataclasses.replace(config, build_model="lengthwise.model:nothing")
    with pytest.raises(UsageError, match="nothing: cannot be found"):
        train(dataset, tmp_path / "run", config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "size"}, "or a vector of 0 and 1, but the label is size: float32 scalar label"),
        ({"task": "tag", "label": "word"}, "needs one integer or string per step, but the label"),
        ({"task": "regress", "label": "phase"}, "it fits --task tag"),
    ],
)
def test_a_task_that_does_not_fit_the_label_is_told_so(dataset, tmp_path, options, message):
    with pytest.raises(SchemaError) as error:
        train(dataset, tmp_path / "run", dataclasses.replace(SMALL, **options))
    assert message in str(error.value)
    assert str(Manifest.load(dataset).root) in str(error.value)
