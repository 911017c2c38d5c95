"""`scripts/cluster`: a Flink cluster of separate processes on the loopback network.

    scripts/cluster up        starts it: a JobManager, two TaskManagers with a pool of Python
                              workers beside each, a job server; says how to run a job on it
    scripts/cluster status    what runs
    scripts/cluster down      ends it and leaves nothing

It takes Java 11 or later, and Maven to get the jars. Ports and folder come from the environment:
LENGTHWISE_CLUSTER_REST_PORT (8081), _RPC_PORT (6123), _JOB_PORT (8099), _POOL_PORT (50000) and
LENGTHWISE_CLUSTER_FOLDER (.cluster in the repository). `up` ends with 3 where the programs cannot
be had.
"""

from __future__ import annotations

import sys

from tests.cluster.pieces import MissingPieceError, find_pieces
from tests.cluster.processes import NAMES, Cluster, ClusterError

UNAVAILABLE = 3


def main() -> int:
    commands = {"up": up, "status": status, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return commands[sys.argv[1]](Cluster.from_environment())
    except ClusterError as reason:
        print(f"cluster: {reason}", file=sys.stderr)
        return 1


def up(cluster: Cluster) -> int:
    if any(cluster.pid(name) for name in NAMES):
        raise ClusterError("it is up already; see scripts/cluster status")
    try:
        pieces = find_pieces(cluster.folder)
    except MissingPieceError as reason:
        cluster.down()
        print(f"cluster: not started: {reason}", file=sys.stderr)
        return UNAVAILABLE
    print(pieces.title)
    try:
        cluster.up(pieces)
    except BaseException:
        cluster.down()
        raise
    return status(cluster)


def status(cluster: Cluster) -> int:
    for name in NAMES:
        pid = cluster.pid(name)
        print(f"{name:<14} {f'process {pid}' if pid else 'does not run'}")
    overview = cluster.rest.overview()
    if overview is None:
        print("the JobManager does not answer")
        return 1
    print(
        f"Flink {overview['flink-version']}: {overview['taskmanagers']} TaskManagers, "
        f"{overview['slots-available']} of {overview['slots-total']} slots free, "
        f"{overview['jobs-running']} jobs run"
    )
    print(f"run a job: lengthwise build … --runner FlinkRunner -- {' '.join(cluster.beam_args)}")
    return 0


def down(cluster: Cluster) -> int:
    cluster.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
