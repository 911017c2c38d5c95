"""JSON Lines: types from the first lines, a row a line, broken lines found one by one."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.dataset import InputError
from lengthwise.pipeline.sources import InputFile, SourceOptions, agree_on_columns, open_file
from lengthwise.pipeline.sources.fitting import with_shape
from tests.pipeline.sources.conftest import read_all


def lines_of(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def types_of(reading) -> dict[str, str]:
    return {column.name: str(column.type) for column in reading.columns}


def test_types_are_inferred(write):
    path = write(
        "a.jsonl",
        lines_of(
            [
                {"i": [1, 2], "f": [1, 2.5], "s": ["a"], "b": [True], "v": [[1, 2.5], [3, 4]]},
                {"label": 3, "name": "x", "weight": 1, "m": [[[1], [2]], [[3], [4]]]},
                {"weight": 0.5, "nothing": None, "empty": []},
            ]
        ),
    )
    reading = read_all(path)
    assert types_of(reading) == {
        "i": "list<item: int64>",
        "f": "list<item: double>",
        "s": "list<item: string>",
        "b": "list<item: bool>",
        "v": "list<item: fixed_size_list<item: double>[2]>",
        "label": "int64",
        "name": "string",
        "weight": "double",
        "m": "list<item: fixed_size_list<item: fixed_size_list<item: int64>[1]>[2]>",
        "nothing": "null",
        "empty": "list<item: double>",
    }
    assert reading.rows[0]["v"] == [[1, 2.5], [3, 4]]
    assert reading.rows[1]["m"] == [[[1], [2]], [[3], [4]]]
    assert reading.rows[2]["weight"] == 0.5
    assert reading.rows[2]["i"] is None
    assert reading.broken == {}


def test_nulls_stay_nulls(write):
    path = write("a.jsonl", '{"x": [1, null], "v": [[1, null], null, [2, 3]]}\n{"x": null}\n')
    reading = read_all(path)
    assert reading.rows[0] == {"x": [1, None], "v": [[1, None], None, [2, 3]]}
    assert reading.rows[1] == {"x": None, "v": None}


def test_a_sequence_without_a_value_is_of_its_declared_type(write):
    path = write("a.jsonl", '{"x": [1], "s": null}\n{"x": [2], "s": null}\n')
    options = SourceOptions(sequences=("x", "s"), types={"s": "string"})
    reading = read_all(path, options)
    assert reading.columns.field("s").type == pa.list_(pa.string())
    assert [row["s"] for row in reading.rows.values()] == [None, None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"x": [1, 2]', "broken line"),
        ("[1, 2]", "broken line"),
        ("null", "broken line"),
        ("{'x': [1]}", "broken line"),
        ('{"x": [1]} {"x": [2]}', "broken line"),
        ('{"x": [1]} null {"x": [2]}', "broken line"),
        ('{"x": [1]}, ', "broken line"),
        ('{"x": [1], "x": [2]}', "broken line"),
        ('{"x": [NULL]}', "broken line"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "broken line"),
        ('{"y": ' + '{"y":' * 100_000 + "1" + "}" * 100_001, None),
        ('{"x": 1}', "wrong type"),
        ('{"x": ["1"]}', "wrong type"),
        ('{"x": [[1]]}', "wrong type"),
        ('{"x": [true]}', "wrong type"),
        ('{"v": [1, 2]}', "wrong type"),
        ('{"s": [1]}', "wrong type"),
        ('{"x": [9223372036854775808]}', "integer out of range"),
        ('{"x": [-9223372036854775808, 9223372036854775807]}', None),
        ('{"v": [[1, 2], [3]]}', "ragged inner vectors"),
        ('{"v": [[1, 2, 3]]}', "ragged inner vectors"),
        ('{"v": [[]]}', "ragged inner vectors"),
        ('{"v": [[1e999, 2]]}', "infinite, or beyond float32"),
        (b'{"s": ["\xff"]}', "not UTF-8"),
        ('{"s": ["\\ud800"]}', "broken line"),
        ('  {"x": [1]}\t\r', None),
    ],
)
def test_a_broken_line_is_named_and_the_others_are_read(write, line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    good = b'{"x": [1, 2], "v": [[1.5, 2]], "s": ["a", "b"]}\n'
    path = write("a.jsonl", good * 20 + line + b"\n" + good * 20)
    reading = read_all(path)
    assert reading.broken == ({} if reason is None else {20: reason})
    assert list(reading.rows) == [n for n in range(41) if n != 20 or reason is None]
    assert all(reading.rows[n]["x"] == [1, 2] for n in reading.rows if n != 20)
    if reason is not None:
        assert reading.named[0].raw == line.decode("utf-8", "backslashreplace")[:1000]


def test_an_object_over_two_lines_never_shifts_the_rows_after_it(write):
    path = write("a.jsonl", '{"x": [1]}\n{"x":\n[2]}\n{"x": [3]}{"x": [4]}\n{"x": [5]}\n')
    reading = read_all(path)
    assert {n: row["x"] for n, row in reading.rows.items()} == {0: [1], 4: [5]}
    assert reading.broken == {1: "broken line", 2: "broken line", 3: "broken line"}


def test_blank_lines_are_no_rows_but_have_numbers(write):
    path = write("a.jsonl", '\n{"x": [1]}\r\n\r\n   \n{"x": [2]}')
    reading = read_all(path)
    assert {n: row["x"] for n, row in reading.rows.items()} == {1: [1], 4: [2]}
    assert reading.broken == {}
    assert reading.source.rows == 5


def test_a_byte_order_mark_is_no_part_of_the_first_line(write):
    path = write("a.jsonl", b"\xef\xbb\xbf" + b'{"x": [1]}\n{"x": [2]}\n')
    reading = read_all(path)
    assert list(reading.rows) == [0, 1]
    assert reading.broken == {}
    path = write("b.jsonl.gz", gzip.compress(path.read_bytes()))
    assert read_all(path).rows == reading.rows


def test_utf16_is_refused(write):
    path = write("a.jsonl", '{"x": [1]}\n'.encode("utf-16"))
    with pytest.raises(InputError, match=r"a\.jsonl: is UTF-16 text; convert it to UTF-8"):
        read_all(path)


ROW = {"x": [1], "y": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            json.dumps([ROW]),
            r"a\.json: begins with a list; JSON Lines .*: run `jq -c '\.\[\]' FILE",
        ),
        (
            "\n" + json.dumps([ROW], indent=2),
            "begins with a list; JSON Lines have one object a line",
        ),
        (json.dumps(ROW, indent=2), r"an object over several lines; .*: run `jq -c \. FILE > rows"),
        ('{"x": [1],\r\n\r\n "y": 2}\r\n', "begins with an object over several lines"),
        (
            f'{{"data": [\n{json.dumps(ROW)}\n]}}',
            "over several lines; .* '.NAME\\[]' for a list in",
        ),
    ],
    ids=["a list in a line", "a list", "an object", "by hand", "a list in an object"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_json_of_another_form_is_refused_with_a_way_out(write, text, says, pack):
    path = write("a.json", pack(text.encode()))
    with pytest.raises(InputError, match=says) as refused:
        read_all(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "first", ["{", '{"x": [1,', '{"x": [1], "y', '{"x": [1]', '{"x": [', "null", ","]
)
def test_a_first_line_that_was_cut_off_is_a_broken_row_and_no_other_form(write, first):
    reading = read_all(write("a.jsonl", f"{first}\n{json.dumps(ROW)}\n"))
    assert (list(reading.rows), list(reading.broken)) == ([1], [0])


def test_broken_lines_before_good_ones_are_no_other_form(write):
    reading = read_all(write("a.jsonl", f'{{"x": [1],\n"x"\n{json.dumps(ROW)}\n'))
    assert (list(reading.rows), list(reading.broken)) == ([2], [0, 1])


def test_columns_that_are_not_asked_for_may_be_anything(write):
    rows = [{"x": [1], "other": other} for other in (1, "a", {"b": [{}]}, [[1], 2], None)]
    path = write("a.jsonl", lines_of(rows))
    reading = read_all(path, columns=["x"])
    assert len(reading.rows) == 5
    assert reading.broken == {}


def test_files_agree_on_types(write):
    texts = [
        '{"x": [1, 2], "v": [], "n": null}\n',
        '{"x": [1.5], "v": [[1, 2]], "n": "a", "late": 3}\n',
        "",
    ]
    paths = [write(f"{i}.jsonl", text) for i, text in enumerate(texts)]
    options = SourceOptions()
    files = agree_on_columns([open_file(InputFile(str(p), p.name), options) for p in paths])
    assert {str(file.columns) for file in files} == {
        "x: list<item: double>\n  child 0, item: double\n"
        "v: list<item: fixed_size_list<item: int64>[2]>\n"
        "  child 0, item: fixed_size_list<item: int64>[2]\n      child 0, item: int64\n"
        "n: string\nlate: int64"
    }
    assert [file.rows for file in files] == [1, 1, 0]


def test_types_can_be_given(write):
    path = write("a.jsonl", '{"x": [1, 2], "v": [[1, 2]], "s": null}\n{"x": [0.5], "s": "a"}\n')
    options = SourceOptions(types={"x": "int", "v": "float", "s": "string", "absent": "int"})
    reading = read_all(path, options)
    assert types_of(reading) == {
        "x": "list<item: int64>",
        "v": "list<item: fixed_size_list<item: double>[2]>",
        "s": "string",
    }
    assert reading.broken == {1: "wrong type"}


@pytest.mark.parametrize("values", [[[]], [None], [[], None], [[None], []]])
def test_a_sequence_without_a_value_is_of_its_declared_shape(write, values):
    paths = [
        write("a.jsonl", lines_of([{"x": [[[1, 2, 3], [4, 5, 6]]]}])),
        write("b.jsonl", lines_of([{"x": value} for value in values])),
    ]
    for types in ({}, {"x": "int"}):
        options = SourceOptions(types=types, shapes={"x": (2, 3)}, sequences=("x",))
        files = [open_file(InputFile(str(path), path.name), options) for path in paths]
        first, second = (file.columns.field("x").type for file in agree_on_columns(files))
        assert first == second == pa.list_(with_shape(pa.int64(), (2, 3)))


def test_shapes_and_roles_decide_what_lists_of_lists_are(write):
    path = write("a.jsonl", '{"a": [[1, 2]], "b": [1, 2], "c": [1, 2], "d": [[]]}\n')
    options = SourceOptions(shapes={"a": (1, 2), "b": (2,), "d": (3,)}, contexts=("c",))
    assert types_of(read_all(path, options)) == {
        "a": "fixed_size_list<item: fixed_size_list<item: int64>[2]>[1]",
        "b": "fixed_size_list<item: int64>[2]",
        "c": "fixed_size_list<item: int64>[2]",
        "d": "list<item: fixed_size_list<item: double>[3]>",
    }


def test_a_line_past_the_limit_is_broken_and_the_rest_is_read(write):
    long = json.dumps({"x": list(range(400))})
    text = lines_of([{"x": [1]}, {"x": [2]}]) + long + "\n" + lines_of([{"x": [3]}]) + long
    path = write("a.jsonl", text)
    for limit in (300, len(long) - 1):
        reading = read_all(path, SourceOptions(max_row_bytes=limit))
        assert reading.broken == {2: "row too large", 4: "row too large"}
        assert {n: row["x"] for n, row in reading.rows.items()} == {0: [1], 1: [2], 3: [3]}
        assert reading.named[0].raw == long[:1000]
    assert len(read_all(path, SourceOptions(max_row_bytes=3200)).rows) == 5


def test_a_column_has_one_type_in_all_of_the_file(write, monkeypatch):
    monkeypatch.setattr("lengthwise.pipeline.sources.jsonl._INFERRED_BYTES", 100)
    path = write("a.jsonl", lines_of([{"x": [1]}] * 50 + [{"x": [1.5]}] + [{"x": [2]}] * 50))
    reading = read_all(path)
    assert reading.broken == {50: "wrong type"}
    assert len(reading.rows) == 100


@given(
    rows=st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {
                    "x": st.lists(st.integers(-(2**63), 2**63 - 1) | st.none()),
                    "v": st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2)),
                    "s": st.lists(st.text(max_size=4)),
                }
            ).map(lambda row: json.dumps(row).encode()),
            st.sampled_from([b"", b"  ", b"{", b"null", b'{"x": "y"}', b'{"v": [[1]]}', b"\xff"]),
            st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")),
        ),
        max_size=12,
    ),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
    unit_bytes=st.integers(1, 400),
    batch_rows=st.none() | st.integers(1, 4),
    block_bytes=st.integers(1, 300),
)
def test_any_cut_gives_the_same_rows(
    tmp_path_factory, rows, ending, last, unit_bytes, batch_rows, block_bytes
):
    head = b'{"x": [1, null], "v": [[1.5, 2.5]], "s": ["a"]}'
    data = ending.join([head, *rows]) + (ending if last else b"")
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.write_bytes(data)
    whole = read_all(path)
    for line, text in enumerate(data.split(b"\n")):
        try:
            row = json.loads(text)
            assert text.strip(b" \t\r\n")
        except (ValueError, AssertionError):
            assert line not in whole.rows
            continue
        if line in whole.rows and "s" in row:
            expected = {name: row[name] for name in ("x", "s", "v")}
            np.testing.assert_equal(whole.rows[line], expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lengthwise.pipeline.sources.jsonl._BLOCK_BYTES", block_bytes)
        cut = read_all(path, SourceOptions(unit_bytes=unit_bytes), batch_rows=batch_rows)
    np.testing.assert_equal(cut.rows, whole.rows)
    assert cut.broken == whole.broken
    assert cut.source.identity == whole.source.identity


def test_vectors_keep_their_bits(write):
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 0, 7)]
    path = write("a.jsonl", lines_of([{"v": row.astype(float).tolist()} for row in rows]))
    reading = read_all(path)
    for number, row in enumerate(rows):
        found = np.array(reading.rows[number]["v"], np.float32).reshape(-1, 3)
        np.testing.assert_array_equal(found, row)
    assert pa.types.is_fixed_size_list(reading.columns.field("v").type.value_type)


tokens = st.sampled_from(
    [
        *('{"x": [1, 2]}', '{"v": [[1, 2.5]]}', '{"s": ["a"]}', '{"o": {"p": [NaN, null]}}'),
        *("{", "}", "[", "]", ",", ":", '"', '"x"', '"v"', '"s"', '"o"', "null", "true", "Inf"),
        *("Infinity", "-Infinity", "NaN", "1", "-0", "01", "1.", "1e999", "9" * 19, "\\ud800"),
        *("\t", "\x01", "\x00", " ", "é", "[" * 3000, "]" * 3000, '{"x":' * 3000),
    ]
)


@given(st.lists(tokens, min_size=1, max_size=8).map("".join), st.binary(max_size=1))
def test_python_sees_no_fault_in_what_arrow_reads(text, byte):
    from lengthwise.pipeline.sources.json_types import fault_of
    from lengthwise.pipeline.sources.jsonl import _Parser

    columns = pa.schema(
        [
            ("x", pa.list_(pa.int64())),
            ("v", pa.list_(pa.list_(pa.float64(), 2))),
            ("s", pa.list_(pa.string())),
        ]
    )
    line = text.encode() + byte.replace(b"\n", b"")
    # What does not begin and end as an object does never comes before Arrow's parser.
    if line.strip(b" \t\r")[:1] + line.strip(b" \t\r")[-1:] == b"{}" and fault_of(line, columns):
        assert _Parser(columns)._rows(line, 1) is None
