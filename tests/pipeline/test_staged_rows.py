"""What a damaged staging file says is never followed out of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lengthwise.dataset import OutputError
from lengthwise.pipeline import staged_rows
from lengthwise.pipeline.staged_rows import StagedRows, StagedUnit
from lengthwise.pipeline.staging import unit_places_path, unit_rows_path
from lengthwise.transforms.row_places import gather_rows, place_dtype

_ROWS = pa.record_batch(
    {
        "key": pa.array([1, 2, 3], pa.uint64()),
        "x": pa.array([b"ab" * 50, None, b"c" * 101], pa.large_binary()),
    }
)


@pytest.fixture
def staging(tmp_path):
    path = unit_rows_path(str(tmp_path), 0)
    path.parent.mkdir()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _ROWS.schema) as writer:
        writer.write_batch(_ROWS)
    return tmp_path


def referred(staging: Path):
    unit = StagedUnit(str(staging), 0)
    ((_, reference),) = unit.write_places(
        [(rows, np.zeros(3, np.int64)) for rows in unit.chunks()], staging
    )
    return reference


def test_places_lead_to_the_rows(staging):
    places, _held = StagedRows(str(staging), staging).places([referred(staging)])
    assert gather_rows(places).to_pylist() == _ROWS.to_pylist()


def test_rows_of_many_windows_are_copied_part_by_part(tmp_path, monkeypatch):
    units, expected, references = 3, [], []
    for number in range(units):
        path = unit_rows_path(str(tmp_path), number)
        path.parent.mkdir(exist_ok=True)
        rows = pa.record_batch(
            {
                "key": pa.array(range(8), pa.uint64()),
                "x": pa.array([bytes([number, i]) * 40_000 for i in range(8)], pa.large_binary()),
            }
        )
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_batch(rows)
        unit = StagedUnit(str(tmp_path), number)
        shards = np.array([0, 1] * 4)
        found = unit.write_places([(chunk, shards) for chunk in unit.chunks()], tmp_path)
        references.append(found[1][1])
        expected += rows.take(pa.array([1, 3, 5, 7])).to_pylist()
    parts = []
    monkeypatch.setattr(staged_rows, "_TOUCHED_WINDOWS", 5)
    monkeypatch.setattr(
        staged_rows, "gather_rows", lambda part: parts.append(len(part)) or gather_rows(part)
    )

    places, _held = StagedRows(str(tmp_path), tmp_path).places(references)

    assert gather_rows(places).to_pylist() == expected
    assert sum(parts) == len(expected)
    assert len(parts) > units


@pytest.mark.parametrize(
    ("address", "size"),
    [(-1, 1), (0, 1 << 40), (1 << 62, 1 << 62), (2**63 - 1, 2)],
    ids=["before", "too large", "sum past int64", "end past int64"],
)
def test_places_that_point_out_of_the_files(staging, address, size):
    reference = referred(staging)
    path = unit_places_path(staging, 0)
    places = np.fromfile(path, place_dtype(_ROWS.schema))
    places["x"]["address"][0], places["x"]["size"][0] = address, size
    places.tofile(path)
    with pytest.raises(OutputError, match="staged rows are damaged; delete this folder"):
        StagedRows(str(staging), staging).places([reference])


def test_places_that_run_from_one_file_into_the_other(staging):
    reference = referred(staging)
    path = unit_places_path(staging, 0)
    places = np.fromfile(path, place_dtype(_ROWS.schema))
    places["x"]["address"][0] = unit_rows_path(str(staging), 0).stat().st_size - 1
    places["x"]["size"][0] = 2
    places.tofile(path)
    with pytest.raises(OutputError, match="staged rows are damaged"):
        StagedRows(str(staging), staging).places([reference])


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_places_that_are_cut_off(staging, kept):
    reference = referred(staging)
    path = unit_places_path(staging, 0)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(OutputError, match="staged rows are damaged"):
        StagedRows(str(staging), staging).places([reference])


def test_rows_whose_offsets_point_out_of_the_file(staging):
    path = unit_rows_path(str(staging), 0)
    data = path.read_bytes()
    offsets = np.array([0, 100, 100, 201], np.int64).tobytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, np.array([0, 100, 100, 1 << 40], np.int64).tobytes()))
    with pytest.raises(OutputError, match="staged rows are damaged"):
        list(StagedUnit(str(staging), 0).chunks())


@pytest.mark.parametrize("kept", [0, 100])
def test_rows_that_are_cut_off(staging, kept):
    path = unit_rows_path(str(staging), 0)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(OutputError, match="staged rows are damaged"):
        list(StagedUnit(str(staging), 0).chunks())
