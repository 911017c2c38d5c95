"""Folders of save_to_disk, written as the library of Hugging Face writes them."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from lengthwise.dataset import InputError
from lengthwise.pipeline import FeatureNames, build
from lengthwise.pipeline.sources import SourceOptions, find_files
from tests.pipeline.sources.conftest import read_all

FEATURES = {
    "tokens": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "frames": {"shape": [None, 2], "dtype": "float32", "_type": "Array2D"},
    "picture": {"shape": [1, 2], "dtype": "int64", "_type": "Array2D"},
    "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
}


def save(folder, rows: int, *, files: int = 2) -> None:
    """Writes what `Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{files:05d}.arrow" for n in range(files)]
    for number, name in enumerate(names):
        part = range(number, rows, files)
        table = pa.table(
            {
                "tokens": [["a", "b"][: n % 3] for n in part],
                "frames": pa.array(
                    [[[n, n + 0.5]] * (n % 3) for n in part], pa.list_(pa.list_(pa.float32()))
                ),
                "picture": [[[n, n]] for n in part],
                "label": [n % 2 for n in part],
            },
        )
        # The library's types of arrays are extensions of Arrow that nobody else knows.
        fields = [
            table.schema.field(name).with_metadata(
                {"ARROW:extension:name": "datasets.features.features.Array2DExtensionType"}
            )
            if name in ("frames", "picture")
            else table.schema.field(name)
            for name in table.column_names
        ]
        info = json.dumps({"info": {"features": FEATURES}})
        schema = pa.schema(fields, metadata={"huggingface": info})
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            writer.write_table(table.cast(schema), max_chunksize=3)
    (folder / "state.json").write_text(
        json.dumps(
            {
                "_data_files": [{"filename": name} for name in names],
                "_fingerprint": "0123456789abcdef",
                "_format_columns": None,
                "_format_kwargs": {},
                "_format_type": None,
                "_output_all_columns": False,
                "_split": None,
            },
            indent=2,
        )
    )
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    # A cache of a `map`, which is no part of the data.
    (folder / "cache-0123.arrow").write_bytes(b"not to be read")


def save_splits(folder, **splits: int) -> None:
    for name, rows in splits.items():
        save(folder / name, rows)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))


def test_the_data_files_are_the_input(tmp_path):
    save(tmp_path / "saved", 8)
    files = find_files([str(tmp_path / "saved")])
    assert [file.name for file in files] == [
        "data-00000-of-00002.arrow",
        "data-00001-of-00002.arrow",
    ]
    assert {file.split for file in files} == {None}
    reading = read_all(files[1].path)
    assert [str(column.type) for column in reading.columns] == [
        "list<item: string>",
        "list<item: fixed_size_list<item: float>[2]>",
        "fixed_size_list<item: fixed_size_list<item: int64>[2]>[1]",
        "int64",
    ]
    assert reading.rows[0] == {
        "tokens": ["a"],
        "frames": [[1, 1.5]],
        "picture": [[1, 1]],
        "label": 1,
    }
    assert find_files([f"test={tmp_path}/saved"])[0].split == "test"


def test_a_dictionary_of_splits_gives_the_splits(tmp_path):
    save_splits(tmp_path / "saved", train=9, test=6)
    files = find_files([str(tmp_path / "saved")])
    assert {(file.name.split("/")[0], file.split) for file in files} == {
        ("train", "train"),
        ("test", "test"),
    }
    manifest = build(
        [tmp_path / "saved"],
        tmp_path / "out",
        names=FeatureNames(sequences=("frames",), labels=("label",), contexts=("picture",)),
    )
    assert manifest.accounts["train"].read == 9
    assert manifest.accounts["test"].read == 6
    with pytest.raises(InputError, match="has splits of its own; leave 'val=' out"):
        find_files([f"val={tmp_path}/saved"])


def test_the_format_can_be_asked_for(tmp_path):
    save(tmp_path / "saved", 4)
    options = SourceOptions(format="hf")
    assert len(find_files([str(tmp_path / "saved")], options)) == 2
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.arrow").write_bytes(b"")
    with pytest.raises(InputError, match="plain: no input file in this folder"):
        find_files([str(tmp_path / "plain")], options)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("state.json", '{"_data_files": [{"filename": "../other.arrow"}]}', "is no name of a file"),
        ("state.json", '{"_data_files": [{"filename": "/etc/passwd"}]}', "is no name of a file"),
        ("state.json", '{"_data_files": [{"filename": "a\\u0000"}]}', "is no name of a file"),
        ("state.json", '{"_data_files": [{"filename": "..\\\\a"}]}', "is no name of a file"),
        ("state.json", '{"_data_files": [{}]}', "is no name of a file"),
        ("state.json", "{}", "names no data files"),
        ("state.json", "[" * 100_000, "not valid JSON"),
        ("state.json", "[]", "not a JSON object"),
        ("state.json", '{"_indices_data_files": [{}], "_data_files": []}', "flatten_indices"),
        ("dataset_dict.json", '{"splits": [".."]}', "is no name of a file"),
        ("dataset_dict.json", '{"splits": ["nowhere"]}', "nowhere: no state.json"),
        ("dataset_dict.json", '{"splits": 3}', "names no splits"),
    ],
)
def test_documents_that_point_elsewhere_or_are_malformed_are_refused(tmp_path, name, text, says):
    save(tmp_path / "saved", 4)
    (tmp_path / "saved" / name).write_text(text)
    with pytest.raises(InputError, match=says):
        find_files([str(tmp_path / "saved")])
