"""A dataset of a PCollection: the same bytes however its rows come, and every key once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from lengthwise.dataset import InputError, Plan, PlanOptions, UsageError, verify
from lengthwise.pipeline import Execution, FeatureNames, build_from, collected_keys
from tests.pipeline.conftest import folder_digest, ragged_table

NAMES = FeatureNames(sequences=("frames", "words"), labels=("label",), contexts=("row",))
OPTIONS = PlanOptions(
    num_buckets=3, align=4, splits={"train": 0.7, "val": 0.3}, shard_size=6_000, seed=5
)
KEYS = ["row", "name"]


def rows_with_keys(rows: int = 60) -> pa.Table:
    table = ragged_table(rows, seed=3)
    words = [[f"w{token % 30}" for token in tokens] for tokens in table["tokens"].to_pylist()]
    names = [f"user {row} {'x' * (row % 19)}" for row in table["row"].to_pylist()]
    ids = [row.to_bytes(16, "big") for row in table["row"].to_pylist()]
    return (
        table.append_column("words", pa.array(words))
        .append_column("name", pa.array(names))
        .append_column("uuid", pa.array(ids, pa.binary(16)))
    )


TABLE = rows_with_keys()


def built(source, out, *, table: pa.Table = TABLE, key: str = "row", **options):
    options = {"names": NAMES, "options": OPTIONS, **options}
    return build_from(source, out, columns=table.schema, key=key, **options)


def create(table: pa.Table, size: int) -> beam.PTransform:
    return beam.Create(table.to_batches(max_chunksize=size), reshuffle=False)


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


@pytest.fixture(scope="module", params=KEYS)
def reference(request, tmp_path_factory) -> tuple[str, dict[str, str]]:
    out = tmp_path_factory.mktemp("reference") / "out"
    built(create(TABLE, 1000), out, key=request.param)
    return request.param, folder_digest(out)


@pytest.mark.parametrize(("size", "unit_bytes"), [(1, 9_000), (25, 1)])
def test_batches_units_and_order_of_rows_do_not_matter(tmp_path, reference, size, unit_bytes):
    key, digest = reference
    out = tmp_path / "out"
    manifest = built(create(shuffled(TABLE, size), size), out, key=key, unit_bytes=unit_bytes)
    assert folder_digest(out) == digest
    assert manifest.records("train") + manifest.records("val") == TABLE.num_rows
    assert verify(out) == []


def test_every_row_is_written_once_with_its_own_values(tmp_path):
    from tests.pipeline.test_building import decoded_rows

    manifest = built(create(TABLE, 20), tmp_path / "out")
    rows = {**decoded_rows(manifest, "train"), **decoded_rows(manifest, "val")}
    vocabulary = Plan.load(tmp_path / "out" / "plan.json").vocabularies["words"]
    assert len(rows) == TABLE.num_rows
    for source in TABLE.to_pylist():
        row, length = rows[source["row"]], len(source["words"])
        assert row["length"] == length == row["mask"].sum()
        words = [vocabulary[number - 2] for number in row["words"][:length] if number > 1]
        assert words == [word for word in source["words"] if word in vocabulary]
        np.testing.assert_array_equal(
            row["frames"][:length], np.array(source["frames"], np.float32)
        )


def test_two_worker_processes_write_the_same_bytes(tmp_path):
    out = tmp_path / "out"
    built(create(TABLE, 1000), tmp_path / "one")
    source = _Scattered(TABLE.num_rows)
    built(source, out, execution=Execution(workers=2, exchange="engine"), unit_bytes=9_000)
    assert folder_digest(out) == folder_digest(tmp_path / "one")


class _Scattered(beam.PTransform):
    """Batches of a few rows each, which a reshuffle gives to any worker."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def expand(self, input_or_inputs):
        return (
            input_or_inputs
            | beam.Create(range(0, self._rows, 10))
            | beam.Reshuffle()
            | beam.Map(_ten_rows)
        )


def _ten_rows(first: int) -> pa.Table:
    return rows_with_keys().slice(first, 10)


def test_a_pcollection_of_a_pipeline_of_the_user(tmp_path):
    for number in range(3):
        path = tmp_path / "in" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(TABLE.slice(20 * number, 20), path, row_group_size=20)
    pipeline = beam.Pipeline(runner=FnApiRunner())
    tables = pipeline | beam.io.ReadFromParquetBatched(str(tmp_path / "in" / "*.parquet"))
    _ = tables | "AnotherUse" >> beam.Map(lambda table: table.num_rows)
    built(tables, tmp_path / "out")
    built(create(TABLE, 1000), tmp_path / "straight")
    assert folder_digest(tmp_path / "out") == folder_digest(tmp_path / "straight")


def test_windows_of_the_user_do_not_matter(tmp_path):
    pipeline = beam.Pipeline(runner=FnApiRunner())
    stamped = (
        pipeline
        | beam.Create(list(enumerate(TABLE.to_batches(max_chunksize=30))))
        | beam.MapTuple(lambda at, batch: TimestampedValue(batch, at))
        | beam.WindowInto(FixedWindows(1))
    )
    assert sum(a.read for a in built(stamped, tmp_path / "out").accounts.values()) == TABLE.num_rows


def test_a_pipeline_that_runs_again_after_its_build_leaves_the_dataset_whole(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Exception, match="make it without `with`"):
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            built(pipeline | create(TABLE, 50), out)
            digest = folder_digest(out)
    assert folder_digest(out) == digest


def test_units_are_written_before_they_grow(tmp_path, monkeypatch):
    from lengthwise.pipeline import collection

    seen: list[int] = []
    whole = collection._rows_of

    def watched(elements, *arguments):
        seen.append(sum(batch.nbytes for batch in elements))
        return whole(elements, *arguments)

    monkeypatch.setattr(collection, "_rows_of", watched)
    built(create(TABLE, 5), tmp_path / "out", unit_bytes=8_000)
    largest = max(batch.nbytes for batch in TABLE.to_batches(max_chunksize=5))
    assert len(seen) > 3
    assert max(seen) < 8_000 + largest


def with_key(values: list, type_: pa.DataType | None = None) -> pa.Table:
    return pa.table({"id": pa.array(values, type_), "x": [[1.0]] * len(values)})


X = FeatureNames(sequences=("x",))


@pytest.mark.parametrize("compared", [1 << 22, 2])
@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1, 2, 3, 2, 9], "2"),
        ([2**63 - 1, -1, 0, -1], "-1"),
        (["a", "b", "ab", "a"], "'a'"),
        ([b"k1" * 8, b"k1" * 8], "'k1k1k1k1k1k1k1k1'"),
    ],
)
def test_a_key_that_comes_twice_is_refused_by_name(tmp_path, monkeypatch, values, shown, compared):
    monkeypatch.setattr(collected_keys, "_COMPARED_KEYS", compared)
    table = with_key(values)
    says = f"a row has a key in 'id' that another row has too, first {shown}; keys"
    with pytest.raises(InputError, match=says):
        built(create(table, 1), tmp_path / "out", table=table, key="id", names=X, unit_bytes=1)
    assert not (tmp_path / "out").exists()


def test_rows_of_equal_keys_in_different_buckets_and_splits_are_found_too(tmp_path):
    table = pa.table({"id": [5, 5], "x": [[1.0], [1.0] * 90], "part": ["train", "val"]})
    options = PlanOptions(split_column="part", num_buckets=2)
    with pytest.raises(InputError, match="first 5"):
        built(create(table, 1), tmp_path / "out", table=table, key="id", names=X, options=options)


def test_texts_with_the_same_hash_are_told_from_equal_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(collected_keys, "text_numbers", lambda values: np.zeros(len(values), int))
    table = with_key(["a", "b"])
    with pytest.raises(InputError, match="'a' and 'b' in 'id' have the same hash"):
        built(create(table, 1), tmp_path / "out", table=table, key="id", names=X)


def test_integers_of_any_size_are_keys(tmp_path):
    values = [0, 1, 2**63, 2**64 - 1]
    table = with_key(values, pa.uint64())
    manifest = built(create(table, 2), tmp_path / "out", table=table, key="id", names=X)
    assert sum(account.read for account in manifest.accounts.values()) == 4


class _Strange(beam.DoFn):
    def process(self, element) -> Iterator[object]:
        raise ValueError("the source is broken")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (beam.Create([with_key([1, None])]), "a null stands in 'id'"),
        (beam.Create([{"id": 1, "x": [1.0]}]), "an element is a dict, not a record batch"),
        (beam.Create([pa.table({"x": [[1.0]]})]), "a batch has no column 'id'; columns are: x"),
        (beam.Create([pa.table({"id": [1], "x": [["a"]]})]), "column 'x' as list<.*, which is no"),
        (beam.Create([]), "the collection: has no rows"),
    ],
)
def test_what_is_no_batch_of_these_columns_is_one_line(tmp_path, source, says):
    table = with_key([1])
    with pytest.raises(InputError, match=says) as error:
        built(source, tmp_path / "out", table=table, key="id", names=X)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "key", "says"),
    [
        (with_key([1]).schema, "nowhere", "no column 'nowhere' to tell rows apart"),
        (with_key([1.5]).schema, "id", "column 'id' is double; a key is an integer"),
        (with_key([1]).schema.remove(1), "id", "id"),
    ],
)
def test_columns_that_do_not_fit_are_refused_before_anything_runs(tmp_path, columns, key, says):
    with pytest.raises(Exception, match=says):
        build_from(beam.Create([]), tmp_path / "out", columns=columns, key=key)
    assert not (tmp_path / "out").exists()


def test_what_makes_no_collection_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="the source is a RecordBatch; give a PCollection"):
        built(TABLE.to_batches()[0], tmp_path / "out")


def test_rejected_rows_are_named_by_their_keys(tmp_path):
    infinite = [[1.0], [float("inf")], [2.0], [float("inf")]]
    for values in ([4, 3, 2, 1], ["d", "c", "b", "a"]):
        table = pa.table({"id": values, "x": infinite})
        out = tmp_path / str(values[0])
        with pytest.raises(InputError, match=f"id={values[3]!r}: row 0: infinite"):
            built(create(table, 3), out, table=table, key="id", names=X, options=PlanOptions())
        options = PlanOptions(max_rejected="2")
        manifest = built(create(table, 3), out, table=table, key="id", names=X, options=options)
        assert manifest.accounts["train"].rejected == {"infinite, or beyond float32": 2}
        listed = pq.read_table(out / "rejected" / "part-00000.parquet").to_pylist()
        assert sorted(row["file"] for row in listed) == [f"id={values[i]!r}" for i in (3, 1)]
        for row in listed:
            assert row["file"] == f"id={json.loads(row['raw'])['id']!r}" and row["row"] == 0


def test_rejected_rows_have_an_order_of_their_own_however_they_come(tmp_path):
    table = pa.table({"id": range(300), "x": [[1.0]] + [[float("inf")]] * 299})
    options = PlanOptions(max_rejected="100%")
    for name, rows, shuffle in (("a", 300, 1), ("b", 7, 2)):
        made = create(shuffled(table, shuffle), rows)
        made = built(
            made, tmp_path / name, table=table, key="id", names=X, options=options, unit_bytes=500
        )
        listed = pq.read_table(tmp_path / name / "rejected" / "part-00000.parquet")
        assert listed["file"].to_pylist() == [f"id={number}" for number in range(1, 300)]
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")


def test_a_row_past_the_limit_and_text_that_is_none_are_rejected(tmp_path):
    words = pa.array([["a"], ["b"], ["c"]]).cast(pa.list_(pa.binary()))
    words = pa.array([[b"a"], [b"\xff"], [b"c"]], words.type).view(pa.list_(pa.string()))
    table = pa.table({"id": [1, 2, 3], "x": words})
    options = PlanOptions(max_rejected="1")
    manifest = built(
        create(table, 2), tmp_path / "out", table=table, key="id", names=X, options=options
    )
    assert manifest.accounts["train"].rejected == {"not UTF-8": 1}


def test_groups_and_named_splits(tmp_path):
    users = [f"user {row % 13}" for row in range(TABLE.num_rows)]
    table = TABLE.append_column("user", pa.array(users))
    options = PlanOptions(splits={"train": 0.5, "test": 0.5}, split_by="user")
    manifest = built(create(table, 9), tmp_path / "out", table=table, options=options)
    from tests.pipeline.test_building import decoded_rows

    by_row = dict(zip(table["row"].to_pylist(), users, strict=True))
    train, test = (
        {by_row[row] for row in decoded_rows(manifest, split)} for split in ("train", "test")
    )
    assert train and test and not train & test


def test_a_plan_is_followed_or_refused(tmp_path):
    built(create(TABLE, 50), tmp_path / "first")
    plan = Plan.load(tmp_path / "first" / "plan.json")
    assert plan.reading is None
    again = {"names": None, "options": None, "plan": plan}
    built(create(shuffled(TABLE, 1), 11), tmp_path / "again", **again)
    assert folder_digest(tmp_path / "again") == folder_digest(tmp_path / "first")
    with pytest.raises(Exception, match="the plan is of another input"):
        built(create(TABLE.slice(1), 50), tmp_path / "other", **again)
    assert not (tmp_path / "other").exists()


def test_the_old_dataset_stays_when_a_new_build_fails(tmp_path):
    out = tmp_path / "out"
    built(create(TABLE, 50), out)
    digest = folder_digest(out)
    twice = pa.concat_tables([TABLE, TABLE.slice(3, 1)])
    with pytest.raises(InputError, match="another row has too"):
        built(create(twice, 50), out)
    with pytest.raises(ValueError, match="the source is broken"):
        built(beam.Create([1]) | beam.ParDo(_Strange()), out)
    assert folder_digest(out) == digest
    with pytest.raises(ValueError, match="the source is broken"):
        built(beam.Create([1]) | beam.ParDo(_Strange()), tmp_path / "new")
    assert not (tmp_path / "new").exists()
