"""`--element-mask` from the input to the batch that a model gets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lengthwise.dataset import Manifest, Plan, PlanOptions
from lengthwise.pipeline import FeatureNames, build
from tests.pipeline.conftest import records_of

NAN = float("nan")
# The last step of the first row holds nothing, the second row begins with a null.
FRAMES = [[[1.0, NAN], [NAN, 4.0], [3.0, None], [NAN, None]], [None, [5.0, 6.0]]]
OBSERVED = [
    [[True, False], [False, True], [True, False], [False, False]],
    [[False, False], [True, True], [False, False], [False, False]],
]
MASK = [[True, True, True, False], [False, True, False, False]]


@pytest.fixture
def path(tmp_path):
    """An Arrow file, since Parquet's reader cannot read a null vector."""
    table = pa.table(
        {
            "frames": pa.array(FRAMES, pa.list_(pa.list_(pa.float32(), 2))),
            "row": pa.array([0, 1]),
            "words": [["a", "b", "a", "c"], ["b", "b"]],
        }
    )
    path = tmp_path / "in.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return path


def in_order(manifest: Manifest) -> dict[str, np.ndarray]:
    records = records_of(manifest, "train")
    order = np.argsort(records["row"])
    return {name: values[order] for name, values in records.items()}


@pytest.mark.parametrize(
    ("fill", "filled"),
    [
        ("zero", [[[1, 0], [0, 4], [3, 0], [0, 0]], [[0, 0], [5, 6], [0, 0], [0, 0]]]),
        ("forward", [[[1, 0], [1, 4], [3, 4], [3, 4]], [[0, 0], [5, 6], [0, 0], [0, 0]]]),
        ("mean", [[[1, 5], [3, 4], [3, 5], [3, 5]], [[3, 5], [5, 6], [0, 0], [0, 0]]]),
        (-1.0, [[[1, -1], [-1, 4], [3, -1], [-1, -1]], [[-1, -1], [5, 6], [0, 0], [0, 0]]]),
    ],
)
def test_elements_are_masked_and_filled_by_themselves(path, tmp_path, fill, filled):
    options = PlanOptions(element_mask=True, fill=fill, align=4)
    names = FeatureNames(contexts=("row",))

    manifest = build([path], tmp_path / "out", names=names, options=options)

    records = in_order(manifest)
    assert records["frames__observed"].tolist() == OBSERVED
    assert records["mask"].tolist() == MASK
    assert records["length"].tolist() == [4, 2]
    np.testing.assert_allclose(records["frames"], filled)
    # A step that is missing is missing in all features; strings are no vectors.
    assert (records["words"][0, 3], records["words"][1, 0]) == (0, 0)
    found = Plan.load(manifest.root / "plan.json").statistics["frames"]
    assert (found.count, found.missing, found.mean) == (5, 7, 19 / 5)
    assert Manifest.load(manifest.root).schema["frames"].element_mask


def test_normalisation_takes_its_constants_from_observed_elements(path, tmp_path):
    options = PlanOptions(element_mask=True, fill="mean", normalize={"frames": "zscore"})
    names = FeatureNames(sequences=("frames",), contexts=("row",))

    manifest = build([path], tmp_path / "out", names=names, options=options)

    records = in_order(manifest)
    plan = Plan.load(manifest.root / "plan.json")
    assert plan.normalizations["frames"].shift == (3.0, 5.0) == plan.means["frames"]
    first, second = (np.array(values) for values in ([1.0, 3.0, 5.0], [4.0, 6.0]))
    np.testing.assert_allclose(
        plan.normalizations["frames"].scale, (1 / first.std(), 1 / second.std())
    )
    # The mean of what was observed is 0 once it is normalised.
    real = np.arange(8) < records["length"][:, None]
    assert not records["frames"][real & ~records["frames__observed"].any(-1)].any()


def test_null_strings_of_a_vector_are_masked_by_themselves(tmp_path):
    type_ = pa.list_(pa.list_(pa.string(), 2))
    table = pa.table(
        {"tags": pa.array([[["b", None], ["b", "a"], [None, None]]], type_), "row": [0]}
    )
    path = tmp_path / "in.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    options = PlanOptions(element_mask=True, align=4)

    manifest = build(
        [path], tmp_path / "out", names=FeatureNames(contexts=("row",)), options=options
    )

    records = in_order(manifest)
    assert records["tags"].tolist() == [[[2, 0], [2, 3], [0, 0], [0, 0]]]
    assert records["tags__observed"][0].tolist() == [[1, 0], [1, 1], [0, 0], [0, 0]]
    assert records["mask"].tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("padding", ["right", "left"])
def test_readers_find_the_steps_on_either_side(run, path, tmp_path, padding):
    from lengthwise.model import read_dataset
    from lengthwise.model.numpy_reader import open_rows

    options = PlanOptions(element_mask=True, align=4, padding=padding)
    out = tmp_path / "out"
    build([path], out, names=FeatureNames(contexts=("row",)), options=options)

    rows = sorted(open_rows(out), key=lambda row: int(row["row"]))
    assert rows[0]["frames"].tolist() == [[1, 0], [0, 4], [3, 0], [0, 0]]
    assert rows[1]["frames"].tolist() == [[0, 0], [5, 6]]
    assert rows[1]["frames__observed"].tolist() == OBSERVED[1][:2]
    assert rows[1]["mask"].tolist() == [False, True]
    (batch,) = read_dataset(out, ragged=True)
    order = np.argsort(batch["row"].numpy())
    frames = [batch["frames"].to_list()[i] for i in order]
    assert frames == [row["frames"].tolist() for row in rows]
    assert [batch["mask"].to_list()[i] for i in order][1] == [False, True]
    assert "[5. 6.]" in run("inspect", out)[1]


def test_a_plan_carries_the_mask_to_the_build(run, path, tmp_path):
    plan = tmp_path / "plan.json"
    arguments = ("--context", "row", "--align", 4)
    assert run("plan", path, "-o", plan, *arguments, "--element-mask")[0] == 0
    code, _, error = run("build", path, tmp_path / "by-plan", "--plan", plan)
    assert code == 0, error
    assert run("build", path, tmp_path / "at-once", *arguments, "--element-mask")[0] == 0
    one, other = (Manifest.load(tmp_path / name) for name in ("by-plan", "at-once"))
    assert one.fingerprint == other.fingerprint
    code, printed, _ = run("inspect", tmp_path / "by-plan", "--rows", 2)
    assert code == 0
    assert "frames: float32 (steps, 2) with element mask" in printed
    assert "frames__observed: 3 of 8 elements" in printed
