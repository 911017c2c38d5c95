"""Which files are the input, here and behind URLs."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import InputError
from lengthwise.pipeline import FeatureNames, build
from lengthwise.pipeline.sources import SourceOptions, find_files, status_of
from lengthwise.pipeline.sources.files import format_of_name
from lengthwise.pipeline.sources.locations import file_system
from tests.pipeline.conftest import folder_digest, ragged_table
from tests.pipeline.sources.conftest import read_all
from tests.pipeline.sources.object_store import serve_bucket


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names_of(*inputs, **options) -> list[str]:
    return [file.name for file in find_files([str(i) for i in inputs], SourceOptions(**options))]


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.parquet", "parquet"),
        ("a.PQ", "parquet"),
        ("a.feather", "arrow"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson.zst", "jsonl"),
        ("a.csv.gz", "csv"),
        ("a.tab", "tsv"),
        ("a.txt", "text"),
        ("a.tfrecord-00001-of-00003", "tfrecord"),
        ("a.tfrecords.gz", "tfrecord"),
        ("s3://bucket/a.csv?region=x", "csv"),
        ("a.gz", None),
        ("csv", None),
    ],
)
def test_suffixes(name, format_):
    assert format_of_name(name) == format_


def test_files_of_a_folder_that_are_hidden_or_notes_do_not_count(tmp_path):
    touch(
        tmp_path,
        *("b.jsonl", "sub/a.jsonl", "notes.txt", "config.json", "README.md", "_SUCCESS"),
        *(".hidden.jsonl", "_part.jsonl", ".cache/c.jsonl", "_temporary/d.jsonl"),
    )
    assert names_of(tmp_path) == ["b.jsonl", "sub/a.jsonl"]


def test_with_a_format_its_files_and_those_without_a_suffix_count(tmp_path):
    touch(tmp_path, "a.txt", "b.jsonl", "part-00000", "c.parquet")
    assert names_of(tmp_path, format="text") == ["a.txt", "part-00000"]
    assert names_of(tmp_path, format="parquet") == ["c.parquet", "part-00000"]


def test_several_formats_in_a_folder_are_refused(tmp_path):
    touch(tmp_path, "a.csv", "a.parquet")
    with pytest.raises(InputError, match=r"files of several formats: csv .* choose with --format"):
        names_of(tmp_path)
    assert names_of(tmp_path, format="csv") == ["a.csv"]
    assert names_of(tmp_path / "*.csv", tmp_path / "*.parquet") == ["a.csv", "a.parquet"]


def test_a_file_may_not_have_two_splits(tmp_path):
    touch(tmp_path, "a.csv")
    with pytest.raises(InputError, match="is named for split 'train' and for 'test'; name it once"):
        names_of(f"train={tmp_path}/a.csv", f"test={tmp_path}/*.csv")


@pytest.fixture
def three_files(tmp_path) -> Path:
    for number, name in enumerate(("a.parquet", "b.parquet", "sub/c.parquet")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(ragged_table(20, seed=number), tmp_path / "in" / name)
    touch(tmp_path, "in/_hidden/d.parquet", "in/notes.txt")
    return tmp_path / "in"


def test_urls_are_files_globs_and_folders_too(three_files):
    url = f"file://{three_files}"
    assert names_of(url) == ["a.parquet", "b.parquet", "sub/c.parquet"]
    assert names_of(f"{url}/*.parquet") == ["a.parquet", "b.parquet"]
    assert names_of(f"{url}/**/*.parquet", format="parquet")[-1] == "sub/c.parquet"
    assert names_of(f"{url}/[ab].parquet") == ["a.parquet", "b.parquet"]
    assert names_of(f"{url}/a.parquet", f"{url}/sub") == ["a.parquet", "sub/c.parquet"]
    (found,) = find_files([f"test={url}/a.parquet"])
    assert (found.path, found.split) == (f"{url}/a.parquet", "test")
    assert status_of(found.path) == status_of(str(three_files / "a.parquet"))


@pytest.mark.parametrize("pattern", ["nowhere.parquet", "nowhere/", "*.nothing", "nowhere/*"])
def test_urls_of_nothing_are_refused(three_files, pattern):
    with pytest.raises(InputError, match=r"no such file|cannot be listed"):
        names_of(f"file://{three_files}/{pattern}")


@pytest.mark.parametrize("url", ["ftp://host/a.csv", "nonsense://x"])
def test_urls_that_no_file_system_knows_are_refused(url):
    with pytest.raises(InputError, match=f"{url}: cannot be reached: Unrecognized"):
        names_of(url)


def test_inputs_in_different_file_systems_are_refused(three_files):
    with pytest.raises(InputError, match="are in different file systems"):
        names_of(f"file://{three_files}/a.parquet", three_files / "b.parquet")


def test_a_build_from_urls_gives_the_same_bytes(three_files, tmp_path):
    names = FeatureNames(sequences=("frames", "tokens"))
    build([three_files], tmp_path / "paths", names=names)
    build([f"file://{three_files}"], tmp_path / "urls", names=names)
    assert folder_digest(tmp_path / "urls") == folder_digest(tmp_path / "paths")


@pytest.mark.parametrize("what", ["folder", "file", "glob"])
def test_a_url_may_write_spaces_and_letters_as_percents(tmp_path, what):
    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("é x.jsonl", "100% %41.jsonl"):
        (folder / name).write_bytes(LINES)
    place = {"folder": folder, "file": folder / "100% %41.jsonl", "glob": folder / "*.jsonl"}[what]
    build([place], tmp_path / "paths")
    url = place.as_uri().replace("%2A", "*")
    assert "%20" in url
    build([url], tmp_path / "urls")
    assert folder_digest(tmp_path / "urls") == folder_digest(tmp_path / "paths")


@pytest.fixture
def bucket():
    """A file system in memory, which is not this machine's: no shortcut works."""
    system, _ = file_system("mock:///")
    system.create_dir("bucket")
    yield system
    system.delete_dir_contents("", missing_dir_ok=True, accept_root_dir=True)


LINES = "".join(f'{{"x": [{n}, {n}.5]}}\n' for n in range(100)).encode()


def test_a_file_system_without_paths_on_this_machine(bucket):
    for name in ("a.jsonl", "sub/b.jsonl", "sub/_c.jsonl"):
        bucket.create_dir("bucket/sub")
        with bucket.open_output_stream(f"bucket/{name}") as file:
            file.write(LINES)
    files = find_files(["mock:///bucket"])
    assert [(file.name, file.path) for file in files] == [
        ("a.jsonl", "mock:///bucket/a.jsonl"),
        ("sub/b.jsonl", "mock:///bucket/sub/b.jsonl"),
    ]
    reading = read_all(files[0].path, SourceOptions(unit_bytes=200))
    assert len(reading.source.units) > 5
    assert [row["x"] for row in reading.rows.values()] == [[n, n + 0.5] for n in range(100)]


def test_a_bucket_is_read_by_byte_ranges(three_files, tmp_path, monkeypatch):
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    lines = three_files / "lines" / "a.jsonl"
    lines.parent.mkdir()
    lines.write_bytes(LINES)
    names = FeatureNames(sequences=("frames", "tokens"))
    with serve_bucket(tmp_path, "bucket") as (query, ranges):
        url = f"s3://bucket/in/*.parquet{query}"
        build([url], tmp_path / "out", names=names)
        assert [file.name for file in find_files([url])] == ["a.parquet", "b.parquet"]
        (found,) = find_files([f"test=s3://bucket/in/lines{query}"])
        assert (found.name, found.split) == ("a.jsonl", "test")
        del ranges[:]
        options = SourceOptions(unit_bytes=500)
        assert read_all(found.path, options).rows == read_all(lines).rows
        assert len(ranges) > 4
        with pytest.raises(InputError, match="no such file or folder"):
            find_files([f"s3://bucket/nowhere{query}"])
    build([three_files / "*.parquet"], tmp_path / "same", names=names)
    assert folder_digest(tmp_path / "out") == folder_digest(tmp_path / "same")
