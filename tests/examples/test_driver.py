"""The whole way of one data set, with a package that lies in the cache."""

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

from examples import driver, movie_snippets
from examples.catalogue import EXAMPLES, Example
from examples.packages import Package

REPOSITORY = Path(__file__).resolve().parents[2]
SNIPPETS = "movieReviewSnippets_GroundTruth.txt"


def packed(name, content):
    """A tar.gz archive of one file, as bytes."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


def test_a_package_becomes_a_verified_dataset_and_a_line_of_the_table(tmp_path, capfd):
    lines = [f"{n}\t{n % 3 - 1}\t{'very ' * (n % 5)}good {n}\r\n" for n in range(480)]
    inner = packed(f"hutto/{SNIPPETS}", "".join(lines).encode())
    outer = packed("v-1/additional_resources/hutto_ICWSM_2014.tar.gz", inner)
    (tmp_path / "v-1.tar.gz").write_bytes(outer)
    example = Example(
        "tiny",
        inputs=("snippets.parquet",),
        options=("--sequence", "words", "--label", "sentiment", "--align", "1"),
        package=Package("v==1", "v-1.tar.gz", hashlib.sha256(outer).hexdigest()),
        members=movie_snippets.MEMBERS,
        inner_members=movie_snippets.INNER_MEMBERS,
        convert=movie_snippets.convert,
    )
    left_out = driver.prepare(example, cache=tmp_path, output=tmp_path / "out")
    assert left_out == 160
    dataset = driver.build(example, output=tmp_path / "out")
    assert "whole: 320 records" in capfd.readouterr().out
    # Lengths 2 to 6, 64 of each: 4 steps on average, all in 6 slots before, and as many after.
    assert driver.summary(dataset, left_out) == [
        *("320", "2 / 4 / 6 / 6", "5", "33.3% → 0.0%", "train 320", "160", "0"),
    ]


def test_every_example_is_of_its_own_name_and_pinned():
    assert len({example.name for example in EXAMPLES}) == len(EXAMPLES) == 5
    assert [example.name for example in EXAMPLES if example.package is None] == ["japanese_vowels"]


def test_columns_of_the_table_line_up():
    lines = driver.markdown([["a", *"12345678"], ["a longer name", *"12345678"]])
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith("| a             | 1 ")


def test_an_unknown_name_is_wrong_usage():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "driver.py", "plaids"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'plaids' is none of japanese_vowels, plaid" in done.stderr
