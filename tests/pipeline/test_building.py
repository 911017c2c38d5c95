"""A build writes every row once, and the same bytes whatever the road."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from lengthwise.dataset import InputError, Manifest, PlanOptions, verify
from lengthwise.dataset.tfrecord import write_records
from lengthwise.pipeline import Execution, FeatureNames, build
from tests.pipeline.conftest import LAYOUTS, folder_digest, ragged_table, records_of
from tests.pipeline.sources import example_protos as protos

NAMES = FeatureNames(sequences=("frames", "tokens"), labels=("label",), contexts=("weight", "row"))
OPTIONS = PlanOptions(
    num_buckets=4, align=4, splits={"train": 0.7, "val": 0.3}, shard_size=20_000, seed=3
)


def decoded_rows(manifest: Manifest, split: str) -> dict[int, dict[str, np.ndarray]]:
    """Row number (the context feature `row`) -> its decoded record, in the order of the shards."""
    rows = {}
    for shard in manifest.shards_of(split):
        layout = manifest.layouts[shard.max_length]
        data = np.fromfile(manifest.path_of(shard), np.uint8).reshape(-1, layout.stride)
        decoded = layout.decode(data)
        for i in range(len(data)):
            rows[int(decoded["row"][i])] = {name: values[i] for name, values in decoded.items()}
    return rows


def test_every_row_is_written_once_with_its_own_values(two_files, tmp_path):
    manifest = build(two_files, tmp_path / "out", names=NAMES, options=OPTIONS)
    rows = {**decoded_rows(manifest, "train"), **decoded_rows(manifest, "val")}
    assert manifest.records("train") + manifest.records("val") == 240 == len(rows)
    for path in two_files:
        for source in pq.read_table(path).to_pylist():
            row, length = rows[source["row"]], len(source["tokens"])
            max_length = len(row["mask"])
            assert max_length == min(t for t in manifest.max_lengths if t >= length)
            assert row["length"] == length
            assert row["mask"].tolist() == [True] * length + [False] * (max_length - length)
            assert row["tokens"].tolist() == source["tokens"] + [0] * (max_length - length)
            np.testing.assert_array_equal(
                row["frames"][:length], np.array(source["frames"], np.float32)
            )
            assert not row["frames"][length:].any()
            assert row["label"] == source["label"]
            assert row["weight"] == np.float32(source["weight"])


def test_a_fresh_build_verifies(two_files, tmp_path):
    build(two_files, tmp_path / "out", names=NAMES, options=OPTIONS)
    assert verify(tmp_path / "out") == []


@pytest.fixture
def options(request) -> PlanOptions:
    return replace(OPTIONS, **getattr(request, "param", {}))


@pytest.fixture
def reference(two_files, tmp_path, options) -> dict[str, str]:
    build(two_files, tmp_path / "reference", names=NAMES, options=options)
    return folder_digest(tmp_path / "reference")


@pytest.mark.parametrize("options", [{}, {**LAYOUTS[-1], "element_mask": True}], indirect=True)
def test_two_worker_processes_write_the_same_bytes(two_files, tmp_path, reference, options):
    build(two_files, tmp_path / "out", names=NAMES, options=options, execution=Execution(workers=2))
    assert folder_digest(tmp_path / "out") == reference


@pytest.mark.parametrize("options", LAYOUTS[1:], indirect=True)
def test_both_exchanges_write_the_same_bytes_in_every_layout(
    two_files, tmp_path, reference, options
):
    engine = Execution(exchange="engine")
    build(two_files, tmp_path / "out", names=NAMES, options=options, execution=engine)
    assert folder_digest(tmp_path / "out") == reference


def test_records_are_the_same_in_every_layout(two_files, tmp_path):
    found = []
    for number, layout in enumerate(LAYOUTS):
        options = replace(OPTIONS, num_buckets=1, **layout)
        manifest = build(two_files, tmp_path / str(number), names=NAMES, options=options)
        assert verify(manifest.root) == []
        assert all(shard.name.endswith(".gz") for shard in manifest.shards) == (
            layout.get("compression") == "gzip"
        )
        found.append(records_of(manifest, "train"))
    for records in found[1:]:
        for name, values in found[0].items():
            np.testing.assert_array_equal(records[name], values)
            assert records[name].dtype == values.dtype


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensorflow_alone_reads_every_layout(two_files, tmp_path, layout):
    import tensorflow as tf

    options = replace(OPTIONS, num_buckets=1, **layout)
    manifest = build(two_files, tmp_path / "out", names=NAMES, options=options)
    (steps,) = manifest.max_lengths
    rows = tf.data.TFRecordDataset(
        [str(manifest.path_of(shard)) for shard in manifest.shards_of("train")],
        compression_type="GZIP" if manifest.compression == "gzip" else "",
    ).batch(1000)
    parsed = tf.io.parse_example(
        next(iter(rows)),
        {
            "frames": tf.io.FixedLenFeature((steps, 3), tf.float32),
            "tokens": tf.io.FixedLenFeature((steps,), tf.int64),
            "mask": tf.io.FixedLenFeature((steps,), tf.int64),
            "length": tf.io.FixedLenFeature((), tf.int64),
        },
    )
    expected = records_of(manifest, "train")
    for name, tensor in parsed.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name])


def test_files_listed_otherwise_give_the_same_bytes(two_files, tmp_path, reference):
    build(two_files[::-1], tmp_path / "reversed", names=NAMES, options=OPTIONS)
    build([tmp_path / "in"], tmp_path / "folder", names=NAMES, options=OPTIONS)
    twice = [tmp_path / "in" / "*" / "*.parquet", *two_files]
    build(twice, tmp_path / "twice", names=NAMES, options=OPTIONS)
    for name in ("reversed", "folder", "twice"):
        assert folder_digest(tmp_path / name) == reference


@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
def test_reading_batches_do_not_matter(two_files, tmp_path, reference, batch_rows):
    build(two_files, tmp_path / "out", names=NAMES, options=OPTIONS, batch_rows=batch_rows)
    assert folder_digest(tmp_path / "out") == reference


def test_row_groups_do_not_matter(write_input, tmp_path):
    for size in (7, 1000):
        path = write_input("a.parquet", ragged_table(60, seed=1), row_group_size=size)
        build([path], tmp_path / f"out{size}", names=NAMES, options=OPTIONS)
    assert folder_digest(tmp_path / "out7") == folder_digest(tmp_path / "out1000")


def test_moved_input_gives_the_same_bytes(two_files, tmp_path, reference):
    shutil.copytree(tmp_path / "in", tmp_path / "elsewhere" / "deep")
    build([tmp_path / "elsewhere"], tmp_path / "out", names=NAMES, options=OPTIONS)
    assert folder_digest(tmp_path / "out") == reference


def test_a_second_run_over_the_output_gives_the_same_bytes(two_files, tmp_path, reference):
    out = tmp_path / "reference"
    build(two_files, out, names=NAMES, options=OPTIONS)
    assert folder_digest(out) == reference


def test_a_second_run_repairs_a_damaged_output(two_files, tmp_path, reference):
    out = tmp_path / "reference"
    shard = next(out.rglob("*.tfrecord"))
    shard.write_bytes(b"damaged")
    build(two_files, out, names=NAMES, options=OPTIONS)
    assert folder_digest(out) == reference


def test_another_seed_gives_another_order(two_files, tmp_path):
    orders = []
    for seed in (0, 1):
        options = PlanOptions(num_buckets=1, seed=seed)
        manifest = build(two_files, tmp_path / f"{seed}", names=NAMES, options=options)
        orders.append(list(decoded_rows(manifest, "train")))
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_rows_of_a_shard_are_shuffled_across_files(two_files, tmp_path):
    manifest = build(two_files, tmp_path / "out", names=NAMES, options=PlanOptions(num_buckets=1))
    files = [row // 1000 for row in decoded_rows(manifest, "train")]
    changes = sum(a != b for a, b in pairwise(files))
    assert 80 < changes < 160  # a fair coin changes 119.5 times on average


def test_shards_are_as_many_as_their_size_asks(two_files, tmp_path):
    options = PlanOptions(num_buckets=1, shard_size=30_000)
    manifest = build(two_files, tmp_path / "out", names=NAMES, options=options)
    total = sum(shard.nbytes for shard in manifest.shards)
    assert {shard.count for shard in manifest.shards} == {-(-total // 30_000)}
    assert len(manifest.shards) > 3


def test_inputs_can_be_given_to_splits(two_files, tmp_path):
    inputs = [f"train={two_files[0]}", f"test={two_files[1]}"]
    manifest = build(inputs, tmp_path / "out", names=NAMES)
    assert manifest.splits == ("test", "train")
    assert {row // 1000 for row in decoded_rows(manifest, "train")} == {1}
    assert {row // 1000 for row in decoded_rows(manifest, "test")} == {2}


def test_given_and_drawn_splits_go_together(two_files, tmp_path):
    options = PlanOptions(splits={"train": 0.5, "val": 0.5})
    manifest = build(
        [str(two_files[0]), f"test={two_files[1]}"], tmp_path / "out", names=NAMES, options=options
    )
    assert manifest.accounts["test"].read == 120
    assert manifest.accounts["train"].read + manifest.accounts["val"].read == 120
    assert 35 < manifest.accounts["val"].read < 85


def test_empty_rows_are_dropped_and_counted(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1], [], [2, 3], []]}))
    manifest = build([path], tmp_path / "out")
    account = manifest.accounts["train"]
    assert (account.read, account.written) == (4, 2)
    assert account.dropped == {"empty sequence": 2}
    with pytest.raises(InputError, match=r"row 1: empty sequence"):
        build([path], tmp_path / "out2", options=PlanOptions(empty="error"))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "tfrecord"])
def test_null_rows_are_dropped_and_counted_whatever_the_format(tmp_path, suffix):
    x, row = [[1], None, [2, 3], None, []], [0, 1, 2, 3, 4]
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        # A null, and a key that is not there.
        path.write_text(
            '{"x": [1], "row": 0}\n{"x": null, "row": 1}\n{"x": [2, 3], "row": 2}\n'
            '{"row": 3}\n{"x": [], "row": 4}\n'
        )
    elif suffix == "tfrecord":
        examples = [
            protos.example_of({"row": [n]} | ({} if x_ is None else {"x": x_}))
            for n, x_ in zip(row, x, strict=True)
        ]
        write_records(path, examples)
    else:
        table = pa.table({"x": x, "row": row})
        write = pq.write_table if suffix == "parquet" else write_feather
        write(table, str(path))
    names = FeatureNames(sequences=("x",), contexts=("row",))
    manifest = build([path], tmp_path / "out", names=names)
    account = manifest.accounts["train"]
    assert (account.read, account.written) == (5, 2)
    assert account.dropped == {"null sequence": 2, "empty sequence": 1}
    assert sorted(decoded_rows(manifest, "train")) == [0, 2]
    with pytest.raises(InputError, match=r"3 faulty rows .*2 × null sequence.* row 1: null"):
        build([path], tmp_path / "out2", names=names, options=PlanOptions(empty="error"))
    assert not (tmp_path / "out2").exists()


def test_a_null_beside_a_sequence_with_steps_is_a_fault(write_input, tmp_path):
    table = pa.table({"x": [[1], None, None], "y": [[1], [2], None]})
    path = write_input("a.parquet", table)
    with pytest.raises(InputError, match="row 1: sequence features of different lengths"):
        build([path], tmp_path / "out")
    options = PlanOptions(max_rejected="1")
    account = build([path], tmp_path / "out", options=options).accounts["train"]
    assert account.dropped == {"null sequence": 1}
    assert account.rejected == {"sequence features of different lengths": 1}


@pytest.mark.parametrize(
    ("overlong", "kept"),
    [("truncate_end", [[1, 2], [5]]), ("truncate_start", [[2, 3], [5]]), ("drop", [[5]])],
)
def test_overlong_rows_are_dealt_with_as_asked(write_input, tmp_path, overlong, kept):
    path = write_input("a.parquet", pa.table({"x": [[1, 2, 3], [5]], "row": [0, 1]}))
    manifest = build(
        [path],
        tmp_path / "out",
        names=FeatureNames(sequences=("x",), contexts=("row",)),
        options=PlanOptions(max_length=2, overlong=overlong, align=1),
    )
    rows = decoded_rows(manifest, "train")
    values = [rows[i]["x"][: rows[i]["length"]].tolist() for i in sorted(rows)]
    assert values == kept
    assert manifest.accounts["train"].dropped == (
        {"overlong sequence": 1} if overlong == "drop" else {}
    )


def test_overlong_rows_fail_the_build_by_default(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[1, 2, 3], [5]]}))
    with pytest.raises(InputError, match="row 0: overlong sequence"):
        build([path], tmp_path / "out", options=PlanOptions(max_length=2))
    assert not (tmp_path / "out").exists()


def test_missing_steps_are_masked_and_zero(write_input, tmp_path):
    table = pa.table(
        {
            "x": pa.array([[1.0, None, 3.0], [float("nan"), 5.0], [6.0]], pa.list_(pa.float32())),
            "row": [0, 1, 2],
        }
    )
    names = FeatureNames(sequences=("x",), contexts=("row",))
    manifest = build(
        [write_input("a.parquet", table)],
        tmp_path / "out",
        names=names,
        options=PlanOptions(num_buckets=1, align=4),
    )
    rows = decoded_rows(manifest, "train")
    assert rows[0]["mask"].tolist() == [True, False, True, False]
    assert rows[0]["x"].tolist() == [1, 0, 3, 0]
    assert rows[0]["length"] == 3
    assert rows[1]["mask"].tolist() == [False, True, False, False]
    assert rows[2]["mask"].tolist() == [True, False, False, False]


def test_real_zeros_are_not_padding(write_input, tmp_path):
    path = write_input("a.parquet", pa.table({"x": [[0.0, 0.0], [0.0]], "row": [0, 1]}))
    names = FeatureNames(sequences=("x",), contexts=("row",))
    rows = decoded_rows(build([path], tmp_path / "out", names=names), "train")
    assert rows[0]["mask"].sum() == 2 == rows[0]["length"]


def test_integers_of_different_files_share_one_type(write_input, tmp_path):
    small = pa.table({"x": pa.array([[1, -2]], pa.list_(pa.int8())), "row": [0]})
    large = pa.table({"x": pa.array([[2**40]], pa.list_(pa.int64())), "row": [1]})
    paths = [write_input("a.parquet", small), write_input("b.parquet", large)]
    names = FeatureNames(sequences=("x",), contexts=("row",))
    rows = decoded_rows(build(paths, tmp_path / "out", names=names), "train")
    assert rows[0]["x"][:2].tolist() == [1, -2]
    assert rows[1]["x"][0] == 2**40


def test_one_bucket_with_nearly_all_rows_is_spread_over_shards(write_input, tmp_path):
    path = write_input("a.parquet", ragged_table(400, longest=3))
    options = PlanOptions(num_buckets=1, shard_size=4_000)
    manifest = build([path], tmp_path / "out", names=NAMES, options=options)
    sizes = [shard.records for shard in manifest.shards]
    assert len(sizes) > 10
    assert max(sizes) < 2.5 * 400 / len(sizes)


def test_the_old_dataset_stays_when_a_new_build_fails(two_files, write_input, tmp_path, reference):
    bad = write_input("bad.parquet", pa.table({"frames": [1.0]}))
    with pytest.raises(Exception, match=r"bad\.parquet"):
        build([bad], tmp_path / "reference", names=NAMES, options=OPTIONS)
    faulty = write_input("faulty.parquet", pa.table({"tokens": [[1.0], [float("inf")]]}))
    with pytest.raises(InputError, match="infinite"):
        build([faulty], tmp_path / "reference")
    assert folder_digest(tmp_path / "reference") == reference


def test_a_new_build_replaces_the_old_one_and_leaves_nothing_of_it(two_files, tmp_path, reference):
    out = tmp_path / "reference"
    build(two_files[:1], out, names=NAMES, options=OPTIONS)
    fresh = tmp_path / "fresh"
    build(two_files[:1], fresh, names=NAMES, options=OPTIONS)
    assert folder_digest(out) == folder_digest(fresh)


def test_the_dataset_says_nothing_of_where_it_was_made(two_files, tmp_path):
    build(two_files, tmp_path / "out", names=NAMES, options=OPTIONS)
    for path in Path(tmp_path / "out").rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()


def test_more_shards_than_a_manifest_has_room_for_are_refused_before_they_are_written(
    run, write_input, tmp_path, monkeypatch
):
    path = write_input("a.parquet", ragged_table(60))
    monkeypatch.setattr("lengthwise.pipeline.building.MAX_SHARDS", 5)
    code, _, error = run("build", path, tmp_path / "out", "--shard-size", "1K")
    assert code == 1
    assert "shards are more than the 5 that a manifest has room for" in error
    assert not list((tmp_path / "out").rglob("*.tfrecord"))
    assert run("build", path, tmp_path / "out", "--shard-size", "1M")[0] == 0
