"""Beam's worker pool at an address: starts a Python worker whenever a TaskManager asks for one.

    python -m tests.cluster.worker_pool HOST:PORT FOLDER

Beam's own `worker_pool_main` takes a port and binds it at every address, so there can be one on a
machine; here each TaskManager has an address and a pool of its own. Workers are `python` of PATH.
FOLDER is the cluster's, named so that the process can be told from others.
"""

from __future__ import annotations

import sys

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from apache_beam.utils import thread_pool_executor


def main() -> None:
    server = grpc.server(
        thread_pool_executor.shared_unbounded_instance(),
        # As Beam's own pool: a TaskManager that waits for long may ping as often as it likes.
        options=[("grpc.http2.max_pings_without_data", 0), ("grpc.http2.max_ping_strikes", 0)],
    )
    if not server.add_insecure_port(sys.argv[1]):
        sys.exit(f"{sys.argv[1]} is taken")
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(
        BeamFnExternalWorkerPoolServicer(use_process=True), server
    )
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
