"""A worker process of the local runner: Beam's own, without its chatter on the user's terminal."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator

# Set by `lengthwise --verbose`; inherited by the worker processes.
VERBOSE = "LENGTHWISE_VERBOSE"
# Between two looks at what a worker is at, which Beam reports; nobody reads it here.
_SAMPLING_MS = 10


def main() -> None:
    """Serves a runner until it closes the connection."""
    if not os.environ.get(VERBOSE):
        logging.disable(logging.ERROR)
    from apache_beam.runners.worker import sdk_worker_main

    gc.freeze()  # see `run_pipeline`
    with bundles_end_soon():
        sdk_worker_main.main(sys.argv)


@contextlib.contextmanager
def bundles_end_soon() -> Iterator[None]:
    """Spares each bundle that ends inside the wait for the next sample of Beam's states.

    Beam takes one every fifth of a second, and ends no bundle before its sampler has woken up; it
    has no option for that.
    """
    from apache_beam.runners.worker import statesampler

    method = statesampler.StateSampler.__init__
    usual = getattr(method, "__defaults__", None)
    if usual != (getattr(statesampler, "DEFAULT_SAMPLING_PERIOD_MS", None),):
        # Somebody else does it, or another Beam.
        yield
        return
    method.__defaults__ = (_SAMPLING_MS,)
    try:
        yield
    finally:
        method.__defaults__ = usual


if __name__ == "__main__":
    main()
