"""The order of the rows of a shard, where their keys do not decide it."""

from __future__ import annotations

import numpy as np

from lengthwise.dataset.schema import LENGTH
from lengthwise.pipeline.exchange import _order
from lengthwise.transforms.packing import KEY


def test_rows_of_one_key_stand_by_length_and_then_as_in_the_input():
    places = np.zeros(6, np.dtype([(KEY, np.uint64), (LENGTH, np.int32)]))
    places[KEY] = [7, 2**64 - 1, 7, 1, 7, 7]
    places[LENGTH] = [5, 1, 3, 9, 5, 3]
    assert _order(places).tolist() == [3, 2, 5, 0, 4, 1]
