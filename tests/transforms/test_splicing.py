"""Splices: rows stand between the parts of records, byte by byte, wherever they came from."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.transforms.row_places import SPAN, spans_in
from lengthwise.transforms.splicing import Insert, splice


def spans_of_all(rows: list[np.ndarray]) -> np.ndarray:
    """Where rows are that lie all over the memory."""
    return np.array([(row.ctypes.data, row.nbytes) for row in rows], SPAN)


@given(st.data(), st.sampled_from(["right", "left"]))
def test_records_are_parts_rows_and_padding(data, side):
    n, width = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 6))
    ats = sorted(data.draw(st.lists(st.integers(0, width), max_size=3)))
    sizes = [data.draw(st.integers(0, 4)) for _ in ats]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    parts = rng.integers(0, 256, (n, width), np.uint8)
    paddings = [rng.integers(0, 256, size, np.uint8) for size in sizes]
    columns = [
        [rng.integers(0, 256, rng.integers(0, size + 1), np.uint8) for _ in range(n)]
        for size in sizes
    ]

    records = splice(
        parts,
        [
            Insert(at, spans_of_all(rows), padding)
            for at, rows, padding in zip(ats, columns, paddings, strict=True)
        ],
        side=side,
    )

    assert records.shape == (n, width + sum(sizes))
    for i, record in enumerate(records):
        expected, start = b"", 0
        for at, rows, padding in zip(ats, columns, paddings, strict=True):
            row = rows[i].tobytes()
            pad = padding[: len(padding) - len(row)].tobytes()
            expected += parts[i, start:at].tobytes()
            expected += pad + row if side == "left" else row + pad
            start = at
        assert record.tobytes() == expected + parts[i, start:].tobytes()


def test_rows_without_bytes_may_be_nowhere():
    nowhere = Insert(1, np.zeros(2, SPAN), np.array([5, 6], np.uint8))
    assert splice(np.full((2, 2), 9, np.uint8), [nowhere]).tolist() == [[9, 5, 6, 9]] * 2


def test_records_can_be_written_to():
    rows = np.arange(4, dtype=np.uint8)
    insert = Insert(1, spans_in(rows, np.array([0, 2, 4])), np.zeros(2, np.uint8))

    records = splice(np.full((2, 2), 9, np.uint8), [insert])
    records[:, -1] = 7

    assert records.tolist() == [[9, 0, 1, 7], [9, 2, 3, 7]]
    assert rows.tolist() == [0, 1, 2, 3]
