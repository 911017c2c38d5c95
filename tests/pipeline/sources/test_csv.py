"""CSV in long form: the lines of a group are a row, however the file is cut."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import InputError
from lengthwise.pipeline.sources import InputFile, SourceOptions, agree_on_columns, open_file
from lengthwise.pipeline.sources.groups import GroupAssembler
from tests.pipeline.sources.conftest import read_all

BY_ID = SourceOptions(group_by="id")
TYPES = (pa.string(), pa.int64(), pa.string())

HEART = """id,t,rate,ok,label
a,0,60.5,true,0
a,1,61,false,0
b,0,,true,1
c,2,70,true,0
c,1,71.5,,0
c,0,72,true,0
"""


def types_of(reading) -> dict[str, str]:
    return {column.name: str(column.type) for column in reading.columns}


def test_lines_of_a_group_are_a_row(write):
    reading = read_all(write("a.csv", HEART), BY_ID)
    assert types_of(reading) == {
        "id": "string",
        "t": "list<item: int64>",
        "rate": "list<item: double>",
        "ok": "list<item: bool>",
        "label": "int64",
    }
    assert reading.rows == {
        0: {"id": "a", "t": [0, 1], "rate": [60.5, 61], "ok": [True, False], "label": 0},
        1: {"id": "b", "t": [0], "rate": [None], "ok": [True], "label": 1},
        2: {
            "id": "c",
            "t": [2, 1, 0],
            "rate": [70, 71.5, 72],
            "ok": [True, None, True],
            "label": 0,
        },
    }
    assert reading.source.rows == 3


def test_order_by_sorts_within_the_group(write):
    reading = read_all(write("a.csv", HEART), SourceOptions(group_by="id", order_by="t"))
    assert reading.rows[2]["t"] == [0, 1, 2]
    assert reading.rows[2]["rate"] == [72, 71.5, 70]
    assert reading.rows[0]["rate"] == [60.5, 61]


@pytest.mark.parametrize(
    ("times", "order"),
    [
        (["10", "9", "-1"], [2, 1, 0]),
        (["1.5", "1e3", "2", "2.0"], [0, 2, 3, 1]),
        (["2020-01-02", "2020-01-01 10:00:00", "2020-01-01"], [2, 1, 0]),
        (["2020-01-01T00:00:00Z", "2019-12-31T23:00:00-02:00"], [0, 1]),
        (["9007199254740993", "9007199254740992.0", "9007199254740994"], [1, 0, 2]),
    ],
)
def test_order_is_numeric_or_by_time(write, times, order):
    other = "z,3,0\nz,20,1\nz,2020,2\n"
    lines = "".join(f"a,{time},{n}\n" for n, time in enumerate(times))
    options = SourceOptions(group_by="id", order_by="when")
    for text in (lines, lines + other, other + lines):
        reading = read_all(write("a.csv", "id,when,x\n" + text), options, columns=["x"])
        assert order in [row["x"] for row in reading.rows.values()]
        assert reading.broken == {}


def test_groups_that_cannot_be_ordered_are_broken(write):
    text = "id,t,x\na,1,1\na,,2\nb,1,3\nb,soon,4\nc,2,5\nc,1,6\nd,nan,1\nd,1,1\n"
    options = SourceOptions(group_by="id", order_by="t")
    reading = read_all(write("a.csv", text), options, columns=["id", "x"])
    assert reading.rows == {2: {"id": "c", "x": [6, 5]}}
    missing = "null in the column of the order"
    assert reading.broken == {0: missing, 1: "wrong type", 3: missing}
    assert reading.named[0].raw == "a"


def test_the_column_of_the_order_may_be_a_feature_too(write):
    text = "id,t,x\na,2,1\na,1,2\nb,3,1\nb,,2\n"
    reading = read_all(write("a.csv", text), SourceOptions(group_by="id", order_by="t"))
    assert reading.rows == {0: {"id": "a", "t": [1, 2], "x": [2, 1]}}
    assert reading.broken == {1: "null in the column of the order"}


def test_a_group_that_comes_again_is_refused_with_its_line(write):
    path = write("a.csv", "id,x\na,1\na,2\nb,3\nb,1\n\na,4\nc,5\n")
    message = r"a\.csv: line 7: id 'a' comes again after other groups; sort the file by 'id'"
    with pytest.raises(InputError, match=message):
        read_all(path, BY_ID)
    packed = write("b.csv.gz", gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="line 7: id 'a' comes again"):
        read_all(packed, BY_ID)


def test_a_context_that_changes_breaks_its_group(write):
    text = "id,x,label\n" + "a,1,5\na,2,5\n" + "b,1,6\nb,2,7\n" + "c,3,\nc,1,\n" + "d,1,\nd,1,8\n"
    options = SourceOptions(group_by="id", contexts=("label",))
    reading = read_all(write("a.csv", text), options)
    assert reading.rows == {
        0: {"id": "a", "x": [1, 2], "label": 5},
        2: {"id": "c", "x": [3, 1], "label": None},
    }
    changes = "context changes within the group"
    assert reading.broken == {1: changes, 3: changes}


def test_roles_can_be_given(write):
    path = write("a.csv", "id,x,y\na,1,1\nb,2,2\n")
    assert types_of(read_all(path, BY_ID))["x"] == "list<item: int64>"
    options = SourceOptions(group_by="id", contexts=("y",))
    assert types_of(read_all(path, options))["y"] == "int64"
    path = write("b.csv", "id,x,y\na,1,1\na,1,2\n")
    options = SourceOptions(group_by="id", sequences=("x",))
    assert types_of(read_all(path, options))["x"] == "list<item: int64>"


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_with_one_step_a_row_says_nothing_of_roles(write, order):
    text = "id,x,y\na,1,3\na,2,3\n"
    paths = [write("a.csv", text), write("b.csv", "id,x,y\nb,1,4\nc,2,5\n")][::order]
    for options, y in ((BY_ID, "int64"), (replace(BY_ID, sequences=("y",)), "list<item: int64>")):
        files = agree_on_columns([open_file(InputFile(str(p), p.name), options) for p in paths])
        for file in files:
            found = {column.name: str(column.type) for column in file.columns}
            assert found == {"id": "string", "x": "list<item: int64>", "y": y}


def test_files_agree_on_roles(write):
    paths = [
        write("a.csv", "id,x,y\na,1,1\na,2,1\n"),
        write("b.csv", "id,x,y\na,1,1\na,1.5,2\nb,1,1\n"),
    ]
    files = agree_on_columns([open_file(InputFile(str(p), p.name), BY_ID) for p in paths])
    for file in files:
        assert [str(column.type) for column in file.columns] == [
            "string",
            "list<item: double>",
            "list<item: int64>",
        ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("b,1", "broken line"),
        ("b,1,2,3", "broken line"),
        ('b,"1,2', "broken line"),
        ("b,1,2\rb,2,3", "broken line"),
        ("b,x,2", "wrong type"),
        ("b,9223372036854775808,2", "integer out of range"),
        (b"b,1,\xff", "not UTF-8"),
        ("b,-9223372036854775808,2", None),
        ('"b","1","a ""word"""', None),
        ('b,1,5 " disks', None),
        ("   ", None),
    ],
)
def test_a_broken_line_breaks_its_group_and_no_other(write, line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    head = b"id,n,s\n" + b"".join(b"a%d,1,x\na%d,2,y\n" % (n, n) for n in range(20))
    tail = b"".join(b"c%d,1,x\nc%d,2,y\n" % (n, n) for n in range(20))
    path = write("a.csv", head + b"b,1,x\n" + line + b"\nb,2,z\n" + tail)
    options = SourceOptions(group_by="id", sequences=("n", "s"))
    reading = read_all(path, options)
    assert reading.broken == ({} if reason is None else {20: reason})
    assert len(reading.rows) == (41 if reason is None else 40)
    assert all(row["n"] == [1, 2] for n, row in reading.rows.items() if n != 20)
    if reason is not None:
        assert reading.named[0].raw == line.decode("utf-8", "backslashreplace")


def test_a_line_without_an_id_belongs_to_the_line_before_it(write):
    path = write("a.csv", "id,n\nbroken\na,1\na,2\n,\nb,1\nbroken\nc,1\n")
    reading = read_all(path, SourceOptions(group_by="id", sequences=("n",)))
    assert reading.broken == {0: "broken line", 2: "broken line"}
    assert reading.rows == {1: {"id": "", "n": [None]}, 3: {"id": "c", "n": [1]}}


def test_missing_values(write):
    path = write("a.csv", "id,x,s\na,1.5,\na,NA,x\na,nan,NA\na,null,\n")
    reading = read_all(path, BY_ID)
    x = reading.rows[0]["x"]
    assert x[:2] == [1.5, None]
    assert x[2] != x[2]
    assert x[3] is None
    assert reading.rows[0]["s"] == [None, "x", "NA", None]


def test_types_are_those_of_the_first_values(write):
    text = (
        "id,i,f,s,b,n,big\na,1,1,x,true,,1\nb,2,1.5,2,false,NA,9223372036854775808\n"
        "c,x,x,3,x,,2\nd,3,2.5,4,TRUE,,3\n"
    )
    options = SourceOptions(group_by="id", sequences=("i", "f", "s", "b", "n", "big"))
    reading = read_all(write("a.csv", text), options)
    assert types_of(reading) == {
        "id": "string",
        "i": "list<item: int64>",
        "f": "list<item: double>",
        "s": "list<item: string>",
        "b": "list<item: bool>",
        "n": "list<item: double>",
        "big": "list<item: int64>",
    }
    assert reading.broken == {1: "integer out of range", 2: "wrong type"}
    options = SourceOptions(group_by="id", types={"i": "string", "f": "string", "b": "string"})
    reading = read_all(write("a.csv", text), options, columns=["i", "f", "b"])
    assert reading.rows[2] == {"i": ["x"], "f": ["x"], "b": ["x"]}


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_types_are_found_past_a_line_that_is_no_text(write):
    options = SourceOptions(group_by="id", sequences=("word", "x"))
    text = b"id,word,x\na,one,1\na,\xff\xfe,1,1\nb,one,1\nb,two,2\n"
    reading = read_all(write("a.csv", text), options)
    assert types_of(reading)["word"] == "list<item: string>"
    assert reading.rows == {1: {"id": "b", "word": ["one", "two"], "x": [1, 2]}}
    assert reading.broken == {0: "broken line"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_told_from_the_header(write, delimiter):
    path = write("a.csv", HEART.replace(",", delimiter))
    assert read_all(path, BY_ID).rows == read_all(write("b.csv", HEART), BY_ID).rows


def test_tsv(write):
    path = write("a.tsv", "id\ttoken\na\tone, two\na\tb\n")
    assert read_all(path, BY_ID).rows == {0: {"id": "a", "token": ["one, two", "b"]}}


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (HEART, SourceOptions(), "say with --group-by which column .* are: id, t, rate, ok, label"),
        (HEART, SourceOptions(group_by="name"), "no column 'name'; columns are: id, t, rate"),
        (HEART, SourceOptions(group_by="id", order_by="when"), "no column 'when'"),
        ("", BY_ID, "line 1 must name the columns, each once"),
        ("id,x,x\n", BY_ID, "line 1 must name the columns, each once, found 'id,x,x'"),
        ("id,,x\n", BY_ID, "line 1 must name the columns"),
        (b"id,\xff\n", BY_ID, "line 1: is not UTF-8"),
    ],
)
def test_headers_that_do_not_fit_are_refused(write, text, options, says):
    with pytest.raises(InputError, match=f"a\\.csv: .*{says}"):
        read_all(write("a.csv", text), options)


def test_a_group_past_the_limit_is_broken(write):
    small, large = "a,1\na,2\n", "b,1\n" * 500
    path = write("a.csv", "id,x\n" + small + large + "c,3\n")
    # An integer takes 8 bytes, more than its line.
    assert read_all(path, SourceOptions(group_by="id", max_row_bytes=8 * 510)).broken == {}
    for limit in (8 * 500 - 1, 1000):
        reading = read_all(path, SourceOptions(group_by="id", max_row_bytes=limit))
        assert reading.broken == {1: "row too large"}
        assert reading.rows[2] == {"id": "c", "x": [3]}


def test_a_group_past_the_limit_is_not_kept_and_does_not_come_out_short(write, monkeypatch):
    monkeypatch.setattr("lengthwise.pipeline.sources.csv._BLOCK_BYTES", 200)
    kept, add = [], GroupAssembler.add

    def watched(self, block, lines):
        yield from add(self, block, lines)
        kept.append(sum(steps.num_rows for steps in self._open.steps))

    monkeypatch.setattr(GroupAssembler, "add", watched)
    path = write("a.csv", "id,x\n" + "a,1\n" + "b,1\n" * 5000 + "c,3\n")
    reading = read_all(path, SourceOptions(group_by="id", sequences=("x",), max_row_bytes=1000))
    assert reading.broken == {1: "row too large"}
    assert reading.named[0].raw == "b"
    assert reading.rows == {0: {"id": "a", "x": [1]}, 2: {"id": "c", "x": [3]}}
    assert max(kept) < 1000 / 4 + 200


def test_a_line_past_the_limit_breaks_its_group(write):
    long = "b," + "1" * 500 + "\n"
    for text, broken in (
        ("a,1\n" + long, 0),
        (long + "a,1\n", 0),
        ("a,1\nb,1\n" + long + "b,2\nc,1\n", 1),
        ("a,1\n" + long + "c,2\n", 0),
    ):
        for unit_bytes in (1, 1 << 20):
            options = SourceOptions(
                group_by="id", sequences=("x",), max_row_bytes=100, unit_bytes=unit_bytes
            )
            reading = read_all(write("a.csv", "id,x\n" + text), options)
            assert reading.broken == {broken: "row too large"}
            assert len(reading.rows) + 1 == reading.source.rows


def rows_by_hand(text: str) -> dict[int, dict]:
    lines = list(csv.reader(io.StringIO(text)))[1:]
    groups = itertools.groupby((line for line in lines if line), key=lambda line: line[0])
    return {
        number: {
            "id": id_,
            "x": [None if line[1] == "" else int(line[1]) for line in group],
            "s": [line[2] or None for line in group],
        }
        for number, (id_, group) in enumerate((id_, list(group)) for id_, group in groups)
    }


@given(
    lines=st.lists(
        st.sampled_from(
            ["a,1", "a,2", "b,1", "b,2", "c,x", "d,1", "d", "", " ", 'e,"1', "f,1,2", "b", "g,"]
        ),
        max_size=14,
    ),
    unit_bytes=st.integers(1, 40),
    block_bytes=st.integers(1, 30),
    max_row_bytes=st.integers(5, 30),
)
def test_any_cut_gives_the_same_broken_groups(
    tmp_path_factory, lines, unit_bytes, block_bytes, max_row_bytes
):
    path = tmp_path_factory.getbasetemp() / "broken.csv"
    path.write_text("\n".join(["id,x", *lines]))

    def read(**cut):
        options = SourceOptions(
            group_by="id", sequences=("x",), types={"x": "int"}, max_row_bytes=max_row_bytes, **cut
        )
        try:
            reading = read_all(path, options)
        except InputError as reason:
            return str(reason)
        return reading.rows, reading.broken, reading.source.rows, sorted(map(repr, reading.named))

    whole = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lengthwise.pipeline.sources.csv._BLOCK_BYTES", block_bytes)
        assert read(unit_bytes=unit_bytes) == whole
    if not isinstance(whole, str):
        rows, broken, count, _ = whole
        assert sorted([*rows, *broken]) == list(range(count or 0))


@given(
    groups=st.lists(
        st.lists(
            st.tuples(
                st.just("") | st.integers(-(2**63), 2**63 - 1).map(str),
                st.text(alphabet='ab," é', max_size=3),
            ),
            min_size=1,
            max_size=5,
        ),
        max_size=8,
    ),
    ids=st.permutations(["a", "b", "c", "d,", 'e"', "", "g", "é"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    unit_bytes=st.integers(1, 60),
    block_bytes=st.integers(1, 60),
    batch_rows=st.none() | st.integers(1, 3),
    compressed=st.booleans(),
)
def test_any_cut_gives_the_rows_that_python_sees(
    tmp_path_factory, groups, ids, ending, last, unit_bytes, block_bytes, batch_rows, compressed
):
    file = io.StringIO()
    writer = csv.writer(file, lineterminator=ending)
    writer.writerow(["id", "x", "s"])
    for id_, group in zip(ids, groups, strict=False):
        writer.writerows([id_, x, s] for x, s in group)
    text = file.getvalue() if last or not groups else file.getvalue().removesuffix(ending)
    path = tmp_path_factory.getbasetemp() / "cut.csv"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    options = SourceOptions(group_by="id", sequences=("x", "s"), unit_bytes=unit_bytes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lengthwise.pipeline.sources.csv._BLOCK_BYTES", block_bytes)
        # Types are those of all lines together: one that is never an integer is no part of this.
        patch.setattr(
            "lengthwise.pipeline.sources.csv.infer_types",
            lambda block, header, options: dict(zip(header.names, TYPES, strict=True)),
        )
        reading = read_all(path, options, batch_rows=batch_rows)
    assert reading.broken == {}
    assert reading.rows == rows_by_hand(text)
