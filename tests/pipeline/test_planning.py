"""A plan is exact, complete and editable; a build follows it or refuses it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import OutputError, Plan, PlanError, PlanOptions, SourceOptions, UsageError
from lengthwise.dataset.tfrecord import write_records
from lengthwise.pipeline import Execution, FeatureNames, build, make_plan
from lengthwise.transforms import optimal_boundaries
from tests.pipeline.conftest import folder_digest, ragged_table
from tests.pipeline.sources import example_protos as protos

NAMES = FeatureNames(sequences=("frames", "tokens"), labels=("label",), contexts=("weight",))


def test_a_plan_holds_exact_statistics(two_files):
    plan = make_plan(two_files, names=NAMES, options=PlanOptions(num_buckets=3, align=1))
    rows = [row for path in two_files for row in pq.read_table(path).to_pylist()]
    lengths = [len(row["tokens"]) for row in rows]
    assert sum(plan.histograms["train"].values()) == 240
    assert plan.histograms["train"] == {n: lengths.count(n) for n in sorted(set(lengths))}
    assert list(plan.max_lengths) == optimal_boundaries(plan.histograms["train"], 3)
    tokens = np.array([token for row in rows for token in row["tokens"]])
    found = plan.statistics["tokens"]
    assert (found.count, found.missing) == (len(tokens), 0)
    assert (found.low, found.high) == (tokens.min(), tokens.max())
    np.testing.assert_allclose([found.mean, found.variance], [tokens.mean(), tokens.var()])
    labels = [row["label"] for row in rows]
    assert plan.statistics["label"].values == {v: labels.count(v) for v in sorted(set(labels))}


def test_a_folder_that_holds_something_else_is_no_staging(two_files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")

    with pytest.raises(OutputError, match="no staging of a plan"):
        make_plan(two_files, names=NAMES, options=PlanOptions(), staging=tmp_path / "mine")

    assert (tmp_path / "mine" / "thesis.tex").exists()
    make_plan(two_files, names=NAMES, options=PlanOptions(), staging=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_plan_is_the_same_text_whatever_the_road(two_files):
    options = PlanOptions(splits={"train": 0.8, "val": 0.2})
    plan = make_plan(two_files, names=NAMES, options=options)
    other = make_plan(two_files[::-1], names=NAMES, options=options, execution=Execution(workers=2))
    assert plan.dumps() == other.dumps()


def test_building_by_a_plan_gives_the_bytes_of_building_without(two_files, tmp_path):
    options = PlanOptions(splits={"train": 0.8, "val": 0.2})
    plan = make_plan(two_files, names=NAMES, options=options)
    (tmp_path / "plan.json").write_text(plan.dumps())
    build(two_files, tmp_path / "by-plan", plan=Plan.load(tmp_path / "plan.json"))
    build(two_files, tmp_path / "straight", names=NAMES, options=options)
    assert folder_digest(tmp_path / "by-plan") == folder_digest(tmp_path / "straight")


def test_edited_boundaries_are_followed(two_files, tmp_path):
    plan = make_plan(two_files, names=NAMES, options=PlanOptions())
    document = json.loads(plan.dumps())
    document["max_lengths"] = [10, 20, 50]
    (tmp_path / "plan.json").write_text(json.dumps(document))
    manifest = build(two_files, tmp_path / "out", plan=Plan.load(tmp_path / "plan.json"))
    assert manifest.max_lengths == (10, 20, 50)
    assert manifest.records("train") == 240


def test_a_plan_of_another_input_is_refused(two_files, tmp_path):
    plan = make_plan(two_files[:1], names=NAMES, options=PlanOptions())
    with pytest.raises(PlanError, match="the plan is of another input"):
        build(two_files, tmp_path / "out", plan=plan)
    assert not (tmp_path / "out").exists()


def test_a_plan_of_other_lengths_of_the_same_values_is_refused(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1, 1], [1, 1]]}))
    plan = make_plan([path], names=FeatureNames(), options=PlanOptions())
    write_input("a.parquet", pa.table({"x": [[1, 1, 1], [1]]}))
    with pytest.raises(PlanError, match="it knows 2 rows, the input has 2, or their lengths"):
        build([path], tmp_path / "out", plan=plan)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("planned", "built"),
    [
        ({"x": [[1.0, 2.0, 5.0]]}, {"x": [[1.0, 4.0, 5.0]]}),
        ({"x": [[1]] * 4, "y": list("aabb")}, {"x": [[1]] * 4, "y": list("abbb")}),
    ],
)
def test_a_plan_of_other_values_between_the_same_bounds_is_refused(
    write_input, tmp_path, planned, built
):
    path = write_input("a.parquet", pa.table(planned))
    names = FeatureNames(sequences=("x",), labels=tuple(planned.keys() - {"x"}))
    plan = make_plan([path], names=names, options=PlanOptions())
    write_input("a.parquet", pa.table(built))
    with pytest.raises(PlanError, match=r"of another input: feature '[xy]' has other values"):
        build([path], tmp_path / "out", plan=plan)


def test_a_vocabulary_beside_a_plan_is_refused(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"w": [["a"]]}))
    plan = make_plan([path], names=FeatureNames(), options=PlanOptions())
    with pytest.raises(PlanError, match="a plan holds the features, the options and the vocab"):
        build([path], tmp_path / "out", plan=plan, vocabularies={"w": ("b",)})


def test_the_command_prints_the_curve_and_the_buckets(run, two_files, tmp_path):
    output = tmp_path / "plan.json"
    code, printed, _ = run("plan", *two_files, "-o", output, "--buckets", 4, "--align", 1)
    assert code == 0
    assert "frames: float32 (steps, 3)" in printed
    assert "← chosen" in printed
    plan = Plan.load(output)
    for max_length, rows in plan.bucket_rows("train").items():
        line = next(line for line in printed.splitlines() if line.startswith(f"{max_length} "))
        assert f" {rows} " in line
    assert f"{plan.padding_fraction():.1%}" in printed


def test_the_command_refuses_options_beside_a_plan(run, two_files, tmp_path):
    run("plan", *two_files, "-o", tmp_path / "plan.json")
    code, _, error = run(
        "build", *two_files, tmp_path / "out", "--plan", tmp_path / "plan.json", "--align", 4
    )
    assert code == 2
    assert "--align is in the plan already" in error


STEPS = "id;t;x;y\na;2;1;9\na;1;2;9\nb;1;3;8\nb;2;4;8\nb;3;5;8\n"


@pytest.fixture
def csv_plan(run, tmp_path):
    """A CSV file, and its plan, which says how it is read."""
    path = tmp_path / "in.csv"
    path.write_text(STEPS)
    options = ["--group-by", "id", "--order-by", "t", "--type", "x=float", "--format", "csv"]
    features = ["--sequence", "x", "--label", "y"]
    code, _, error = run("plan", path, "-o", tmp_path / "plan.json", *features, *options)
    assert code == 0, error
    return path, [*features, *options]


def test_a_plan_says_how_its_input_is_read(run, csv_plan, tmp_path):
    path, options = csv_plan
    assert run("build", path, tmp_path / "by-plan", "--plan", tmp_path / "plan.json")[0] == 0
    assert run("build", path, tmp_path / "straight", *options)[0] == 0
    assert folder_digest(tmp_path / "by-plan") == folder_digest(tmp_path / "straight")
    reading = json.loads((tmp_path / "by-plan" / "plan.json").read_text())["reading"]
    assert reading == {
        "format": "csv",
        "tokens": "whitespace",
        "group_by": "id",
        "order_by": "t",
        "types": {"x": "float"},
        "shapes": {},
        "max_row_bytes": 64 << 20,
    }


@pytest.mark.parametrize("kind", ["words", "characters", "bytes", "tfrecord", "jsonl"])
def test_no_option_of_reading_is_needed_beside_a_plan(run, tmp_path, kind):
    path = tmp_path / "input"
    options = ["--format", "text", "--tokens", "whitespace" if kind == "words" else kind]
    if kind == "tfrecord":
        flat = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0]]
        write_records(path, [protos.example_of({"x": x}) for x in flat])
        options = ["--shape", "x=2", "--sequence", "x"]
    elif kind == "jsonl":
        path.write_text('{"x": [[1, 2], [3, 4]]}\n{"x": [[5, 6]]}\n')
        options = ["--format", "jsonl", "--shape", "x=2", "--type", "x=float"]
    else:
        path.write_text("ab cd e\nf gh\n")
    assert run("plan", path, "-o", tmp_path / "plan.json", *options)[0] == 0
    code, _, error = run("build", path, tmp_path / "by-plan", "--plan", tmp_path / "plan.json")
    assert code == 0, error
    assert run("build", path, tmp_path / "straight", *options)[0] == 0
    assert folder_digest(tmp_path / "by-plan") == folder_digest(tmp_path / "straight")


@pytest.mark.parametrize(
    ("again", "says"),
    [
        (["--group-by", "id", "--type", "x=float", "--format", "csv"], None),
        (["--group-by", "y"], "--group-by is 'y', in the plan it is 'id'; leave it out"),
        (["--format", "tsv"], "--format is 'tsv', in the plan it is 'csv'"),
        (["--tokens", "bytes"], "--tokens is 'bytes', in the plan it is 'whitespace'"),
        (["--type", "x=int"], "--type is {'x': 'int'}, in the plan it is {'x': 'float'}"),
        (["--shape", "x=2"], "--shape is {'x': [2]}, in the plan it is {}"),
    ],
)
def test_options_of_reading_may_be_given_again_but_not_otherwise(
    run, csv_plan, tmp_path, again, says
):
    path, _ = csv_plan
    out = tmp_path / "out"
    code, _, error = run("build", path, out, "--plan", tmp_path / "plan.json", *again)
    assert code == (0 if says is None else 2)
    assert out.exists() == (says is None)
    if says is not None:
        assert len(error.strip().splitlines()) == 1
        assert says in error


def test_a_plan_from_before_it_said_how_to_read_takes_the_options(run, csv_plan, tmp_path):
    path, options = csv_plan
    document = json.loads((tmp_path / "plan.json").read_text())
    del document["reading"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = ["--plan", tmp_path / "old.json"]
    code, _, error = run("build", path, tmp_path / "out", *old)
    assert code == 1
    assert "say with --group-by which column" in error
    assert run("build", path, tmp_path / "out", *old, *options[4:])[0] == 0
    assert Plan.load(tmp_path / "out" / "plan.json").reading is None


def test_reading_beside_a_plan_must_be_that_of_the_plan(csv_plan, tmp_path):
    path, _ = csv_plan
    plan = Plan.load(tmp_path / "plan.json")
    with pytest.raises(UsageError, match="--group-by is None, in the plan it is 'id'"):
        build([path], tmp_path / "out", plan=plan, reading=SourceOptions(format="csv"))
    reading = replace(plan.reading, unit_bytes=10)
    assert build([path], tmp_path / "out", plan=plan, reading=reading).records("train") == 2


@pytest.mark.parametrize("strategy", ["optimal", "quantile", "geometric", "width"])
def test_every_strategy_builds(write_input, tmp_path, strategy):
    path = write_input("a.parquet", ragged_table(200))
    options = PlanOptions(strategy=strategy, num_buckets=5, align=1)
    manifest = build([path], tmp_path / "out", names=NAMES, options=options)
    assert 1 < len(manifest.max_lengths) <= 5
    assert manifest.records("train") == 200


def test_fixed_boundaries_are_taken_as_given(write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(50, longest=30))
    options = PlanOptions(strategy="fixed", boundaries=(7, 19, 64), align=1)
    manifest = build([path], tmp_path / "out", names=NAMES, options=options)
    assert manifest.max_lengths == (7, 19, 64)
    with pytest.raises(PlanError, match="the longest row has"):
        build(
            [path],
            tmp_path / "short",
            names=NAMES,
            options=PlanOptions(strategy="fixed", boundaries=(7, 19), align=1),
        )


@pytest.mark.parametrize("how", [{"num_buckets": 2}, {"strategy": "fixed", "boundaries": (5, 9)}])
def test_boundaries_are_multiples_of_what_they_are_aligned_to(write_input, how):
    path = write_input("a.parquet", pa.table({"x": [[1] * length for length in (2, 5, 9)]}))
    plan = make_plan([path], names=FeatureNames(), options=PlanOptions(align=4, **how))
    assert plan.max_lengths == (8, 12)


def test_canonical_records_have_the_shortest_integers(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1, 2, 3, 70_000]] * 9}))
    sizes = [
        sum(shard.nbytes for shard in build([path], tmp_path / name, options=options).shards)
        for name, options in (("c", PlanOptions(canonical=True)), ("s", PlanOptions()))
    ]
    # Eight slots of three bytes, of which seven would need one.
    assert sizes[1] - sizes[0] == 9 * 7 * 2
