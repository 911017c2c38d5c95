"""Training and evaluation, from a dataset folder to numbers that count each row once."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from lengthwise.dataset import (
    CorruptDataError,
    Feature,
    InputError,
    LengthwiseError,
    Manifest,
    ManifestError,
    OutputError,
    Schema,
    SchemaError,
)
from lengthwise.model import Run, TrainConfig, evaluate, read_dataset, train
from lengthwise.model import progress as progress_module
from lengthwise.model.epochs import Epochs
from lengthwise.model.fit_model import FitModel
from lengthwise.model.progress import TrainingProgress
from lengthwise.model.read_options import ReadOptions

# 50 rows in batches of 8: every bucket ends with a short batch.
CONFIG = TrainConfig(inputs=("frames",), units=4, epochs=4, batch_size=8, learning_rate=0.05)
# Weights that hardly move: what is measured while training is what is measured afterwards.
STILL = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-9, dropout=0.0, seed=1)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """The kernel that is traced in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENGTHWISE_KERNEL", "hybrid")
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_rows, write_rows):
    splits = {"train": make_rows(50), "val": make_rows(21, seed=1), "test": make_rows(30, seed=2)}
    return write_rows(tmp_path_factory.mktemp("data") / "dataset", splits)


@pytest.fixture(scope="module")
def traces():
    """Names of the steps that Keras traced while training `trained`."""
    return []


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset, traces):
    output = io.StringIO()
    run_dir = tmp_path_factory.mktemp("runs") / "run"

    with pytest.MonkeyPatch.context() as patch:
        for name in ("train_step", "test_step"):
            step = getattr(FitModel, name)
            # Keras calls a step from Python only to trace it.
            patch.setattr(
                FitModel,
                name,
                lambda self, data, n=name, s=step: (traces.append(n), s(self, data))[1],
            )
        result = train(dataset, run_dir, CONFIG, console=Console(file=output, width=200))
    return result, output.getvalue()


@pytest.fixture(scope="module")
def still(tmp_path_factory, dataset):
    return train(dataset, tmp_path_factory.mktemp("runs") / "run", STILL)


@pytest.fixture
def run_dir(trained):
    return trained[0].run.path


def rows_one_at_a_time(model, path, split):
    """Loss and hit of every row, each run alone and without padding."""
    classes = [10, 11, 12]
    for features, labels in read_dataset(path, split, shuffle=False).as_numpy_iterator():
        for row, length in enumerate(features["length"]):
            alone = {
                "frames": features["frames"][row : row + 1, :length],
                "mask": np.ones((1, length), bool),
            }
            logits = np.asarray(model(alone))[0].astype(np.float64)
            index = classes.index(labels[row])
            yield np.log(np.exp(logits - logits[index]).sum()), logits.argmax() == index


def test_evaluation_is_the_mean_over_rows_run_alone(dataset, run_dir):
    numbers = evaluate(run_dir, dataset, "test")
    model = Run.load(run_dir).load_model("best")
    losses, hits = zip(*rows_one_at_a_time(model, dataset, "test"), strict=True)
    assert numbers["rows"] == len(losses) == Manifest.load(dataset).records("test")
    assert numbers["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert numbers["accuracy"] == np.mean(hits)
    assert sum(bucket["rows"] for bucket in numbers["buckets"]) == len(losses)


def test_validation_in_training_is_the_mean_over_rows_too(dataset, trained):
    result, _ = trained
    numbers = evaluate(result.run.path, dataset, "val", checkpoint="last")
    assert result.history[-1]["val_loss"] == pytest.approx(numbers["loss"], rel=1e-5)
    assert result.history[-1]["val_accuracy"] == pytest.approx(numbers["accuracy"], rel=1e-6)


def test_training_loss_is_the_mean_over_rows_of_the_epoch(dataset, still):
    numbers = evaluate(still.run.path, dataset, "train", checkpoint="last")
    assert still.history[0]["loss"] == pytest.approx(numbers["loss"], rel=1e-5)
    assert still.history[0]["accuracy"] == pytest.approx(numbers["accuracy"], rel=1e-6)


def test_training_learns(dataset, trained):
    result, _ = trained
    losses = [row["loss"] for row in result.history]
    assert losses[-1] < losses[0] / 2
    assert evaluate(result.run.path, dataset, "test")["accuracy"] > 0.8


def test_best_epoch_is_that_of_the_least_validation_loss(dataset, trained, tmp_path):
    result, _ = trained
    losses = [row["val_loss"] for row in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    # However many replicas it was trained on.
    folder = shutil.copytree(result.run.path, tmp_path / "run")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"strategy": "none"', '"strategy": "mirrored"')
    )
    assert Run.load(folder).config.strategy == "mirrored"
    numbers = evaluate(folder, dataset, "val", checkpoint="best")
    assert numbers["loss"] == pytest.approx(min(losses), rel=1e-5)


def test_run_folder_explains_itself(dataset, trained):
    result, _ = trained
    folder = result.run.path
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "plan.json", "history.csv", "metrics.json", "state.npz"),
        *("best.keras", "last.keras", "curves.png", "tensorboard"),
    }
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert list(rows[0]) == [
        *("epoch", "loss", "accuracy", "macro_f1", "val_loss", "val_accuracy", "val_macro_f1"),
        *("learning_rate", "real_steps_per_second", "padding", "seconds"),
    ]
    padding = Manifest.load(dataset).padding_fraction("train")
    assert float(rows[0]["padding"]) == pytest.approx(padding, abs=1e-6)
    config = json.loads((folder / "config.json").read_text())
    assert config["dataset_fingerprint"] == Manifest.load(dataset).fingerprint
    assert config["config"]["units"] == 4
    assert config["task"]["classes"] == [10, 11, 12]
    assert (folder / "plan.json").read_bytes() == (dataset / "plan.json").read_bytes()
    assert set(config["versions"]) == {"python", "tensorflow", "keras", "numpy"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["best_epoch"] == result.best_epoch
    assert (metrics["train_rows"], metrics["validation_rows"]) == (50, 21)
    assert metrics["best"]["val_loss"] == result.best["val_loss"]
    assert Run.load(folder) == result.run


def test_tensorboard_has_the_history(trained):
    result, _ = trained
    logged = {}
    for part, prefix in (("train", ""), ("validation", "val_")):
        (file,) = (result.run.path / "tensorboard" / part).iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                logged.setdefault(prefix + value.tag, []).append((event.step, number))
                assert value.metadata.plugin_data.plugin_name == "scalars"
    assert set(logged) == set(result.history[0]) - {"epoch"}
    for name, points in logged.items():
        assert [step for step, _ in points] == [8, 16, 24, 32], name
        expected = [row[name] for row in result.history]
        assert [number for _, number in points] == pytest.approx(expected, rel=1e-6), name


def test_progress_is_a_line_an_epoch_where_there_is_no_terminal(trained):
    result, output = trained
    lines = output.splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"epoch {i}/4" for i in (1, 2, 3, 4)]
    assert f"loss {result.history[0]['loss']:.4f}  accuracy" in lines[0]


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    output = io.StringIO()
    console = Console(file=output, width=150, force_terminal=True)
    numbers = SimpleNamespace(steps=50.0, slots=60.0)
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: clock)
    clock = 100.0
    with TrainingProgress(
        console, SimpleNamespace(numbers=numbers), epochs=2, steps_per_epoch=3, done=3
    ) as progress:
        progress.on_epoch_begin(1)
        # Half a second for a step of 25 real steps: an earlier start has done the 50 before.
        clock, numbers.steps, numbers.slots = 100.5, 75.0, 100.0
        progress.on_train_batch_end(0, {"accuracy": 0.5, "loss": 1.25})
        progress.on_epoch_end(1, {"accuracy": 0.5, "loss": 1.25})
    shown = output.getvalue()
    assert "epoch 2/2" in shown
    assert "loss 1.2500" in shown
    assert "2.0 steps/s  50 real steps/s  25.0% padding" in shown
    # The time that is left, as long as nothing is known of it.
    assert "-:--:--" in shown
    assert "loss 1.2500  accuracy 0.5000" in shown
    assert "4/6" in shown


def test_the_same_run_again_gives_the_same_weights(dataset, trained, tmp_path):
    first, _ = trained
    again = train(dataset, tmp_path / "again", CONFIG)
    one, two = first.run.load_model("last"), again.run.load_model("last")
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_another_seed_gives_other_weights(trained, still):
    one, two = (result.run.load_model("last") for result in (trained[0], still))
    kernel = [model.get_layer("bilstm_0").get_weights()[0] for model in (one, two)]
    assert not np.allclose(*kernel, atol=0.1)


def test_all_features_enter_by_default_and_classes_unseen_in_training_are_told(
    write_dataset, make_rows, tmp_path
):
    unseen = make_rows(6, seed=1)
    unseen[2]["speaker"] = 99
    path = write_dataset({"train": make_rows(50), "val": unseen})
    config = TrainConfig(units=2, embedding_size=2, epochs=1, token_budget=40)
    result = train(path, tmp_path / "run", config)
    assert [feature.name for feature in result.run.task.inputs] == ["frames", "id", "token"]
    assert result.run.task.num_ids == {"id": 50, "token": 300}
    assert result.unseen == {"99": 1}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["classes_unseen_in_training"] == {"99": 1}


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_training_stops_early_in_half_precision_along_a_schedule(dataset, tmp_path, half):
    config = dataclasses.replace(
        CONFIG,
        epochs=9,
        patience=1,
        monitor="accuracy",
        precision=f"mixed_{half}",
        learning_rate=1e-9,
        schedule="cosine",
        warmup_steps=2,
    )
    result = train(dataset, tmp_path / "run", config)
    # Weights that hardly move are never better than those of the first epoch.
    assert (len(result.history), result.best_epoch) == (2, 1)
    rates = [row["learning_rate"] for row in result.history]
    assert 1e-9 > rates[0] > rates[1] > 0
    network = result.run.load_model("last")
    assert network.get_layer("bilstm_0").compute_dtype == half
    assert {weights.dtype for weights in network.get_weights()} == {np.dtype("float32")}
    assert keras.config.dtype_policy().name == "float32"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["stopped_early"] is True
    assert (metrics["best"]["epoch"], metrics["last"]["epoch"]) == (1, 2)
    measured = evaluate(tmp_path / "run", dataset, "val")["loss"]
    assert measured == pytest.approx(result.best["val_loss"], rel=1e-3)


def test_an_empty_validation_split_is_told(write_dataset, make_rows, tmp_path):
    path = write_dataset({"train": make_rows(5), "val": []})
    with pytest.raises(ManifestError, match="split 'val' has no rows to validate on"):
        train(path, tmp_path / "run", CONFIG)


def test_without_validation_split_the_training_loss_chooses(write_dataset, make_rows, tmp_path):
    path = write_dataset({"train": make_rows(20)})
    result = train(path, tmp_path / "run", TrainConfig(inputs=("frames",), units=2, epochs=2))
    losses = [row["loss"] for row in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses))
    assert "val_loss" not in result.history[0]


def test_one_trace_serves_all_buckets(trained, traces):
    assert sorted(traces) == ["test_step", "train_step"]


def test_a_loss_that_is_no_number_names_step_bucket_and_rows(write_dataset, make_rows, tmp_path):
    rows = make_rows(40)
    place = [i for i, row in enumerate(rows) if 4 < len(row["frames"]) <= 8][9]
    rows[place]["frames"] = rows[place]["frames"] * np.float32(np.nan)
    path = write_dataset({"train": rows})
    config = TrainConfig(inputs=("frames",), units=2, epochs=3, batch_size=8, normalize=False)
    with pytest.raises(LengthwiseError) as error:
        train(path, tmp_path / "run", config)
    found = re.match(
        r"epoch 1, step (\d+): the loss or its gradient is no number in a batch of \d rows of "
        r"bucket 8 of split 'train', of these rows: train/len00008-00001-of-0000\d.tfrecord "
        "record 2; look for NaN",
        str(error.value),
    )
    assert found, error.value
    schedule = Epochs(path, "train", ReadOptions(batch_size=8)).schedule(0)
    bucket, number = schedule[int(found[1]) - 1]
    assert bucket == 1
    assert 9 in schedule.rows(bucket, number)


def test_an_infinite_value_names_its_row_though_the_loss_is_a_number(
    write_dataset, make_rows, tmp_path
):
    rows = make_rows(20)
    place = next(i for i, row in enumerate(rows) if len(row["frames"]) > 8)
    # Gates saturate, so that the loss is finite; the gradient is 0 · inf.
    rows[place]["frames"] = np.full_like(rows[place]["frames"], [np.inf, 0.0])
    path = write_dataset({"train": rows})
    config = TrainConfig(inputs=("frames",), units=2, epochs=1, batch_size=8, normalize=False)
    with pytest.raises(LengthwiseError) as error:
        train(path, tmp_path / "run", config)
    assert "bucket 12 of split 'train', of these rows: train/len00012-00000-of-" in str(error.value)
    assert "tfrecord record 0; look for NaN" in str(error.value)


def test_a_validation_loss_that_is_no_number_names_bucket_and_rows(
    write_dataset, make_rows, tmp_path
):
    rows = make_rows(20, seed=1)
    place = [i for i, row in enumerate(rows) if len(row["frames"]) <= 4][1]
    rows[place]["frames"] = rows[place]["frames"] * np.float32(np.nan)
    path = write_dataset({"train": make_rows(20), "val": rows})
    config = TrainConfig(inputs=("frames",), units=2, epochs=2, batch_size=8)
    message = (
        "epoch 1: the loss is no number in bucket 4 of split 'val', of these rows: "
        r"val/len00004-00000-of-0000\d.tfrecord record 1; look for NaN"
    )
    with pytest.raises(LengthwiseError, match=message):
        train(path, tmp_path / "run", config)
    assert not (tmp_path / "run" / "best.keras").exists()


def test_values_that_float32_cannot_normalise_are_told(write_dataset, make_rows, tmp_path):
    rows = make_rows(20)
    rows[3]["frames"] = rows[3]["frames"].copy()
    rows[3]["frames"][0, 1] = 3e38
    path = write_dataset({"train": rows})
    with pytest.raises(
        InputError, match=r"dataset: 'frames' has values from -\S+ to 3e\+38, which"
    ):
        train(path, tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_left_as_it_is(dataset, run_dir):
    before = (run_dir / "history.csv").read_bytes()
    again = train(dataset, run_dir, CONFIG)
    assert (run_dir / "history.csv").read_bytes() == before
    assert again.resumed_at == 4 * 8
    assert again.best_epoch >= 1


@pytest.fixture
def take_up(dataset, trained):
    """What `train` does first in its folder, for the run `trained`."""

    def take(folder, *, fresh=False, **changes):
        run = dataclasses.replace(trained[0].run, path=folder, **changes)
        with run.held():
            run.create(dataset / "plan.json", fresh=fresh)

    return take


def test_fresh_begins_again_in_the_same_folder(run_dir, tmp_path, take_up):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    (folder / ".last.keras").write_bytes(b"half")
    take_up(folder, fresh=True)
    assert {path.name for path in folder.iterdir()} == {"config.json", "plan.json"}


def test_another_run_in_the_folder_is_kept(run_dir, take_up):
    before = (run_dir / "best.keras").read_bytes()
    config = dataclasses.replace(CONFIG, units=5)
    with pytest.raises(OutputError, match="with other options: units is 4 there, 5 here; give an"):
        take_up(run_dir, config=config)
    task = dataclasses.replace(Run.load(run_dir).task, counts=(1, 2, 3))
    with pytest.raises(OutputError, match="run: holds a run of another task; give another"):
        take_up(run_dir, task=task)
    assert (run_dir / "best.keras").read_bytes() == before


@pytest.mark.parametrize("fresh", [False, True])
def test_two_processes_do_not_train_in_the_same_folder(run_dir, take_up, fresh):
    with Run.load(run_dir).held():
        with pytest.raises(OutputError, match="run: another process is training in it; wait"):
            take_up(run_dir, fresh=fresh)
    assert (run_dir / "state.npz").is_file()


def test_a_dataset_built_again_is_not_gone_on_with(write_dataset, make_rows, run_dir, tmp_path):
    rebuilt = write_dataset({"train": make_rows(50, seed=9), "val": make_rows(5)})
    with pytest.raises(OutputError, match=r"holds a run on the dataset [0-9a-f]{16}, which is now"):
        train(rebuilt, run_dir, CONFIG)


def test_a_damaged_state_is_named(dataset, run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    state = folder / "state.npz"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CorruptDataError, match=r"state.npz: is no state of this run"):
        train(dataset, folder, CONFIG)


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_lost_network_of_a_finished_run_is_named(dataset, run_dir, tmp_path, which):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    (folder / f"{which}.keras").unlink()
    message = rf"{which}\.keras: is missing, though 4 epochs are done; begin again with --fresh"
    with pytest.raises(CorruptDataError, match=message):
        train(dataset, folder, CONFIG)


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_lost_plan_is_put_back(dataset, run_dir, tmp_path, take_up, content):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    (folder / "plan.json").unlink()
    if content is not None:
        (folder / "plan.json").write_bytes(content)
    take_up(folder)
    assert (folder / "plan.json").read_bytes() == (dataset / "plan.json").read_bytes()
    assert Run.load(folder).plan.max_lengths


def test_a_folder_with_something_else_is_kept(tmp_path, take_up):
    (tmp_path / "thesis.tex").write_text("a")
    with pytest.raises(OutputError, match=r"holds 'thesis.tex' and no config.json"):
        take_up(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_that_lost_its_configuration_is_kept(run_dir, tmp_path, take_up, fresh):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    (folder / "config.json").unlink()
    with pytest.raises(OutputError, match=r"run: holds 'best.keras' and no config.json, so it is"):
        take_up(folder, fresh=fresh)
    assert (folder / "state.npz").is_file()


def test_a_run_with_half_a_configuration_is_named(run_dir, tmp_path, take_up):
    folder = shutil.copytree(run_dir, tmp_path / "run")
    config = folder / "config.json"
    config.write_bytes(config.read_bytes()[:300])
    with pytest.raises(ManifestError, match=r"run/config.json: not valid JSON"):
        take_up(folder)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, take_up):
    folder = tmp_path / "run"
    (folder / "state.npz").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(OutputError, match=r"state.npz: is a folder where a run has a file; remove"):
        take_up(folder, fresh=True)


def test_a_file_is_no_run_folder(tmp_path, take_up):
    (tmp_path / "run").write_text("a")
    with pytest.raises(OutputError, match="cannot be a run folder"):
        take_up(tmp_path / "run")


FLOAT_LABEL = Schema((Feature("x", "float32"), Feature("y", "float32", sequence=False, label=True)))
STEP_LABEL = Schema((Feature("x", "float32"), Feature("y", "int64", label=True)))
NO_LABEL = Schema((Feature("x", "float32"),))
TWO_LABELS = Schema(
    (
        Feature("x", "float32"),
        Feature("y", "int64", sequence=False, label=True),
        Feature("z", "int64", sequence=False, label=True),
    )
)
SIGNED_IDS = Schema((Feature("x", "int64"), Feature("y", "int64", sequence=False, label=True)))
STEPS = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("schema", "row", "message"),
    [
        (
            FLOAT_LABEL,
            {"x": STEPS, "y": 0.5},
            "--task classify needs one integer or string per row, or a vector of 0 and 1, but the "
            "label is y: float32 scalar label; it fits --task regress",
        ),
        (
            STEP_LABEL,
            {"x": STEPS, "y": [1, 2, 3]},
            "but the label is y: int64 (steps,) label; it fits --task tag",
        ),
        (NO_LABEL, {"x": STEPS}, "the dataset has no label; name one to `lengthwise build`"),
        (TWO_LABELS, {"x": STEPS, "y": 1, "z": 1}, "the labels y, z; choose with --label"),
        (SIGNED_IDS, {"x": [-1, 2, 3], "y": 1}, "'x' has values from -1 to 3, which are no ids"),
    ],
)
def test_datasets_that_do_not_fit_the_task_are_told_so(
    write_dataset, tmp_path, schema, row, message
):
    path = write_dataset({"train": [row]}, schema=schema)
    with pytest.raises(SchemaError) as error:
        train(path, tmp_path / "run", TrainConfig())
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": "id"}, SchemaError, "no label 'id'; there are: speaker"),
        ({"inputs": ("id",)}, SchemaError, "needs a sequence feature; name one with --input"),
        ({"inputs": ("speaker",)}, SchemaError, "no feature 'speaker' to use as --input"),
        ({"split": "dev"}, ManifestError, "no split 'dev'; there are: test, train, val"),
        ({"validation_split": "dev"}, ManifestError, "no split 'dev'"),
    ],
)
def test_options_that_do_not_fit_the_dataset_are_told_so(
    dataset, tmp_path, options, error, message
):
    with pytest.raises(error, match=message):
        train(dataset, tmp_path / "run", TrainConfig(**options))
    assert not (tmp_path / "run").exists()


def test_a_changed_plan_is_not_believed(write_dataset, make_rows, tmp_path):
    path = write_dataset({"train": make_rows(5)})
    plan = path / "plan.json"
    plan.write_text(plan.read_text().replace('"10"', '"9"'))
    with pytest.raises(CorruptDataError, match=r"plan.json: was changed after the build"):
        train(path, tmp_path / "run", CONFIG)


def test_evaluation_names_a_class_that_training_had_not(write_dataset, make_rows, run_dir):
    rows = make_rows(5)
    rows[2]["speaker"] = 99
    path = write_dataset({"test": rows})
    with pytest.raises(InputError, match="split 'test' has the label 99, which the model"):
        evaluate(run_dir, path)


def test_evaluation_names_a_feature_that_does_not_fit(write_dataset, run_dir):
    path = write_dataset({"test": [{"x": STEPS, "y": 10}]}, schema=SIGNED_IDS)
    with pytest.raises(SchemaError, match=r"predicts speaker: int64 scalar label, which here is m"):
        evaluate(run_dir, path)


def test_evaluation_of_nothing_is_refused(write_dataset, make_rows, run_dir):
    path = write_dataset({"train": make_rows(5), "test": []})
    with pytest.raises(InputError, match="split 'test' has no rows to evaluate on"):
        evaluate(run_dir, path)


def test_a_damaged_checkpoint_is_named(dataset, run_dir, tmp_path):
    run = Run.load(shutil.copytree(run_dir, tmp_path / "run"))
    run.checkpoint("best").write_bytes(b"PK nothing")
    with pytest.raises(CorruptDataError, match=r"best.keras: cannot be read"):
        evaluate(run.path, dataset)
    run.checkpoint("best").unlink()
    with pytest.raises(CorruptDataError, match=r"best.keras: is missing"):
        evaluate(run.path, dataset)


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"format": "lengthwise-run"}'])
def test_a_malformed_run_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ManifestError, match=r"config.json: "):
        Run.load(tmp_path)
