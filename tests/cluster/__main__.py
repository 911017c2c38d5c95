"""`scripts/cluster`: a Flink cluster of separate processes on the loopback network.

    scripts/cluster up        starts it: a JobManager, two TaskManagers with a pool of Python
                              workers beside each, a job server; says how to run a job on it
    scripts/cluster status    what runs
    scripts/cluster prism     has Go build Prism, Beam's own runner, of the installed Beam
    scripts/cluster test      jobs and faults on every runner that is here
    scripts/cluster down      ends it and leaves nothing

It takes Java 11 or later, and Maven to get the jars. Ports and folder come from the environment:
LENGTHWISE_CLUSTER_REST_PORT (8081), _RPC_PORT (6123), _JOB_PORT (8099), _POOL_PORT (50000) and
LENGTHWISE_CLUSTER_FOLDER (.cluster in the repository). `up` ends with 3 where the programs cannot
be had, and `prism` where Go cannot build it. `test` takes the Prism that was built, or that of
LENGTHWISE_PRISM or PATH. `test --write` writes the table of docs/cluster.md; `overhead` measures
what Flink costs beside the local runner and writes that.
"""

from __future__ import annotations

import sys

from tests.cluster.pieces import MissingPieceError, build_prism, find_pieces, find_prism
from tests.cluster.processes import NAMES, Cluster, ClusterError

UNAVAILABLE = 3


def main() -> int:
    commands = {
        "up": up,
        "status": status,
        "prism": prism,
        "test": test,
        "test --write": lambda cluster: test(cluster, write=True),
        "overhead": overhead,
        "down": down,
    }
    command = commands.get(" ".join(sys.argv[1:]))
    if command is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return command(Cluster.from_environment())
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


def prism(cluster: Cluster) -> int:
    try:
        print(build_prism(cluster.folder))
    except MissingPieceError as reason:
        print(f"cluster: Prism is not built: {reason}", file=sys.stderr)
        return UNAVAILABLE
    return 0


def test(cluster: Cluster, *, write: bool = False) -> int:
    from tests.cluster.flink_trials import FlinkTrials
    from tests.cluster.page import show_rows
    from tests.cluster.trials import Trials, local_rows

    require_up(cluster)
    trials = Trials(cluster.folder / "trials")
    flink = FlinkTrials(trials, cluster).row()
    show_rows([*local_rows(trials, find_prism(cluster.folder)), flink], cluster.title, write=write)
    for failure in trials.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if trials.failures else 0


def overhead(cluster: Cluster) -> int:
    from tests.cluster.overhead import measure

    require_up(cluster)
    measure(cluster)
    return 0


def require_up(cluster: Cluster) -> None:
    if not all(cluster.pid(name) for name in NAMES):
        raise ClusterError("it is not up; see scripts/cluster up")


def down(cluster: Cluster) -> int:
    cluster.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
