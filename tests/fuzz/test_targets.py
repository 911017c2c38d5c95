"""The fuzz targets hold for their seeds, for what fuzzing has found, and for a little damage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lengthwise.dataset import SourceOptions
from tests.fuzz.targets import EXAMPLE_COLUMNS, TARGETS, check_file, framed

# Found by the fuzzer, each in the shortest form.
FINDINGS = [
    # A return within the header: the csv module raises an error of its own.
    ("csv", b"id\tx\r\t1\r\na\t1\r\n"),
    # Names of columns with control characters made a message that is not printable.
    ("csv", b"ix\t\0\0x,y\na,1\n"),
    # A column of objects broke the rows beside a line of another fault.
    ("jsonl", b'{"x": [true], "k": {"a": [1]}}\n{"x": ["a"]}\n'),
]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_hold(name):
    seeds = TARGETS[name].seeds()
    assert seeds
    for seed in seeds:
        TARGETS[name].check(seed)


@pytest.mark.parametrize(("name", "data"), FINDINGS)
def test_findings_hold(name, data):
    TARGETS[name].check(data)


def test_columns_of_records_do_not_depend_on_how_the_file_is_cut():
    record, other = TARGETS["example"].seeds()[:2]
    check_file(framed([record, other]), SourceOptions(format="tfrecord"))
    check_file(framed([record, other]), SourceOptions(format="tfrecord"), EXAMPLE_COLUMNS)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=10)
@given(st.data())
def test_damaged_seeds_hold(name, data):
    damaged = bytearray(data.draw(st.sampled_from(TARGETS[name].seeds())))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    TARGETS[name].check(bytes(damaged))
