"""What values mean: strings, missing steps, normalisation, splits, faulty rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import (
    InputError,
    Manifest,
    Plan,
    PlanError,
    PlanOptions,
    SchemaError,
    verify,
)
from lengthwise.pipeline import Execution, FeatureNames, build
from lengthwise.transforms import vocabulary
from tests.pipeline.conftest import folder_digest

WORDS = [["the", "cat", "sat"], ["the", "dog"], ["a", "cat", "the", "mat"], ["sat"]]


def decoded(manifest: Manifest, split: str = "train") -> dict[int, dict[str, np.ndarray]]:
    """Row number (the context feature `row`) -> its decoded record."""
    rows = {}
    for shard in manifest.shards_of(split):
        layout = manifest.layouts[shard.max_length]
        data = np.fromfile(manifest.path_of(shard), np.uint8).reshape(-1, layout.stride)
        columns = layout.decode(data)
        for i in range(len(data)):
            rows[int(columns["row"][i])] = {name: column[i] for name, column in columns.items()}
    return rows


def real(row: dict[str, np.ndarray], name: str) -> list:
    return row[name][: row["length"]].tolist()


def with_rows(**columns: object) -> pa.Table:
    table = pa.table(columns)
    return table.append_column("row", pa.array(range(table.num_rows)))


WITH_ROW = FeatureNames(contexts=("row",))


def test_tokens_become_ids_by_frequency_and_then_by_name(write_input, tmp_path):
    path = write_input("a.parquet", with_rows(words=WORDS))
    manifest = build([path], tmp_path / "out", names=WITH_ROW)
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert plan.vocabularies["words"] == ("the", "cat", "sat", "a", "dog", "mat")
    assert real(decoded(manifest)[2], "words") == [5, 3, 2, 7]
    listed = (tmp_path / "out" / "vocabulary" / "words.txt").read_text()
    assert listed.split() == list(plan.vocabularies["words"])


def test_rare_and_surplus_tokens_are_unknown(write_input, tmp_path):
    path = write_input("a.parquet", with_rows(words=WORDS))
    few = build([path], tmp_path / "few", names=WITH_ROW, options=PlanOptions(vocab_size=4))
    assert real(decoded(few)[2], "words") == [1, 3, 2, 1]
    common = build([path], tmp_path / "common", names=WITH_ROW, options=PlanOptions(min_count=2))
    assert real(decoded(common)[1], "words") == [2, 1]


def test_tokens_are_counted_in_the_training_split_alone(write_input, tmp_path):
    train = write_input("train.parquet", with_rows(words=[["a", "a"], ["b"]]))
    test = write_input("test.parquet", with_rows(words=[["c", "a"]]))
    manifest = build([f"train={train}", f"test={test}"], tmp_path / "out", names=WITH_ROW)
    assert Plan.load(tmp_path / "out" / "plan.json").vocabularies["words"] == ("a", "b")
    assert real(decoded(manifest, "test")[0], "words") == [1, 2]


def test_a_given_vocabulary_is_taken_as_it_is(run, write_input, tmp_path):
    path = write_input("a.parquet", with_rows(words=[["b", "new\nline", "x"]]))
    (tmp_path / "words.txt").write_text("new\\nline\nb\n")
    out = tmp_path / "out"
    arguments = ["--context", "row", "--vocabulary", f"words={tmp_path / 'words.txt'}"]
    assert run("build", path, out, *arguments)[0] == 0
    assert real(decoded(Manifest.load(out))[0], "words") == [3, 2, 1]
    assert (out / "vocabulary" / "words.txt").read_text() == "new\\nline\nb\n"


def test_a_vocabulary_with_a_string_twice_is_refused(run, write_input, tmp_path):
    path = write_input("a.parquet", with_rows(words=[["b"]]))
    (tmp_path / "words.txt").write_text("b\na\nb\n")
    code, _, error = run(
        "build", path, tmp_path / "out", "--vocabulary", f"words={tmp_path / 'words.txt'}"
    )
    assert code == 1
    assert "words.txt: 'b' stands in the vocabulary twice" in error


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a" * 101, "words.txt: the vocabulary has more than 100 bytes; leave rare strings out"),
        (b"a\n\xff\n", "words.txt: the vocabulary cannot be read: 'utf-8' codec"),
        (None, "words.txt: the vocabulary cannot be read: [Errno 2] No such file"),
    ],
    ids=["too large", "not UTF-8", "not there"],
)
def test_a_vocabulary_that_cannot_be_read_is_one_line(
    run, write_input, tmp_path, monkeypatch, content, says
):
    monkeypatch.setattr(vocabulary, "MAX_DOCUMENT_BYTES", 100)
    path, given = write_input("a.parquet", with_rows(words=[["b"]])), tmp_path / "words.txt"
    if content is not None:
        given.write_bytes(content)
    code, _, error = run("build", path, tmp_path / "out", "--vocabulary", f"words={given}")
    assert code == 1
    assert says in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_labels_become_classes_in_the_order_of_their_names(write_input, tmp_path):
    table = with_rows(
        words=WORDS,
        topic=["pets", "pets", "home", "art"],
        tags=[["D", "N", "V"], ["D", "N"], ["D", "N", "D", "N"], ["V"]],
    )
    path = write_input("a.parquet", table)
    names = FeatureNames(sequences=("words",), labels=("topic", "tags"), contexts=("row",))
    manifest = build([path], tmp_path / "out", names=names)
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert plan.vocabularies["topic"] == ("art", "home", "pets")
    assert plan.statistics["topic"].values == {0: 1, 1: 1, 2: 2}
    assert plan.statistics["tags"].values == {0: 4, 1: 4, 2: 2}
    rows = decoded(manifest)
    assert [int(rows[i]["topic"]) for i in range(4)] == [2, 2, 1, 0]
    assert real(rows[0], "tags") == [0, 1, 2]


def test_strings_give_the_same_bytes_with_two_workers_and_any_batches(write_input, tmp_path):
    rng = np.random.default_rng(0)
    words = [[f"w{i}" for i in rng.integers(0, 50, rng.integers(1, 9))] for _ in range(300)]
    paths = [
        write_input("a.parquet", with_rows(words=words[:150]), row_group_size=40),
        write_input("b.parquet", with_rows(words=words[150:]), row_group_size=70),
    ]
    options = PlanOptions(num_buckets=3, vocab_size=20, align=1, shard_size=2_000)
    build(paths, tmp_path / "one", names=WITH_ROW, options=options)
    build(
        paths[::-1],
        tmp_path / "two",
        names=WITH_ROW,
        options=options,
        execution=Execution(workers=2),
        batch_rows=7,
    )
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")


def test_a_missing_token_is_masked_and_zero(write_input, tmp_path):
    path = write_input("a.parquet", with_rows(words=[["a", None, "b"]]))
    row = decoded(build([path], tmp_path / "out", names=WITH_ROW))[0]
    assert real(row, "words") == [2, 0, 3]
    assert row["mask"][:3].tolist() == [True, False, True]


GAPS = [[1.0, None, 3.0, None], [None, 5.0], [7.0, 8.0]]


@pytest.mark.parametrize(
    ("fill", "filled"),
    [
        ("zero", [[1, 0, 3, 0], [0, 5], [7, 8]]),
        ("forward", [[1, 1, 3, 3], [0, 5], [7, 8]]),
        ("mean", [[1, 4.8, 3, 4.8], [4.8, 5], [7, 8]]),
        (-2.0, [[1, -2, 3, -2], [-2, 5], [7, 8]]),
    ],
)
def test_missing_steps_are_filled_as_asked_and_masked_all_the_same(
    write_input, tmp_path, fill, filled
):
    table = with_rows(x=pa.array(GAPS, pa.list_(pa.float32())))
    options = PlanOptions(fill=fill)
    rows = decoded(
        build([write_input("a.parquet", table)], tmp_path / "out", names=WITH_ROW, options=options)
    )
    for i, values in enumerate(filled):
        np.testing.assert_allclose(real(rows[i], "x"), values, rtol=1e-6)
        expected = [value is not None for value in GAPS[i]]
        assert rows[i]["mask"][: len(values)].tolist() == expected


def test_labels_are_neither_filled_nor_padded_with_a_value(write_input, tmp_path):
    table = with_rows(x=[[1.0, 2.0, 3.0]], y=[[7, 8, None]])
    names = FeatureNames(sequences=("x",), labels=("y",), contexts=("row",))
    options = PlanOptions(fill=5.0, pad_value=-1.0, align=4)
    path = write_input("a.parquet", table)
    row = decoded(build([path], tmp_path / "out", names=names, options=options))[0]
    assert row["y"].tolist() == [7, 8, 0, 0]
    assert row["x"].tolist() == [1, 2, 5, -1]
    assert row["mask"].tolist() == [True, True, False, False]


def test_a_fill_past_the_range_of_the_integers_fits(write_input, tmp_path):
    table = with_rows(x=pa.array([[1, None]], pa.list_(pa.int64())))
    options = PlanOptions(fill=-300.0)
    path = write_input("a.parquet", table)
    assert real(
        decoded(build([path], tmp_path / "out", names=WITH_ROW, options=options))[0], "x"
    ) == [
        1,
        -300,
    ]
    for wrong in ({"fill": 0.5}, {"fill": 2.0**63}, {"pad_value": -1e30}):
        with pytest.raises(PlanError, match="holds integers; give an integer of 64 bits"):
            build([path], tmp_path / "wrong", names=WITH_ROW, options=PlanOptions(**wrong))


@pytest.mark.parametrize(("nan", "mask"), [("missing", [True, False]), ("keep", [True, True])])
def test_nan_is_what_was_asked(write_input, tmp_path, nan, mask):
    path = write_input("a.parquet", with_rows(x=[[1.0, float("nan")]]))
    row = decoded(build([path], tmp_path / "out", names=WITH_ROW, options=PlanOptions(nan=nan)))[0]
    assert row["mask"][:2].tolist() == mask
    assert np.isnan(row["x"][1]) == (nan == "keep")
    assert Plan.load(tmp_path / "out" / "plan.json").statistics["x"].mean == 1.0


def test_nan_can_be_a_fault(write_input, tmp_path):
    path = write_input("a.parquet", with_rows(x=[[1.0], [float("nan")]]))
    with pytest.raises(InputError, match="row 1: NaN value"):
        build([path], tmp_path / "out", names=WITH_ROW, options=PlanOptions(nan="error"))


def vectors(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, rows)
    flat = rng.normal([5, -1], [3, 0.1], (int(lengths.sum()), 2)).astype(np.float32)
    items = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), 2)
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    return with_rows(x=pa.ListArray.from_arrays(offsets, items))


def steps_of(rows: dict[int, dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([row["x"][: row["length"]] for row in rows.values()])


@pytest.mark.parametrize("kind", ["zscore", "minmax"])
def test_normalisation_takes_its_constants_from_the_training_split(write_input, tmp_path, kind):
    train = write_input("train.parquet", vectors(100, 1))
    test = write_input("test.parquet", vectors(50, 2))
    inputs = [f"train={train}", f"test={test}"]
    raw = build(inputs, tmp_path / "raw", names=WITH_ROW)
    options = PlanOptions(normalize={"x": kind})
    normal = build(inputs, tmp_path / "normal", names=WITH_ROW, options=options)
    seen = steps_of(decoded(raw)).astype(np.float64)
    if kind == "zscore":
        shift, scale = seen.mean(0), 1 / seen.std(0)
    else:
        shift, scale = seen.min(0), 1 / (seen.max(0) - seen.min(0))
    constants = Plan.load(tmp_path / "normal" / "plan.json").normalizations["x"]
    np.testing.assert_allclose(constants.shift, shift, rtol=1e-6)
    np.testing.assert_allclose(constants.scale, scale, rtol=1e-6)
    for split in ("train", "test"):
        expected = (steps_of(decoded(raw, split)) - shift) * scale
        found = steps_of(decoded(normal, split))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not decoded(normal)[0]["x"][decoded(normal)[0]["length"] :].any()


@pytest.mark.parametrize("kind", ["list", "struct", "nanoseconds"])
@pytest.mark.parametrize("option", ["split_by", "split_column"])
def test_rows_are_split_by_plain_values_only(write_input, tmp_path, option, kind):
    column = {
        "list": pa.array([[1]]),
        "struct": pa.array([{"a": 1}]),
        "nanoseconds": pa.array([1], pa.timestamp("ns")),
    }[kind]
    path = write_input("a.parquet", with_rows(x=[[1.0]], by=column))
    names = FeatureNames(sequences=("x",))
    with pytest.raises(SchemaError, match=r"column 'by' is .*; rows are split by strings, numbers"):
        build([path], tmp_path / "out", names=names, options=PlanOptions(**{option: "by"}))


def test_log1p_is_refused_where_it_is_not_defined(write_input, tmp_path):
    path = write_input("a.parquet", with_rows(x=[[0.0, 9.0]]))
    options = PlanOptions(normalize={"x": "log1p"})
    row = decoded(build([path], tmp_path / "out", names=WITH_ROW, options=options))[0]
    np.testing.assert_allclose(real(row, "x"), np.log1p([0, 9]), rtol=1e-6)
    path = write_input("a.parquet", with_rows(x=[[-1.0, 9.0]]))
    with pytest.raises(PlanError, match="the least value is -1"):
        build([path], tmp_path / "bad", names=WITH_ROW, options=options)


@pytest.mark.parametrize("name", ["words", "row", "nowhere"])
def test_only_float_sequences_are_normalised(run, write_input, tmp_path, name):
    path = write_input("a.parquet", with_rows(words=WORDS))
    code, _, error = run(
        "build", path, tmp_path / "out", "--context", "row", "--normalize", f"{name}=zscore"
    )
    assert code == 1
    assert f"'{name}'" in error or f"{name}=zscore" in error
    assert not (tmp_path / "out").exists()


def test_no_group_straddles_two_splits(write_input, tmp_path):
    users = [f"user {i % 37}" for i in range(400)]
    path = write_input("a.parquet", with_rows(x=[[1]] * 400, user=users))
    options = PlanOptions(split_by="user", splits={"train": 0.5, "test": 0.5})
    manifest = build(
        [path],
        tmp_path / "out",
        names=FeatureNames(sequences=("x",), contexts=("row",)),
        options=options,
    )
    groups = [{users[row] for row in decoded(manifest, split)} for split in ("train", "test")]
    assert groups[0] and groups[1]
    assert not groups[0] & groups[1]


def test_a_column_can_name_the_split(write_input, tmp_path):
    table = with_rows(x=[[1], [2], [3]], part=["train", "dev", "train"])
    path = write_input("a.parquet", table, row_group_size=1)
    manifest = build(
        [path],
        tmp_path / "out",
        names=FeatureNames(sequences=("x",), contexts=("row",)),
        options=PlanOptions(split_column="part"),
    )
    assert manifest.splits == ("dev", "train")
    assert sorted(decoded(manifest, "train")) == [0, 2]
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["train", "../x"], "cannot name a split"),
        (["train", None], "a null stands in the column that names the split"),
        ([f"part{number}" for number in range(300)], "has over"),
    ],
    ids=["a path", "a null", "too many"],
)
def test_a_column_that_names_no_split_is_refused(write_input, tmp_path, names, says):
    path = write_input("a.parquet", with_rows(x=[[1]] * len(names), part=names))
    with pytest.raises(InputError, match=says):
        build([path], tmp_path / "out", options=PlanOptions(split_column="part"))
    assert not (tmp_path / "out").exists()


INFINITE = [float("inf")]
INFINITE_REASON = "infinite, or beyond float32"


@pytest.mark.parametrize(
    ("most", "passes"), [("1", False), ("2", True), ("49%", False), ("50%", True)]
)
def test_faulty_rows_are_left_out_up_to_a_limit(write_input, tmp_path, most, passes):
    path = write_input(
        "a.parquet", with_rows(x=[[1.0], INFINITE, [3.0], INFINITE]), row_group_size=2
    )
    options = PlanOptions(max_rejected=most)
    out = tmp_path / "out"
    if not passes:
        with pytest.raises(InputError, match="2 faulty rows"):
            build([path], out, names=WITH_ROW, options=options)
        assert not out.exists()
        return
    manifest = build([path], out, names=WITH_ROW, options=options)
    account = manifest.accounts["train"]
    assert (account.read, account.written, account.rejected) == (4, 2, {INFINITE_REASON: 2})
    listed = pq.read_table(out / "rejected" / "part-00000.parquet").to_pylist()
    assert [(row["file"], row["row"], row["reason"]) for row in listed] == [
        ("a.parquet", 1, INFINITE_REASON),
        ("a.parquet", 3, INFINITE_REASON),
    ]
    assert json.loads(listed[1]["raw"]) == {"row": 3, "x": [float("inf")]}
    assert verify(out) == []


def test_a_build_without_faults_leaves_no_rejected_rows_of_the_one_before(write_input, tmp_path):
    out: Path = tmp_path / "out"
    faulty = write_input("a.parquet", with_rows(x=[[1.0], INFINITE]))
    build([faulty], out, names=WITH_ROW, options=PlanOptions(max_rejected="1"))
    assert (out / "rejected").exists()
    good = write_input("a.parquet", with_rows(x=[[1.0]]))
    build([good], out, names=WITH_ROW)
    assert not (out / "rejected").exists()


def test_overlong_rows_can_be_split_into_overlapping_pieces(write_input, tmp_path):
    path = write_input("a.parquet", with_rows(x=[[1, 2, 3, 4, 5], [6], [7, 8, 9]]))
    options = PlanOptions(max_length=3, overlong="split", overlap=1, align=1, num_buckets=1)
    manifest = build([path], tmp_path / "out", names=WITH_ROW, options=options)
    account = manifest.accounts["train"]
    assert (account.read, account.pieces, account.written) == (3, 1, 4)
    (shard,) = manifest.shards
    layout = manifest.layouts[3]
    records = layout.decode(
        np.fromfile(manifest.path_of(shard), np.uint8).reshape(-1, layout.stride)
    )
    pieces = [
        (int(row), values[:length].tolist())
        for row, values, length in zip(records["row"], records["x"], records["length"], strict=True)
    ]
    assert sorted(pieces) == [(0, [1, 2, 3]), (0, [3, 4, 5]), (1, [6]), (2, [7, 8, 9])]
    assert verify(tmp_path / "out") == []


def test_pieces_are_the_same_bytes_with_any_batches(write_input, tmp_path):
    rng = np.random.default_rng(3)
    rows = [rng.integers(0, 9, n).tolist() for n in rng.integers(1, 60, 150)]
    path = write_input("a.parquet", with_rows(x=rows))
    options = PlanOptions(max_length=7, overlong="split", overlap=3, shard_size=4_000)
    for name, batch_rows in (("a", 4), ("b", None)):
        build([path], tmp_path / name, names=WITH_ROW, options=options, batch_rows=batch_rows)
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")


@pytest.mark.parametrize("value", [0, -7, 300])
@pytest.mark.parametrize("rows", [2, 40])
def test_rows_can_be_padded_on_the_left_with_any_value(write_input, tmp_path, value, rows):
    x = [[1.0, None, 3.0], [4.0]] * (rows // 2)
    ids = [[1, 2, 3], [4]] * (rows // 2)
    table = with_rows(x=pa.array(x, pa.list_(pa.float32())), ids=ids)
    options = PlanOptions(padding="left", pad_value=float(value), align=5, num_buckets=1)
    manifest = build(
        [write_input("a.parquet", table)], tmp_path / "out", names=WITH_ROW, options=options
    )
    found = decoded(manifest)
    assert found[0]["x"].tolist() == [value, value, 1, 0, 3]
    assert found[0]["mask"].tolist() == [False, False, True, False, True]
    assert found[1]["ids"].tolist() == [value] * 4 + [4]
    assert found[1]["mask"].tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("workers", [1, 2])
def test_both_exchanges_give_the_same_bytes(two_files, tmp_path, workers):
    names = FeatureNames(sequences=("frames", "tokens"), labels=("label",))
    options = PlanOptions(num_buckets=4, align=4, shard_size=9_000)
    for exchange in ("spill", "engine"):
        execution = Execution(workers=workers, exchange=exchange)
        build(two_files, tmp_path / exchange, names=names, options=options, execution=execution)
    assert folder_digest(tmp_path / "spill") == folder_digest(tmp_path / "engine")


def test_the_report_does_not_tell_how_the_input_was_read(tmp_path):
    # An empty row before one whose sequence is null, and the other way round in the next batch.
    sequences = [[1], [], [2], None]
    for first, name in ((sequences, "a"), (sequences[::-1], "b")):
        path = tmp_path / name / "in.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table({"tokens": pa.array(first, pa.list_(pa.int32()))}), path)
        build([path], tmp_path / name / "out", batch_rows=1)
    reports = [(tmp_path / name / "out" / "report.html").read_text() for name in "ab"]
    assert [text.index("null sequence") > text.index("empty sequence") for text in reports] == [
        True,
        True,
    ]
