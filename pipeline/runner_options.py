"""What Lengthwise tells a runner of Beam that the user has left open.

    runner                             workers                            how many at once
    FlinkRunner, SparkRunner with a    a pool beside each node, at        all slots of Flink,
    master; any job server             localhost:50000 (EXTERNAL)         or what Spark chooses
    PrismRunner; Flink or Spark in     threads of the command itself      what the runner chooses
    the process of the job server      (LOOPBACK)
    any other                          what the runner chooses            what the runner chooses

Whatever the user says comes first.
"""

from __future__ import annotations

import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence

from lengthwise.dataset.errors import LengthwiseError, UsageError

POOL = "localhost:50000"
# Runners of Beam that need a cluster or a job server.
_FLINK, _SPARK, _PRISM, _PORTABLE = "FlinkRunner", "SparkRunner", "PrismRunner", "PortableRunner"
# Their GroupByKey holds everything in the memory of this machine.
IN_MEMORY = frozenset(("local", "DirectRunner", "FnApiRunner", _PRISM))
_SECONDS = 10.0


def left_open(runner: str, beam_args: Sequence[str]) -> tuple[str, ...]:
    """The options that a job is given in addition to the user's.

    Args:
        runner: `local`, or the name of a runner of Beam.
        beam_args: the user's options, as in `--flink_master=…`.

    Raises:
        UsageError: no job server is named where one is needed.
        LengthwiseError: the user names a master or a job server, and it cannot be reached.

    Example:
        >>> left_open("PrismRunner", ["--prism_location=/opt/prism"])
        ('--environment_type=LOOPBACK',)
        >>> left_open("PrismRunner", ["--environment_type=DOCKER"])
        ()
    """
    runner = runner.rpartition(".")[2]
    if runner not in (_FLINK, _SPARK, _PRISM, _PORTABLE):
        return ()
    given = {
        name.lstrip("-"): value for name, _, value in (arg.partition("=") for arg in beam_args)
    }
    endpoint = given.get("job_endpoint")
    if endpoint == "embed":
        return ()
    if runner == _PORTABLE and endpoint is None:
        raise UsageError("--runner PortableRunner needs -- --job_endpoint=HOST:PORT, a job server")
    if endpoint is not None:
        _require_answer(endpoint, 8099, "the job server (--job_endpoint)")
    told = []
    master = _master(runner, given)
    if master is None and endpoint is None:
        environment = ["--environment_type=LOOPBACK"]
    else:
        environment = ["--environment_type=EXTERNAL", f"--environment_config={POOL}"]
        if "environment_config" in given:
            environment = environment[:1]
    if not given.keys() & {"environment_type", "sdk_container_image"}:
        told += environment
    if runner == _FLINK and master is not None:
        slots = _flink_slots(master)
        if slots and "parallelism" not in given:
            told.append(f"--parallelism={slots}")
    elif runner == _SPARK and master is not None:
        _require_answer(master, 7077, "Spark's master (--spark_master_url)")
    return tuple(told)


def _master(runner: str, given: dict[str, str]) -> str | None:
    """The address of the cluster; None if the runner starts one of its own in this process."""
    if runner == _FLINK:
        master = given.get("flink_master", "[auto]").strip()
        return None if master in ("[auto]", "[local]") else master
    if runner == _SPARK:
        master = given.get("spark_master_url", "local").strip()
        return None if master.startswith("local") else master
    return None


def _flink_slots(master: str) -> int | None:
    """How many tasks the cluster runs at once; None if the master answers, but does not say."""
    url = master if "://" in master else f"http://{master}"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/overview", timeout=_SECONDS) as answer:
            slots = json.load(answer).get("slots-total")
    except OSError as reason:
        raise LengthwiseError(
            f"Flink's master (--flink_master) at {master} cannot be reached: "
            f"{getattr(reason, 'reason', reason)}; name the address of its REST interface"
        ) from None
    except (ValueError, AttributeError):
        return None
    return slots if isinstance(slots, int) and slots > 0 else None


def _require_answer(address: str, port: int, who: str) -> None:
    """Raises LengthwiseError where nothing listens; Beam itself would try for a minute."""
    parts = urllib.parse.urlsplit(address if "://" in address else f"//{address}")
    try:
        socket.create_connection(
            (parts.hostname or "localhost", parts.port or port), timeout=_SECONDS
        ).close()
    except (OSError, ValueError) as reason:
        raise LengthwiseError(
            f"{who} at {address} cannot be reached: {getattr(reason, 'strerror', None) or reason}"
        ) from None
