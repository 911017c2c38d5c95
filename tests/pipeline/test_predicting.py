"""Raw input files through a trained run: the command `predict`, and `export` beside it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from functools import cache
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from lengthwise.dataset import OutputError, PlanOptions
from lengthwise.model import TrainConfig, load_run, read_dataset, train
from lengthwise.pipeline import FeatureNames, build, predicting
from tests.pipeline.conftest import folder_digest

WORDS = ("the", "cat", "sat", "", "é")
TYPES = pa.schema(
    [
        ("frames", pa.list_(pa.list_(pa.float32(), 2))),
        ("words", pa.list_(pa.string())),
        ("size", pa.float64()),
        ("id", pa.int64()),
        ("tag", pa.list_(pa.string())),
        ("topic", pa.string()),
    ]
)
NAMES = FeatureNames(
    sequences=("frames", "words"), labels=("tag", "topic"), contexts=("size", "id")
)
OPTIONS = PlanOptions(
    num_buckets=3,
    align=1,
    max_length=9,
    overlong="truncate_end",
    normalize={"frames": "zscore"},
    fill="mean",
    element_mask=True,
)
CONFIG = TrainConfig(
    label="topic", inputs=("frames", "words", "size"), units=4, embedding_size=3, epochs=1
)
CONFIGS = {
    "topic": CONFIG,
    "tag": dataclasses.replace(CONFIG, task="tag", label="tag"),
}


def make_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        n = int(rng.integers(1, 13))
        frames = rng.normal(5, 3, (n, 2)).astype(np.float32)
        frames[rng.random(n) < 0.1] = np.nan
        frames[rng.random(n) < 0.1, 1] = np.nan
        words = rng.integers(0, len(WORDS), n)
        rows.append(
            {
                "frames": frames.tolist(),
                "words": [None if rng.random() < 0.1 else WORDS[k] for k in words],
                "size": float(rng.normal()),
                "id": number,
                "tag": ["even" if k % 2 == 0 else "odd" for k in words],
                "topic": "cats" if (words == 1).any() else "other",
            }
        )
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    pq.write_table(pa.Table.from_pylist(make_rows(60), TYPES), folder / "in.parquet")
    build([folder / "in.parquet"], folder / "out", names=NAMES, options=OPTIONS)
    return folder / "out"


@pytest.fixture(scope="module")
def run_of(dataset, tmp_path_factory):
    """Trains on one of the labels, once."""
    folder = tmp_path_factory.mktemp("runs")

    @cache
    def get(label):
        train(dataset, folder / label, CONFIGS[label])
        return folder / label

    return get


@pytest.fixture(scope="module")
def loaded(run_of):
    """The same run, loaded once."""

    @cache
    def get(label):
        return load_run(run_of(label))

    return get


@pytest.fixture
def new_files(tmp_path):
    """Rows without labels in two files, of two row groups and of one."""
    folder = tmp_path / "new"
    (folder / "deep").mkdir(parents=True)
    table = pa.Table.from_pylist(make_rows(30, seed=7), TYPES).drop_columns(["tag", "topic", "id"])
    pq.write_table(table.slice(0, 20), folder / "b.parquet", row_group_size=12)
    pq.write_table(table.slice(20), folder / "deep" / "a.parquet")
    return folder, table


@pytest.mark.parametrize("label", CONFIGS)
def test_raw_rows_are_predicted_as_the_network_predicts_the_dataset(dataset, run_of, loaded, label):
    rows = pa.Table.from_pylist(make_rows(60), TYPES)
    found = loaded(label).predict(rows)
    network = load_network(run_of(label) / "best.keras")
    seen = 0
    for features, _ in read_dataset(dataset, batch_size=8, label=label):
        probabilities = tf.nn.softmax(network(features)).numpy()
        for line, row in enumerate(features["id"].numpy().tolist()):
            seen += 1
            if label == "topic":
                expected, name = probabilities[line], "probabilities"
            else:
                mask, length = features["mask"][line].numpy(), int(features["length"][line])
                expected = probabilities[line].max(axis=1)[:length]
                expected = np.where(mask[:length], expected, np.nan)
                name = "tag_probabilities"
            mine = np.array(found[name][row].as_py(), np.float64)[: len(expected)]
            np.testing.assert_allclose(mine, expected, atol=1e-5)
    assert seen == rows.num_rows


def load_network(path) -> Any:
    return keras.saving.load_model(path, compile=False)


@pytest.mark.parametrize("label", CONFIGS)
def test_a_file_has_the_answers_of_the_library_in_the_order_of_the_input(
    run, run_of, loaded, new_files, tmp_path, label
):
    folder, table = new_files
    code, out, err = run("predict", run_of(label), folder, "-o", tmp_path / "p.parquet")
    assert code == 0, err
    assert out.splitlines()[0] == "30 rows, 30 predicted"
    found = pq.read_table(tmp_path / "p.parquet")
    assert found["file"].to_pylist() == ["b.parquet"] * 20 + ["deep/a.parquet"] * 10
    assert found["row"].to_pylist() == [*range(20), *range(10)]
    expected = loaded(label).predict(table)
    assert found.column_names == ["file", "row", *expected.column_names]
    assert found["reason"].null_count == 30
    for name in expected.column_names[1:]:
        mine, yours = found[name].to_pylist(), expected[name].to_pylist()
        if isinstance(mine[0], list) and "prob" in name:
            for one, other in zip(mine, yours, strict=True):
                np.testing.assert_allclose(
                    np.array(one, np.float64), np.array(other, np.float64), atol=1e-6
                )
        else:
            assert mine == yours
    meaning = json.loads(pq.read_schema(tmp_path / "p.parquet").metadata[predicting.METADATA])
    assert meaning["classes"] == (["cats", "other"] if label == "topic" else ["even", "odd"])


def test_any_number_of_workers_writes_the_same_bytes(run, run_of, new_files, tmp_path):
    folder, _ = new_files
    for workers in (1, 2):
        code, _, err = run(
            "predict", run_of("tag"), folder, "-o", tmp_path / f"{workers}.parquet",
            "--workers", workers,
        )  # fmt: skip
        assert code == 0, err
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["1.parquet", "2.parquet", "new"]


def test_rows_that_cannot_be_used_are_listed_with_their_reason(run, run_of, tmp_path):
    good = {"frames": [[1, 2]], "words": ["cat"], "size": 1}
    lines = [
        json.dumps(good),
        "{broken",
        json.dumps({**good, "words": None}),
        json.dumps({**good, "words": ["cat", "sat"]}),
        json.dumps({**good, "frames": [], "words": []}),
        json.dumps({**good, "size": None}),
        json.dumps({**good, "frames": [[1e300, 0]]}),
        json.dumps(good),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    code, out, err = run(
        "predict", run_of("topic"), tmp_path / "rows.jsonl", "-o", tmp_path / "p.parquet"
    )
    assert code == 0, err
    found = pq.read_table(tmp_path / "p.parquet")
    reasons = [
        None,
        "broken line",
        "null sequence",
        "sequence features of different lengths",
        "empty sequence",
        "null context or label",
        "infinite, or beyond float32",
        None,
    ]
    assert found["row"].to_pylist() == list(range(8))
    assert found["reason"].to_pylist() == reasons
    assert [name is None for name in found["class"].to_pylist()] == [
        reason is not None for reason in reasons
    ]
    assert found["probabilities"][0] == found["probabilities"][7]
    assert out.splitlines()[0] == "8 rows, 2 predicted"
    assert "  1 × null sequence" in out.splitlines()


def test_predictions_are_replaced_and_nothing_else_is(run, run_of, new_files, tmp_path):
    folder, _ = new_files
    output = tmp_path / "p.parquet"
    for _ in range(2):
        assert run("predict", run_of("topic"), folder / "b.parquet", "-o", output)[0] == 0
    before = output.read_bytes()
    for strange in (folder / "b.parquet", folder, tmp_path / "no" / "p.parquet"):
        digest = folder_digest(tmp_path)
        code, out, err = run("predict", run_of("topic"), folder / "b.parquet", "-o", strange)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1 and str(strange) in err
        assert folder_digest(tmp_path) == digest
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["size"]), "no column 'size', which the model takes as size"),
        (
            lambda t: t.set_column(t.column_names.index("size"), "size", pa.array(["a"] * 30)),
            "column 'size' is string, the model takes size: float32 scalar",
        ),
    ],
)
def test_columns_that_do_not_fit_are_one_line(run, run_of, new_files, tmp_path, change, message):
    _, table = new_files
    pq.write_table(change(table), tmp_path / "other.parquet")
    code, _, err = run(
        "predict", run_of("topic"), tmp_path / "other.parquet", "-o", tmp_path / "p.parquet"
    )
    assert code == 1
    assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "p.parquet").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_job_that_was_killed_goes_on_where_it_was(run_of, new_files, tmp_path, monkeypatch):
    folder, _ = new_files
    whole = predicting.predict_unit
    calls = tmp_path / "calls"
    calls.mkdir()

    def fails_first(numbered, job):
        # Beam calls a copy of this function: what it has done must be seen from outside.
        number = numbered[0]
        before = len(list(calls.glob(f"{number}-*")))
        (calls / f"{number}-{before}").touch()
        if number == 1 and before == 0:
            raise OSError(28, "No space left on device", "somewhere")
        whole(numbered, job)

    monkeypatch.setattr(predicting, "predict_unit", fails_first)
    output = tmp_path / "p.parquet"
    with pytest.raises(OutputError, match="No space left"):
        predicting.predict(run_of("topic"), [folder], output)
    assert not output.exists()
    predicting.predict(run_of("topic"), [folder], output)
    # The unit that failed ran twice, every other once, in whichever of the two runs.
    assert sorted(path.name for path in calls.iterdir()) == ["0-0", "1-0", "1-1", "2-0"]
    again = tmp_path / "again.parquet"
    monkeypatch.setattr(predicting, "predict_unit", whole)
    predicting.predict(run_of("topic"), [folder], again)
    assert again.read_bytes() == output.read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def copied_run(run_of, tmp_path):
    return shutil.copytree(run_of("topic"), tmp_path / "copied")


@pytest.mark.parametrize("command", ["predict", "export"])
@pytest.mark.parametrize("fault", ["nowhere", "version", "weights", "no weights", "plan"])
def test_a_run_that_cannot_be_used_is_one_line(
    run, copied_run, new_files, tmp_path, command, fault
):
    messages = {
        "nowhere": "no run here",
        "version": "version 99 of the run is not known",
        "weights": "best.keras: cannot be read",
        "no weights": "best.keras: is missing",
        "plan": "plan.json: was changed",
    }
    config, weights = copied_run / "config.json", copied_run / "best.keras"
    if fault == "nowhere":
        config.unlink()
    elif fault == "version":
        config.write_text(json.dumps({**json.loads(config.read_text()), "version": 99}))
    elif fault == "weights":
        data = bytearray(weights.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
        weights.write_bytes(bytes(data))
    elif fault == "no weights":
        weights.unlink()
    else:
        (copied_run / "plan.json").write_text((copied_run / "plan.json").read_text() + " ")
    rest = [new_files[0], "-o", tmp_path / "out"] if command == "predict" else [tmp_path / "out"]
    code, out, err = run(command, copied_run, *rest)
    assert (code, out) == (1, "")
    assert messages[fault] in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


OWN_NETWORK = """
import keras
from lengthwise.model import build_network

@keras.saving.register_keras_serializable("own")
class Doubled(keras.layers.Layer):
    def call(self, given):
        return 2.0 * given

def build(inputs, output, config):
    network = build_network(inputs, output, config)
    return keras.Model(network.inputs, Doubled()(network.output))
"""


def test_a_network_of_ones_own_needs_its_module(run, dataset, new_files, tmp_path, monkeypatch):
    monkeypatch.setenv("LENGTHWISE_KERNEL", "hybrid")  # traced in half the time
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    place = "own_network:build"
    train(dataset, tmp_path / "run", dataclasses.replace(CONFIG, build_model=place))
    for command, rest in (
        ("predict", [new_files[0], "-o", tmp_path / "p.parquet"]),
        ("export", [tmp_path / "exported"]),
    ):
        # As in a process that has not trained it.
        sys.modules.pop("own_network")
        keras.saving.get_custom_objects().pop("own>Doubled")
        monkeypatch.setattr(sys, "path", sys.path[1:])
        code, _, err = run(command, tmp_path / "run", *rest)
        assert code == 1
        assert f"before: --build-model {place}" in err and len(err.splitlines()) == 1
        monkeypatch.syspath_prepend(tmp_path)
        code, _, err = run(command, tmp_path / "run", *rest, "--build-model", place)
        assert code == 0, err
    assert pq.read_table(tmp_path / "p.parquet")["reason"].null_count == 30


def test_an_export_answers_as_predict(run, run_of, loaded, new_files, tmp_path):
    code, out, err = run("export", run_of("topic"), tmp_path / "models" / "1")
    assert (code, err) == (0, "")
    assert "  words: string (steps,)" in out.splitlines()
    exported = tmp_path / "models" / "1"
    _, table = new_files
    expected = loaded("topic").predict(table)

    rows = table.to_pylist()
    inputs = {
        "frames": tf.constant([step for row in rows for step in row["frames"]], tf.float32),
        "words": tf.constant([word or "" for row in rows for word in row["words"]]),
        "size": tf.constant([row["size"] for row in rows], tf.float32),
        "length": tf.constant([len(row["words"]) for row in rows], tf.int64),
    }
    inputs["frames__observed"] = tf.ones(inputs["frames"].shape, tf.bool)
    known = tf.constant([word is not None for row in rows for word in row["words"]])
    model = tf.saved_model.load(str(exported))
    found = model.signatures["with_mask"](mask=known, **inputs)
    numbers = np.array(expected["probabilities"].to_pylist(), np.float32)
    np.testing.assert_allclose(found["probabilities"], numbers, atol=1e-5)
    names = [name.decode() for name in found["class"].numpy()]
    assert names == expected["class"].to_pylist()

    network = load_network(exported / "model.keras")
    assert network.count_params() > 0
    described = json.loads((exported / "serving.json").read_text())
    assert described["classes"] == ["cats", "other"]
    names = [item["name"] for item in described["inputs"]]
    assert names == ["frames", "size", "words", "length", "mask", "frames__observed"]

    code, out, err = run("export", run_of("topic"), exported)
    assert (code, out) == (1, "")
    assert "is there already" in err and len(err.splitlines()) == 1
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["1"]
