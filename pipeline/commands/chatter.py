"""Keeps quiet what libraries print below Python's reach."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_chatter() -> Iterator[None]:
    """Sends what is written to the process's standard error nowhere, unless `--verbose` was given.

    For the import of TensorFlow: its C++ code logs before it has read TF_CPP_MIN_LOG_LEVEL.
    Exceptions pass, so a failing import is still told.
    """
    if os.environ.get("LENGTHWISE_VERBOSE"):
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
