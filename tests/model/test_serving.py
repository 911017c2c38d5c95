"""A network that takes rows as they come, and the same in a process that knows TensorFlow alone."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from lengthwise.dataset import Feature, FeatureStatistics, Normalization, Plan, PlanOptions, Schema
from lengthwise.model import MaskedBiLSTM
from lengthwise.model.answers import Answers
from lengthwise.model.prediction import Predictor

WORDS = ("the", "", "cat", "é")
INPUTS = (
    Feature("code", "int64", sequence=False),
    Feature("frames", "float32", (2,)),
    Feature("ids", "int64"),
    Feature("level", "float32"),
    Feature("place", "int64", sequence=False, encoding="tokens"),
    Feature("point", "float32", (3,), sequence=False),
    Feature("two words", "int64", (2,), encoding="tokens"),
    Feature("word", "int64", encoding="tokens"),
)
NUM_IDS = {"code": 5, "ids": 9, "place": 4, "two words": 6, "word": 6}
OPTIONS = {
    "max_length": 6,
    "overlong": "truncate_start",
    "fill": "forward",
    "normalize": {"frames": "zscore"},
}


def plan_of(**options):
    statistics = {
        f.name: FeatureStatistics(1, 0, 0.0, 0.0, 0, NUM_IDS.get(f.name, 9) - 1) for f in INPUTS
    }
    return Plan(
        schema=Schema(INPUTS),
        options=PlanOptions(**{**OPTIONS, **options}),
        max_lengths=(3, 6),
        histograms={"train": {3: 1, 6: 1}},
        statistics=statistics,
        vocabularies={"word": WORDS, "two words": WORDS, "place": ("here", "there")},
        normalizations={"frames": Normalization("zscore", (1.0, -2.0), (0.5, 3.0))},
    )


def network_of(answers, *, seed=0):
    """Every kind of input, embedded and joined, under a masked BiLSTM."""
    keras.utils.set_random_seed(seed)
    mask = keras.Input((None,), dtype="bool", name="mask")
    tensors, steps, contexts = [mask], [], []
    for feature in INPUTS:
        shape = (None, *feature.shape) if feature.sequence else feature.shape
        tensor = keras.Input(shape, dtype=feature.dtype, name=feature.name)
        tensors.append(tensor)
        size = feature.size
        if feature.name in NUM_IDS:
            tensor = keras.layers.Embedding(NUM_IDS[feature.name], 3)(tensor)
            size *= 3
        tensor = keras.layers.Reshape((-1, size) if feature.sequence else (size,))(tensor)
        (steps if feature.sequence else contexts).append(tensor)
    hidden = keras.layers.Concatenate()(steps)
    # The kernel that is chosen by itself is slow to trace.
    kernel = "hybrid" if answers.kind == "values" else "auto"
    layer = MaskedBiLSTM(4, return_sequences=answers.per_step, kernel=kernel)
    hidden = layer(hidden, mask=mask)
    context = keras.layers.Dense(8)(keras.layers.Concatenate()(contexts))
    if answers.per_step:
        context = keras.ops.expand_dims(context, 1)
    size = int(np.prod(answers.shape)) if answers.kind == "values" else len(answers.names)
    outputs = keras.layers.Dense(size)(hidden + context)
    return keras.Model(tensors, outputs)


def row(length, rng, **values):
    return {
        "code": 3,
        "frames": rng.normal(size=(length, 2)).astype(np.float32).tolist(),
        "ids": rng.integers(0, 9, length).tolist(),
        "level": rng.normal(size=length).tolist(),
        "place": "there",
        "point": [0.5, -1.0, 2.0],
        "two words": [[WORDS[i], WORDS[j]] for i, j in rng.integers(0, 4, (length, 2))],
        "word": [WORDS[i] for i in rng.integers(0, 4, length)],
        **values,
    }


def rows():
    """Usable rows of all sorts: long and short, missing steps, unknown words."""
    rng = np.random.default_rng(0)
    found = [row(length, rng) for length in (1, 5, 3, 6, 2, 9, 4, 3)]
    found[1]["level"][2] = float("nan")
    found[2]["frames"][0] = [float("nan"), 1.0]
    found[3]["word"][1] = "never seen"
    found[4]["place"] = "elsewhere"
    found[6]["level"] = [float("nan")] * 4
    return found


ANSWERS = {
    "classes": Answers("classes", ("cat", "dog", "é")),
    "vector": Answers("values", shape=(2,)),
    "tags": Answers("classes", (-4, 7), per_step=True),
}


@pytest.fixture(scope="module")
def predictors():
    made = {}

    def get(task, **options):
        key = (task, repr(options))
        if key not in made:
            answers = ANSWERS[task]
            made[key] = Predictor(
                network_of(answers),
                plan=plan_of(**options),
                inputs=INPUTS,
                num_ids=NUM_IDS,
                answers=answers,
            )
        return made[key]

    return get


def flat_inputs(given):
    """Rows as a client of a server writes them."""
    inputs = {"length": ("int64", [len(r["word"]) for r in given])}
    for feature in INPUTS:
        values = [r[feature.name] for r in given]
        if feature.sequence:
            values = [item for steps in values for item in steps]
        dtype = feature.dtype if feature.encoding == "numbers" else "string"
        inputs[feature.name.replace(" ", "_")] = (dtype, values)
    return inputs


# Rows that give no answer, and why.
FAULTY = {
    "empty sequence": {"length": 0},
    "infinite, or beyond float32": {"level": [1.0, float("inf"), 0.0]},
    "id that the model does not know": {"ids": [1, 2, 9]},
    "null context or label": {"point": [0.0, float("nan"), 0.0]},
}


def faulty_rows():
    rng = np.random.default_rng(1)
    return [row(values.pop("length", 3), rng, **values) for values in map(dict, FAULTY.values())]


BARE = """
import json, sys

class Nowhere:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "lengthwise":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nowhere())
try:
    import lengthwise.model
except ModuleNotFoundError:
    pass
else:
    sys.exit("lengthwise is here")

import tensorflow as tf

def plain(outputs):
    return {
        name: [v.decode() if isinstance(v, bytes) else v for v in value.numpy().tolist()]
        if value.shape.rank == 1 else value.numpy().tolist()
        for name, value in outputs.items()
    }

with open(sys.argv[1]) as file:
    given = json.load(file)
tensors = {name: tf.constant(v, dtype) for name, (dtype, v) in given["flat"].items()}
found = {}
for path in sys.argv[2:]:
    model = tf.saved_model.load(path)
    outputs = plain(model.signatures["serving_default"](**tensors))
    mask = tf.constant(given["mask"])
    masked = plain(model.signatures["with_mask"](mask=mask, **tensors))
    rows = {
        name: tf.RaggedTensor.from_row_lengths(tensors[alias], tensors["length"])
        if per_step else tensors[alias]
        for name, alias, per_step in given["features"]
    }
    ragged = {
        name: value.values if isinstance(value, tf.RaggedTensor) else value
        for name, value in model.ragged(rows).items()
    }
    found[path] = [outputs, masked, plain(ragged)]
print("answers", json.dumps(found))
"""


@pytest.fixture(scope="module")
def served(predictors, tmp_path_factory):
    """What saved models answer in a process without Lengthwise: flat, with a mask, ragged."""
    folder = tmp_path_factory.mktemp("served")
    given = [*rows(), *faulty_rows()]
    features = [[f.name, f.name.replace(" ", "_"), f.sequence] for f in INPUTS]
    mask = np.ones(sum(len(r["word"]) for r in given), np.bool_).tolist()
    # The second step of the second row.
    mask[2] = False
    flat = flat_inputs(given)
    (folder / "in.json").write_text(json.dumps({"flat": flat, "features": features, "mask": mask}))
    for task in ANSWERS:
        predictors(task).serving.save(folder / task)
    done = subprocess.run(
        [sys.executable, "-c", BARE, folder / "in.json", *(folder / task for task in ANSWERS)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("answers "))
    return {task: json.loads(line.removeprefix("answers "))[str(folder / task)] for task in ANSWERS}


@pytest.mark.parametrize("task", ANSWERS)
def test_a_saved_model_answers_as_predict_where_there_is_only_tensorflow(predictors, served, task):
    predictor, given = predictors(task), [*rows(), *faulty_rows()]
    flat, masked, ragged = served[task]
    assert_served(predictor, flat, predictor.predict(given))
    np.testing.assert_equal(ragged, flat)
    given[1]["word"][1] = None
    assert_served(predictor, masked, predictor.predict(given))
    assert flat["reason"] == [""] * len(rows()) + list(FAULTY)


def assert_served(predictor, outputs, table):
    """Outputs of a signature and the table of `predict` say the same."""
    assert outputs["reason"] == [reason or "" for reason in table["reason"].to_pylist()]
    answers = predictor.answers
    lengths = None
    if answers.per_step:
        lengths = [len(r["word"]) for r in [*rows(), *faulty_rows()]]
    name = next(n for n in ("probabilities", "value", "values") if n in outputs)
    numbers = np.array(outputs[name], np.float32)
    for column, values in answers.columns(numbers, lengths).items():
        for row_, (mine, yours) in enumerate(
            zip(values.to_pylist(), table[column].to_pylist(), strict=True)
        ):
            if outputs["reason"][row_] == "":
                assert_near(mine, yours)
            else:
                assert yours is None
                assert mine is None or set(mine) <= {None}
    for key in ("class", "tags"):
        if key in outputs:
            known = table[key].to_pylist()
            nothing = "" if isinstance(answers.names[0], str) else -1
            if key == "tags":
                known = [
                    v for n, tags in zip(lengths, known, strict=True) for v in (tags or [None] * n)
                ]
            assert outputs[key] == [nothing if v is None else v for v in known]


def assert_near(one, other):
    if isinstance(one, (str, type(None))) or (isinstance(one, list) and None in one):
        # Where some are null or names, one by one.
        if isinstance(one, list):
            assert len(one) == len(other)
            for mine, yours in zip(one, other, strict=True):
                assert_near(mine, yours)
        else:
            assert one == other
    elif isinstance(one, list) and one and isinstance(one[0], str):
        assert one == other
    else:
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("task", ["classes", "tags"])
def test_answers_do_not_depend_on_the_rows_beside(predictors, task):
    predictor, given = predictors(task), [*rows(), *faulty_rows()]
    together = predictor.predict(given).to_pylist()
    for number, alone in enumerate(given):
        (found,) = predictor.predict([alone]).to_pylist()
        assert found.keys() == together[number].keys()
        for name, value in found.items():
            assert_near(value, together[number][name])


def test_a_row_of_pieces_has_the_mean_of_their_answers(predictors):
    options = {"max_length": 4, "overlong": "split", "overlap": 1, "fill": "zero"}
    predictor = predictors("vector", **options)
    whole = row(9, np.random.default_rng(3))
    pieces = [
        {f.name: whole[f.name][start : start + 4] if f.sequence else whole[f.name] for f in INPUTS}
        for start in (0, 3, 6)
    ]
    assert [len(piece["word"]) for piece in pieces] == [4, 4, 3]
    expected = np.mean(predictor.predict(pieces)["values"].to_pylist(), axis=0)
    (found,) = predictor.predict([whole])["values"].to_pylist()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_step_of_two_pieces_has_the_mean_of_both(predictors):
    options = {"max_length": 4, "overlong": "split", "overlap": 2, "fill": "zero"}
    predictor = predictors("tags", **options)
    whole = row(6, np.random.default_rng(4))
    pieces = [
        {f.name: whole[f.name][s : s + 4] if f.sequence else whole[f.name] for f in INPUTS}
        for s in (0, 2)
    ]
    inputs = {
        name: tf.constant(values, dtype) for name, (dtype, values) in flat_inputs(pieces).items()
    }
    parts = predictor.serving.flat(inputs)["probabilities"].numpy().reshape(2, 4, 2)
    expected = np.concatenate([parts[0, :2], (parts[0, 2:] + parts[1, :2]) / 2, parts[1, 2:]])
    found = predictor.predict([whole]).to_pylist()[0]["tag_probabilities"]
    np.testing.assert_allclose(found, expected.max(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "values", "reason"),
    [
        ({"overlong": "error"}, {"length": 7}, "overlong sequence"),
        ({"nan": "error"}, {"level": [0.0, float("nan"), 1.0]}, "NaN value"),
        ({"nan": "keep"}, {"level": [0.0, float("nan"), 1.0]}, "the network gave no number"),
    ],
)
def test_a_row_that_the_plan_does_not_take_says_why(predictors, options, values, reason):
    values = dict(values)
    given = row(values.pop("length", 3), np.random.default_rng(5), **values)
    good = row(3, np.random.default_rng(5))
    found = predictors("vector", **options).predict([given, good]).to_pylist()
    assert found[0] == {"reason": reason, "values": None}
    assert found[1]["reason"] is None and found[1]["values"] is not None


def test_missing_steps_alone_leave_the_features_of_the_row(predictors):
    predictor = predictors("classes")
    one, other = row(3, np.random.default_rng(6)), row(2, np.random.default_rng(7))
    one["level"], other["word"] = [float("nan")] * 3, [None] * 2
    found = predictor.predict([one, other])
    assert found["reason"].to_pylist() == [None, None]
    first, second = found["probabilities"].to_pylist()
    assert_near(first, second)


def test_no_rows_have_the_columns_of_answers(predictors):
    predictor = predictors("tags")
    none = predictor.predict([])
    assert none.num_rows == 0
    assert none.schema == predictor.predict(rows()).schema


def test_inputs_of_a_signature_that_do_not_fit_together_are_an_error(predictors):
    inputs = {
        name: tf.constant(values, dtype) for name, (dtype, values) in flat_inputs(rows()).items()
    }
    inputs["level"] = inputs["level"][1:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="level: there must be as many steps"):
        predictors("vector").serving.flat(inputs)
