"""Runs with several labels, a number or a vector, from raw rows through `predict` and `export`."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lengthwise.dataset import PlanOptions
from lengthwise.model import Run, TrainConfig, load_run, read_dataset, train
from lengthwise.pipeline import FeatureNames, build, make_plan, predicting
from lengthwise.pipeline.sources import SourceOptions

pytestmark = pytest.mark.usefixtures("quick_kernel")

TYPES = pa.schema(
    [
        ("tokens", pa.list_(pa.string())),
        ("weight", pa.float32()),
        ("traits", pa.list_(pa.int64(), 3)),
        ("size", pa.float32()),
        ("place", pa.list_(pa.float32(), 2)),
        ("id", pa.int64()),
    ]
)
LABELS = ("place", "size", "traits")
SMALL = TrainConfig(units=4, embedding_size=3, epochs=1, batch_size=16, learning_rate=0.03)
CONFIGS = {
    "place": {"label": "place", "task": "regress", "inputs": ("tokens", "weight")},
    "size": {"label": "size", "task": "regress", "inputs": ("tokens",)},
    "traits": {"label": "traits", "inputs": ("tokens", "weight")},
}


def make_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        tokens = rng.choice(list("abc "), rng.integers(1, 9)).tolist()
        vowels = tokens.count("a")
        weight = float(rng.normal(20, 5))
        rows.append(
            {
                "tokens": tokens,
                "weight": weight,
                "traits": [int(vowels > 0), int("b" in tokens), int(weight > 20)],
                "size": 100.0 + 10 * vowels,
                "place": [-500.0 + weight, 3.0 * vowels],
                "id": number,
            }
        )
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    pq.write_table(pa.Table.from_pylist(make_rows(60), TYPES), folder / "in.parquet")
    plan = make_plan(
        [folder / "in.parquet"],
        names=FeatureNames(sequences=("tokens",), labels=LABELS, contexts=("weight", "id")),
        options=PlanOptions(num_buckets=2, align=1),
    )
    # The rows are Parquet; lines of text that are predicted later mean characters too.
    plan = dataclasses.replace(plan, reading=SourceOptions(tokens="characters"))
    build([folder / "in.parquet"], folder / "out", plan=plan)
    return folder / "out"


@pytest.fixture(scope="module")
def run_of(dataset, tmp_path_factory):
    """Trains on one of the labels, once."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def get(label):
        train(dataset, folder / label, dataclasses.replace(SMALL, **CONFIGS[label]))
        return folder / label

    return get


@pytest.fixture(scope="module")
def loaded(run_of):
    """The same run, loaded once."""
    return cache(lambda label: load_run(run_of(label)))


@pytest.fixture(scope="module")
def expected(dataset, run_of):
    """What the network of a run gives for the rows of the dataset, by their id."""

    @cache
    def get(label):
        network = Run.load(run_of(label)).load_model("best")
        found = {}
        for features, _ in read_dataset(dataset, batch_size=16, label=label):
            outputs = np.asarray(network(features), np.float64)
            found |= dict(zip(features["id"].numpy().tolist(), outputs, strict=True))
        outputs = np.array([found[number] for number in range(60)])
        return 1 / (1 + np.exp(-outputs)) if label == "traits" else outputs

    return get


def numbers_in(table, label):
    if label == "traits":
        return np.array(table["probabilities"].to_pylist())
    return np.array(table["value" if label == "size" else "values"].to_pylist()).reshape(60, -1)


@pytest.mark.parametrize("label", LABELS)
def test_a_file_has_the_numbers_that_the_network_gives_for_the_dataset(
    run, run_of, loaded, expected, tmp_path, label
):
    table = pa.Table.from_pylist(make_rows(60), TYPES).drop_columns(list(LABELS))
    pq.write_table(table, tmp_path / "new.parquet")
    output = tmp_path / "p.parquet"
    code, _, err = run("predict", run_of(label), tmp_path / "new.parquet", "-o", output)
    assert (code, err) == (0, "")
    found = pq.read_table(output)
    assert found["reason"].null_count == 60
    np.testing.assert_allclose(numbers_in(found, label), expected(label), rtol=1e-5, atol=1e-5)
    # In the unit of the label, however it entered the loss.
    if label == "size":
        assert 90 < expected(label).min() < expected(label).max() < 160
    answers = loaded(label).predict(table)
    assert found.drop_columns(["file", "row"]).schema.equals(answers.schema)
    np.testing.assert_allclose(numbers_in(answers, label), expected(label), rtol=1e-5, atol=1e-5)
    if label == "traits":
        likely = [np.flatnonzero(row >= 0.5).tolist() for row in expected(label)]
        assert found["labels"].to_pylist() == answers["labels"].to_pylist() == likely
        meaning = json.loads(found.schema.metadata[predicting.METADATA])
        assert (meaning["kind"], meaning["classes"]) == ("labels", [0, 1, 2])


@pytest.mark.parametrize("label", LABELS)
def test_an_exported_model_gives_the_same_numbers(run, run_of, expected, tmp_path, label):
    code, _, err = run("export", run_of(label), tmp_path / "served")
    assert (code, err) == (0, "")
    rows = make_rows(60)
    inputs = {
        "tokens": tf.constant([token for row in rows for token in row["tokens"]]),
        "length": tf.constant([len(row["tokens"]) for row in rows], tf.int64),
    }
    if "weight" in CONFIGS[label]["inputs"]:
        inputs["weight"] = tf.constant([row["weight"] for row in rows], tf.float32)
    found = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"](**inputs)
    (name,) = found.keys() - {"reason"}
    assert name == {"traits": "probabilities", "size": "value", "place": "values"}[label]
    assert set(found["reason"].numpy()) == {b""}
    numbers = found[name].numpy().reshape(60, -1)
    np.testing.assert_allclose(numbers, expected(label), rtol=1e-5, atol=1e-5)
    described = json.loads((tmp_path / "served" / "serving.json").read_text())
    assert (described["label"], described["outputs"]) == (label, [name, "reason"])


def test_an_option_that_is_written_down_comes_before_the_plan(run, run_of, loaded, tmp_path):
    (tmp_path / "lines.txt").write_text("a b\nab\n")
    meant = {(): ["a b", "ab"], ("--tokens", "whitespace"): [["a", "b"], ["ab"]]}
    for options, rows in meant.items():
        output = tmp_path / "p.parquet"
        code, _, err = run(
            "predict", run_of("size"), tmp_path / "lines.txt", "-o", output, *options
        )
        assert (code, err) == (0, "")
        answers = loaded("size").predict([{"tokens": list(tokens)} for tokens in rows])
        found = pq.read_table(output)["value"].to_pylist()
        np.testing.assert_allclose(found, answers["value"].to_pylist(), rtol=1e-6)
        assert len(set(found)) == 2
