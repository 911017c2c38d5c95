"""A worker process of the local runner: Beam's own, without its chatter on the user's terminal."""

from __future__ import annotations

import gc
import logging
import os
import sys

# Set by `lengthwise --verbose`; inherited by the worker processes.
VERBOSE = "LENGTHWISE_VERBOSE"


def main() -> None:
    """Serves a runner until it closes the connection."""
    if not os.environ.get(VERBOSE):
        logging.disable(logging.ERROR)
    from apache_beam.runners.worker import sdk_worker_main

    gc.freeze()  # see `run_pipeline`
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
