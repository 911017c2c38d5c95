"""A program ends, whatever is still being read ahead."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np

from lengthwise.model.python_calls import _Calls, call_from_tensorflow

PROGRAM = """
import sys
from lengthwise.model import read_dataset, streams

streams._CHUNK_BATCHES = 1
# A name of the module lives until Python has begun to take itself apart.
iterator = iter(read_dataset(sys.argv[1], batch_size=1, epochs=50).prefetch(1000))
next(iterator)
"""


def test_a_program_ends_while_an_iterator_reads_ahead(write_dataset, make_rows):
    path = write_dataset({"train": make_rows(40)}, max_lengths=[12])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], timeout=120, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_end_waits_for_a_call_that_is_under_way():
    calls, entered, leave = _Calls(), threading.Event(), threading.Event()

    def call():
        with calls:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=call)
    thread.start()
    entered.wait()
    waiting = threading.Thread(target=calls.wait_for_rest)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    leave.set()
    waiting.join()
    thread.join()
    assert calls.running == 0


def test_numbers_of_tensorflow_come_as_python_has_them():
    assert call_from_tensorflow(type)(np.int64(3)) is int
