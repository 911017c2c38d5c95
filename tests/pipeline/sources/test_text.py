"""Plain text: a line is a row, whatever the tokens."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import InputError
from lengthwise.pipeline.sources import SourceOptions
from tests.pipeline.sources.conftest import read_all


def expected_tokens(line: bytes, tokens: str) -> list | None:
    """What Python says a line is; None where it is not UTF-8."""
    line = line.removesuffix(b"\r")
    if tokens == "bytes":
        return list(line)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return list(text) if tokens == "characters" else text.split()


def test_words(write):
    path = write("a.txt", "to be  or\tnot\n\n  to be \r\nein\u3000Wort\n")
    reading = read_all(path)
    assert [row["tokens"] for row in reading.rows.values()] == [
        ["to", "be", "or", "not"],
        [],
        ["to", "be"],
        ["ein", "Wort"],
    ]


def test_characters_are_code_points(write):
    path = write("a.txt", "né 日本\n\n🎻\r\n")
    reading = read_all(path, SourceOptions(tokens="characters"))
    assert [row["tokens"] for row in reading.rows.values()] == [
        ["n", "é", " ", "日", "本"],
        [],
        ["🎻"],
    ]


def test_bytes_are_ids(write):
    path = write("a.txt", b"ab\xff\x00\n\nc")
    reading = read_all(path, SourceOptions(tokens="bytes"))
    assert [row["tokens"] for row in reading.rows.values()] == [[97, 98, 255, 0], [], [99]]
    assert reading.columns.field("tokens").type == pa.list_(pa.uint8())


def test_a_line_that_is_not_utf8_is_broken(write):
    path = write("a.txt", b"one two\n\xff\xfe three\nfour\n")
    for tokens in ("whitespace", "characters"):
        reading = read_all(path, SourceOptions(tokens=tokens))
        assert reading.broken == {1: "not UTF-8"}
        assert reading.named[0].raw == "\\xff\\xfe three"
        assert list(reading.rows) == [0, 2]


def test_an_empty_file_has_no_rows(write):
    reading = read_all(write("a.txt", ""))
    assert reading.source.rows == 0
    assert reading.rows == {}


def test_a_line_past_the_limit_is_broken(write):
    path = write("a.txt", b"a b\n" + b"x" * 5000 + b"\nc\n")
    for tokens in ("whitespace", "characters", "bytes"):
        reading = read_all(path, SourceOptions(tokens=tokens, max_row_bytes=4999))
        assert reading.broken == {1: "row too large"}
        assert list(reading.rows) == [0, 2]


def test_the_identity_follows_every_byte(write):
    first = read_all(write("a.txt", b"a" * 9999 + b"\n")).source.identity
    second = read_all(write("b.txt", b"a" * 5000 + b"b" + b"a" * 4998 + b"\n")).source.identity
    assert first != second


def test_a_file_that_is_shorter_than_when_it_was_scanned(write, monkeypatch):
    from lengthwise.pipeline.sources import InputFile, open_file, read_unit

    path = write("a.txt", "a b\n" * 100)
    options = SourceOptions(unit_bytes=100)
    source = open_file(InputFile(str(path), "a.txt"), options)
    path.write_text("a b\n" * 50)
    with pytest.raises(InputError, match="the file has become shorter"):
        for unit in source.units:
            list(read_unit(unit, source.columns, options))
    path.write_text("a  b\n\n" * 100)
    with pytest.raises(InputError, match="the file was changed, run again"):
        for unit in source.units:
            list(read_unit(unit, source.columns, options))


line = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"")) | st.text(
    alphabet="ab \t\r\u3000é日🎻\u2028\x1c", max_size=8
).map(lambda text: text.encode())


@given(
    lines=st.lists(line, max_size=20),
    last=st.booleans(),
    tokens=st.sampled_from(["whitespace", "characters", "bytes"]),
    unit_bytes=st.integers(1, 60),
    block_bytes=st.integers(1, 60),
    batch_rows=st.none() | st.integers(1, 4),
    compressed=st.booleans(),
)
def test_any_cut_gives_the_rows_that_python_sees(
    tmp_path_factory, lines, last, tokens, unit_bytes, block_bytes, batch_rows, compressed
):
    data = b"\n".join(lines) + (b"\n" if last and lines else b"")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff", b"\x1f\x8b"):
        data = b" " + data
    path = tmp_path_factory.getbasetemp() / "cut.txt"
    path.write_bytes(gzip.compress(data) if compressed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lengthwise.pipeline.sources.text._BLOCK_BYTES", block_bytes)
        options = SourceOptions(tokens=tokens, unit_bytes=unit_bytes)
        reading = read_all(path, options, batch_rows=batch_rows)
    seen = data.split(b"\n")
    if not seen[-1]:
        seen.pop()
    expected = {number: expected_tokens(text, tokens) for number, text in enumerate(seen)}
    assert reading.broken == {n: "not UTF-8" for n, row in expected.items() if row is None}
    assert {n: row["tokens"] for n, row in reading.rows.items()} == {
        n: row for n, row in expected.items() if row is not None
    }
