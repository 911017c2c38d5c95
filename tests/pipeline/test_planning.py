"""A plan is exact, complete and editable; a build follows it or refuses it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import Plan, PlanError, PlanOptions
from lengthwise.pipeline import Execution, FeatureNames, build, make_plan
from lengthwise.transforms import optimal_boundaries
from tests.pipeline.conftest import folder_digest, ragged_table

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
