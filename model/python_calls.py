"""Calls that TensorFlow's threads make into Python, and what becomes of them when Python ends.

An iterator that is still alive at the end of a program reads ahead. Python stops every thread that
asks for the interpreter from then on, in the middle of the call; TensorFlow waits for the call when
it destroys the iterator; and the program would never end. So the end waits until reading ahead has
come to rest, which is when its buffer is full.
"""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

# Between two calls of a thread that reads ahead there is less time than this.
_REST_SECONDS = 0.1
# Somebody may read without end.
_MOST_SECONDS = 10.0

_Result = TypeVar("_Result")


class _Calls:
    """The calls that are under way, and when the last one ended."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = -float("inf")
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.running += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.running -= 1
            self.ended = time.monotonic()

    def wait_for_rest(self) -> None:
        deadline = time.monotonic() + _MOST_SECONDS
        while self.running or time.monotonic() - self.ended < _REST_SECONDS:
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)


_calls = _Calls()
atexit.register(_calls.wait_for_rest)


def call_from_tensorflow(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """A function that may be called by TensorFlow, with scalars as arguments."""

    @functools.wraps(function)
    def call(*arguments: Any) -> _Result:
        with _calls:
            return function(*(int(argument) for argument in arguments))

    return call
