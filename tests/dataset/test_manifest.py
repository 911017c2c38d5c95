"""The manifest: what readers believe, once it has proved to be whole and consistent."""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import (
    Account,
    LengthwiseError,
    Manifest,
    ManifestError,
    Plan,
    Shard,
    verify,
)
from lengthwise.dataset.manifest import MANIFEST_NAME, PLAN_NAME, data_folders, document_crc32c
from lengthwise.dataset.record import RecordLayout
from tests.dataset.conftest import LAYOUTS


def write(root, document):
    """Writes a manifest with the checksum that fits, as a hostile author would."""
    document["crc32c"] = document_crc32c(json.loads(text_of(document)))
    (root / MANIFEST_NAME).write_text(text_of(document), encoding="utf-8")


def text_of(document):
    return json.dumps(document).replace('"<infinity>"', "1e999")


@pytest.fixture
def load_edited(dataset):
    """Loads the manifest with members changed, `a__0__b=value` for a member of a member."""

    def load(**changes):
        document = json.loads(dataset.dumps())
        for path, value in changes.items():
            *parents, last = (int(name) if name.isdigit() else name for name in path.split("__"))
            parent = document
            for name in parents:
                parent = parent[name]
            if value is ...:
                del parent[last]
            else:
                parent[last] = value
        write(dataset.root, document)
        return Manifest.load(dataset.root)

    return load


@pytest.mark.parametrize("dataset", LAYOUTS, indirect=True)
def test_what_is_written_is_read_back(dataset):
    assert Manifest.load(dataset.root) == dataset
    assert Manifest.load(str(dataset.root)) == dataset
    assert Manifest.load(dataset.root / MANIFEST_NAME) == dataset
    assert Manifest.load(dataset.root).dumps() == (dataset.root / MANIFEST_NAME).read_text()


def test_shards_are_found_by_split_and_bucket(dataset):
    train = dataset.shards_of("train")

    assert dataset.splits == ("train", "val")
    assert [shard.name for shard in dataset.shards_of("train", 8)] == [
        "train/len00008-00000-of-00002.tfrecord",
        "train/len00008-00001-of-00002.tfrecord",
    ]
    assert train + dataset.shards_of("val") == dataset.shards
    assert dataset.shards_of("train", 5) == ()
    for shard in dataset.shards:
        assert dataset.path_of(shard).stat().st_size == shard.nbytes
    with pytest.raises(ManifestError, match="no split 'test'; there are: train, val"):
        dataset.shards_of("test")


def test_rows_and_padding_are_those_of_the_shards(dataset):
    assert (dataset.records("train"), dataset.records("val")) == (30, 9)
    for split in dataset.splits:
        shards = dataset.shards_of(split)
        slots = sum(shard.records * shard.max_length for shard in shards)
        padded = slots - sum(shard.steps for shard in shards)
        assert dataset.padding_fraction(split) == pytest.approx(padded / slots)


def test_a_split_without_shards_has_no_rows_and_no_padding(dataset):
    accounts = {**dataset.accounts, "empty": Account(0, 0)}
    manifest = dataclasses.replace(dataset, accounts=accounts)

    assert manifest.shards_of("empty") == ()
    assert manifest.records("empty") == manifest.padding_fraction("empty") == 0


def test_layouts_follow_from_schema_and_widths(dataset):
    assert set(dataset.layouts) == set(dataset.max_lengths)
    for max_length, layout in dataset.layouts.items():
        assert layout == RecordLayout.of(dataset.schema, max_length, dataset.widths)
    for bucket in json.loads(dataset.dumps())["buckets"]:
        layout = dataset.layouts[bucket["max_length"]]
        assert bucket["stride"] == layout.stride
        assert bucket["fields"] == {
            field.name: {"offset": field.offset, "width": field.width, "count": field.count}
            for field in layout.fields
        }


def test_documents_of_older_versions_are_read(load_edited, dataset):
    older = {f"schema__{i}__element_mask": ... for i in range(len(dataset.schema.features))}
    assert load_edited(layout=..., compression=..., padding=..., **older) == dataset

    plan = json.loads((dataset.root / PLAN_NAME).read_text())
    for name in ("element_mask", "canonical", "compression"):
        del plan["options"][name]
    (dataset.root / "older.json").write_text(json.dumps(plan))
    assert Plan.load(dataset.root / "older.json") == Plan.load(dataset.root / PLAN_NAME)


@pytest.mark.parametrize("dataset", [{"canonical": True, "compression": "gzip"}], indirect=True)
def test_a_manifest_of_canonical_records_has_no_stride(dataset):
    document = json.loads(dataset.dumps())
    assert (document["layout"], document["compression"]) == ("canonical", "gzip")
    for bucket in document["buckets"]:
        layout = dataset.layouts[bucket["max_length"]]
        counts = {field.name: {"count": field.count} for field in layout.fields}
        assert bucket == {"max_length": layout.max_length, "fields": counts}
    assert all(shard["name"].endswith(".tfrecord.gz") for shard in document["shards"])


def test_shards_are_named_by_what_they_hold():
    shard = Shard("val", 1 << 24, 12, 100_000, records=1, steps=1, nbytes=1, crc32c=0)

    assert shard.name == "val/len16777216-00012-of-100000.tfrecord"


@pytest.mark.parametrize(
    ("account", "balanced"),
    [
        (Account(0, 0), True),
        (Account(10, 6, {"a": 1, "b": 2}, {"c": 1}), True),
        (Account(10, 7, {"a": 1, "b": 2}, {"c": 1}), False),
        (Account(10, 6, {"a": 3}), False),
    ],
)
def test_accounts_balance_when_every_row_is_somewhere(account, balanced):
    assert account.balanced is balanced


def test_white_space_and_order_of_keys_do_not_matter(dataset):
    document = json.loads(dataset.dumps())
    text = json.dumps(dict(reversed(document.items())), indent=7)
    (dataset.root / MANIFEST_NAME).write_text(text)

    assert Manifest.load(dataset.root) == dataset


@pytest.mark.parametrize("change", ["seed", "plan_crc32c", "crc32c"])
def test_an_edited_manifest_is_refused(dataset, change):
    document = json.loads(dataset.dumps())
    document[change] += 1
    (dataset.root / MANIFEST_NAME).write_text(json.dumps(document))

    with pytest.raises(ManifestError, match="was changed after the build; run `lengthwise verify`"):
        Manifest.load(dataset.root)
    Manifest.load(dataset.root, check_crc=False)


def test_data_folders_are_folders_and_no_links(tmp_path):
    for name in ("data-0123456789abcdef", "data-of-mine", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "data-fedcba9876543210").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data-00000000000000ff").write_text("")
    assert data_folders(tmp_path) == [tmp_path / "data-0123456789abcdef"]


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path):
    for place in (tmp_path, tmp_path / "none", tmp_path / MANIFEST_NAME):
        with pytest.raises(ManifestError, match=r"no dataset here \(dataset\.json is missing\)"):
            Manifest.load(place)


SHARD = {
    "name": "train/len00004-00000-of-00002.tfrecord",
    "split": "train",
    "max_length": 4,
    "index": 0,
    "count": 2,
    "records": 1,
    "steps": 1,
    "bytes": 1,
    "crc32c": 0,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "lengthwise-plan"}, "not a manifest of Lengthwise"),
        ({"version": 2}, "version 2 of the format is not known to this version"),
        ({"version": 10**300}, "'version' is 1000"),
        ({"version": True}, "'version' must be int, found True"),
        ({"fingerprint": "../../elsewhere"}, "the fingerprint '../../elsewhere' is not 16 hex"),
        ({"fingerprint": "0123456789abcdef\n"}, "is not 16 hex digits"),
        ({"fingerprint": "0123456789ABCDEF"}, "is not 16 hex digits"),
        ({"fingerprint": 7}, "'fingerprint' must be str"),
        ({"created_by": None}, "'created_by' must be str"),
        ({"seed": -1}, "'seed' is -1"),
        ({"seed": 0.5}, "'seed' must be int"),
        ({"schema": []}, "no sequence feature"),
        ({"schema__0__dtype": "string"}, "schema[0]: feature 'frames': dtype 'string'"),
        ({"schema__1__element_mask": True}, "schema[1]: feature 'speaker': only a sequence of vec"),
        ({"schema__0__element_mask": True}, "buckets[0]: stride or offsets do not follow"),
        ({"schema__0__element_mask": 1}, "schema[0]: 'element_mask' must be bool, found 1"),
        ({"layout": "columns"}, "the layout 'columns' is neither 'strided' nor 'canonical'"),
        ({"layout": "canonical"}, "buckets[0]: stride or offsets do not follow"),
        ({"padding": "up"}, "the padding 'up' is none of ('right', 'left')"),
        ({"compression": "../x"}, "the compression '../x' is none of ('none', 'gzip')"),
        (
            {"compression": "gzip"},
            "00000-of-00002.tfrecord' is not 'train/len00004-00000-of-00002.t",
        ),
        ({"schema__0__name": "zebra"}, "feature names must be unique and sorted"),
        ({"varint_widths": {}}, "varint_widths: 'speaker' is missing"),
        ({"varint_widths__tokens": 11}, "varint_widths: 'tokens' is 11, outside [1, 10]"),
        ({"varint_widths__tokens": 3}, "buckets[0]: stride or offsets do not follow"),
        ({"buckets": []}, "buckets: there must be at least one bucket"),
        ({"buckets__0__max_length": 9}, "buckets must ascend"),
        ({"buckets__0__max_length": 2**25}, "buckets[0]: 'max_length' is 33554432, outside"),
        ({"buckets__1__stride": 1}, "buckets[1]: stride or offsets do not follow"),
        ({"buckets__2__fields__mask__offset": 0}, "buckets[2]: stride or offsets do not follow"),
        ({"accounts": []}, "'accounts' must be dict"),
        ({"accounts__../x": {}}, "'../x' cannot name a split"),
        ({"accounts__train__read": -1}, "accounts: train: 'read' is -1"),
        ({"accounts__train__dropped": {"empty": 1.5}}, "dropped: 'empty' must be int, found 1.5"),
        ({"accounts__train": ...}, "shards[0]: split 'train' or bucket 4 does not exist"),
        ({"plan_crc32c": 2**32}, "'plan_crc32c' is 4294967296, outside [0, 4294967295]"),
        ({"shards": {}}, "'shards' must be list"),
        ({"shards": [None]}, "shards[0]: expected an object, found NoneType"),
        ({"shards": [SHARD, SHARD]}, "a shard is listed twice"),
        ({"shards__0__name": "../../x.tfrecord"}, "shards[0]: the name '../../x.tfrecord' is not"),
        ({"shards__0__name": "/tmp/x"}, "shards[0]: the name '/tmp/x' is not 'train/len00004-"),
        ({"shards__0__split": "../x"}, "shards[0]: split '../x' or bucket 4 does not exist"),
        ({"shards__0__max_length": 5}, "shards[0]: split 'train' or bucket 5 does not exist"),
        ({"shards": [{**SHARD, "index": 2}]}, "shards[0]: index 2 is not below the count 2"),
        ({"shards__0__count": 0}, "shards[0]: 'count' is 0, outside [1,"),
        ({"shards__0__records": True}, "shards[0]: 'records' must be int, found True"),
        ({"shards__0__steps": -1}, "shards[0]: 'steps' is -1"),
        ({"shards__0__bytes": 2**63}, "shards[0]: 'bytes' is 9223372036854775808"),
        ({"shards__0__crc32c": ...}, "shards[0]: 'crc32c' is missing"),
    ],
)
def test_malformed_manifests_are_refused_with_the_place(load_edited, dataset, changes, message):
    with pytest.raises(ManifestError) as error:
        load_edited(**changes)

    assert str(error.value).startswith(f"{dataset.root / MANIFEST_NAME}: ")
    assert message in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_nesting_of_any_depth_is_refused(tmp_path, begin, end):
    path = tmp_path / MANIFEST_NAME
    for depth in range(sys.getrecursionlimit() - 150, sys.getrecursionlimit() + 20):
        nested = begin * depth + "1" + end * depth
        path.write_text(f'{{"format": "lengthwise-dataset", "version": 1, "x": {nested}}}')

        with pytest.raises(ManifestError):
            Manifest.load(tmp_path)


@settings(max_examples=150)
@given(st.data())
def test_a_hostile_manifest_is_refused_or_stays_in_its_folder(shared_dataset, mutated, data):
    document = data.draw(mutated(json.loads(shared_dataset.dumps())))
    with tempfile.TemporaryDirectory() as folder:
        load_hostile(Path(folder).resolve(), document)


def load_hostile(root, document):
    write(root, document)
    try:
        manifest = Manifest.load(root)
    except LengthwiseError as error:
        assert str(error).startswith(str(root))
        assert str(error).isprintable()
        assert verify(root) == [str(error)]
        return
    for shard in manifest.shards:
        path = Path(manifest.path_of(shard))
        assert path.resolve() == path
        assert path.parent.parent == manifest.data_folder == root / path.parent.parent.name
    for split in manifest.splits:
        assert manifest.records(split) >= 0
    # Nothing that it names is there.
    faults = verify(root)
    assert len(faults) >= len(manifest.shards)
    assert all(fault.startswith(str(root)) and fault.isprintable() for fault in faults)
    assert [path.name for path in root.iterdir()] == [MANIFEST_NAME]
