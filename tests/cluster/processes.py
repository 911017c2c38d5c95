"""The cluster's processes: started, found again, killed, and all of them gone at the end.

    job server 127.0.0.1 ──▶ JobManager 127.0.0.1 ──┬──▶ TaskManager 127.0.0.2 ──▶ pool 127.0.0.2
                                                    └──▶ TaskManager 127.0.0.3 ──▶ pool 127.0.0.3

Beam tells all TaskManagers the same address of a worker pool, `localhost:PORT`: on a cluster of
machines each then finds the pool beside it. Here both are on one machine, so each TaskManager has
an address of the loopback network of its own, and a file of host names of its own that says that
`localhost` is this address.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.flink_rest import FlinkRest
from tests.cluster.pieces import JAVA_OPTIONS, MAIN_CLASS, Pieces

REPOSITORY = Path(__file__).resolve().parents[2]
FLINK = "org.apache.flink.runtime."
JOB_MANAGER, JOB_SERVER = "jobmanager", "jobserver"
TASK_MANAGERS = {"taskmanager-1": "127.0.0.2", "taskmanager-2": "127.0.0.3"}
POOLS = {"pool-1": "127.0.0.2", "pool-2": "127.0.0.3"}
NAMES = (JOB_MANAGER, *TASK_MANAGERS, *POOLS, JOB_SERVER)
_MASTER = "127.0.0.1"
_SLOTS = 2  # of a TaskManager
_MEMORY = {
    # What Flink's shell scripts would work out of one figure; a TaskManager takes 1.4 GiB in all.
    "jobmanager.memory.process.size": "1200m",
    "taskmanager.cpu.cores": "2",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.heap.size": "384m",
    "taskmanager.memory.task.off-heap.size": "128m",
    "taskmanager.memory.network.min": "64m",
    "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.managed.size": "256m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "128m",
    "taskmanager.memory.jvm-overhead.max": "128m",
}
_JAVA_MEMORY = {
    "jobmanager": ("-Xmx640m",),
    "taskmanager": ("-Xmx512m", "-XX:MaxDirectMemorySize=320m", "-XX:MaxMetaspaceSize=256m"),
    "jobserver": ("-Xmx512m",),
}


class ClusterError(Exception):
    """The cluster does not do what it should."""


@dataclass(frozen=True)
class Ports:
    """The ports that others know; each comes from `LENGTHWISE_CLUSTER_<NAME>_PORT`."""

    rest: int = 8081
    rpc: int = 6123
    job: int = 8099
    pool: int = 50000

    @staticmethod
    def from_environment() -> Ports:
        """The usual ports, or those of the environment."""
        named = {
            name: os.environ.get(f"LENGTHWISE_CLUSTER_{name.upper()}_PORT")
            for name in ("rest", "rpc", "job", "pool")
        }
        return Ports(**{name: int(port) for name, port in named.items() if port})


class Cluster:
    """A Flink cluster of five processes and the job server, below one folder.

    Args:
        folder: everything that the cluster writes; made by `up`, removed by `down`.
        ports: the ports.
    """

    def __init__(self, folder: Path, ports: Ports) -> None:
        self.folder = folder
        self.ports = ports
        self.rest = FlinkRest(f"{_MASTER}:{ports.rest}")

    @staticmethod
    def from_environment() -> Cluster:
        """The cluster of this repository, or the one that the environment names."""
        folder = os.environ.get("LENGTHWISE_CLUSTER_FOLDER") or REPOSITORY / ".cluster"
        return Cluster(Path(folder).resolve(), Ports.from_environment())

    @property
    def beam_args(self) -> list[str]:
        """What a command has to be told after `--`."""
        args = [f"--flink_master={_MASTER}:{self.ports.rest}"]
        args.append(f"--job_endpoint={_MASTER}:{self.ports.job}")
        if self.ports.pool != Ports.pool:
            args.append(f"--environment_config=localhost:{self.ports.pool}")
        return args

    def pid(self, name: str) -> int | None:
        """The process of that name, if it lives."""
        try:
            pid = int((self.folder / "pids" / name).read_text())
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError):
            return None
        # Numbers of processes are used again; ours have the folder in their command.
        return pid if str(self.folder) in command else None

    def up(self, pieces: Pieces) -> None:
        """Starts everything and waits until it answers; ClusterError with the reason if not."""
        for name, (address, port) in self._addresses().items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError:
                    raise ClusterError(f"{address}:{port} for the {name} is taken") from None
        for part in ("pids", "commands", "logs", "conf", "tmp"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self._write_configuration(pieces)
        (self.folder / "title").write_text(pieces.title)
        for name in NAMES:
            (self.folder / "commands" / name).write_text(json.dumps(self._command(name, pieces)))
            self.start(name)
        self.wait_until_ready()

    @property
    def title(self) -> str:
        """Which Flink with which job server runs, for people."""
        return (self.folder / "title").read_text()

    def start(self, name: str) -> None:
        """Starts one process of a cluster that was brought up before."""
        with open(self.folder / "logs" / name, "ab") as log:
            process = subprocess.Popen(
                json.loads((self.folder / "commands" / name).read_text()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        (self.folder / "pids" / name).write_text(f"{process.pid}\n")
        # A process that has just become another program has no command for a moment.
        while process.poll() is None and self.pid(name) is None:
            time.sleep(0.01)

    def wait_until_ready(self, seconds: float = 300.0) -> None:
        """Waits until all TaskManagers have told the JobManager of their slots."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name in NAMES:
                if self.pid(name) is None:
                    raise ClusterError(f"{name} has ended; its log says:\n{self.log_tail(name)}")
            overview = self.rest.overview() or {}
            if overview.get("slots-total") == _SLOTS * len(TASK_MANAGERS) and self._listening():
                return
            time.sleep(0.3)
        raise ClusterError(
            f"the cluster is not ready after {seconds:.0f} s; see {self.folder}/logs"
        )

    def kill(self, name: str) -> None:
        """Kills a process, and all that it started, without a warning."""
        pid = self.pid(name)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        while self.pid(name) is not None:
            time.sleep(0.02)

    def down(self) -> None:
        """Ends all processes and removes the folder."""
        for name in reversed(NAMES):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines of a log."""
        text = (self.folder / "logs" / name).read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _addresses(self) -> dict[str, tuple[str, int]]:
        pools = {name: (address, self.ports.pool) for name, address in POOLS.items()}
        return {
            "JobManager's REST": (_MASTER, self.ports.rest),
            "JobManager": (_MASTER, self.ports.rpc),
            "job server": (_MASTER, self.ports.job),
            **pools,
        }

    def _listening(self) -> bool:
        for address in self._addresses().values():
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                return False
        return True

    def _write_configuration(self, pieces: Pieces) -> None:
        settings: dict[str, object] = {
            **_MEMORY,
            "jobmanager.rpc.address": _MASTER,
            "jobmanager.rpc.port": self.ports.rpc,
            "jobmanager.bind-host": _MASTER,
            "rest.address": _MASTER,
            "rest.bind-address": _MASTER,
            "rest.port": self.ports.rest,
            "taskmanager.numberOfTaskSlots": _SLOTS,
            "io.tmp.dirs": self.folder / "tmp",
            # A job is spread over both TaskManagers, and a part that fails is tried again.
            "cluster.evenly-spread-out-slots": "true",
            "taskmanager.load-balance.mode": "SLOTS",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 20,
            "restart-strategy.fixed-delay.delay": "1 s",
            "heartbeat.interval": 2000,
            # A machine that is busy with other work is slow, and not dead.
            "heartbeat.timeout": 120_000,
            "pekko.startup-timeout": "120 s",
            "pekko.ask.timeout": "60 s",
            "taskmanager.registration.timeout": "15 min",
        }
        if pieces.boot:
            # Beam is on the cluster's own class path; one set of its classes is enough.
            settings["classloader.resolve-order"] = "parent-first"
        text = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (self.folder / "conf" / "config.yaml").write_text(text)
        for name, address in TASK_MANAGERS.items():
            hosts = f"{address} localhost\n{address} {socket.gethostname()}\n"
            (self.folder / "conf" / f"hosts-{name}").write_text(hosts)

    def _environment(self) -> dict[str, str]:
        # A pool starts `python`: the one with this project in it.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return os.environ | {"PATH": path, "TMPDIR": str(self.folder / "tmp")}

    def _command(self, name: str, pieces: Pieces) -> list[str]:
        conf = str(self.folder / "conf")
        if name in POOLS:
            address = f"{POOLS[name]}:{self.ports.pool}"
            program = Path(__file__).with_name("worker_pool.py")
            return [sys.executable, str(program), address, str(self.folder)]
        java = [
            pieces.java,
            *JAVA_OPTIONS,
            *_JAVA_MEMORY[name.partition("-")[0]],
            f"-Djava.io.tmpdir={self.folder}/tmp",
            "-Dlog4j2.level=INFO",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        ]
        if name == JOB_SERVER:
            if pieces.boot:
                java.append(f"-Xbootclasspath/a:{os.pathsep.join(pieces.boot)}")
            return [
                *[*java, "-cp", os.pathsep.join(pieces.submitted), MAIN_CLASS],
                f"--flink-master={_MASTER}:{self.ports.rest}",
                *[f"--job-host={_MASTER}", f"--job-port={self.ports.job}"],
                *["--artifact-port=0", "--expansion-port=0"],
                f"--artifacts-dir={self.folder}/tmp/artifacts",
            ]
        flink = ["-cp", os.pathsep.join(pieces.flink)]
        if name == JOB_MANAGER:
            main = f"{FLINK}entrypoint.StandaloneSessionClusterEntrypoint"
            return [*java, *flink, main, "--configDir", conf]
        address = TASK_MANAGERS[name]
        return [
            *[*java, f"-Djdk.net.hosts.file={conf}/hosts-{name}"],
            *[*flink, f"{FLINK}taskexecutor.TaskManagerRunner", "--configDir", conf],
            *["-D", f"taskmanager.host={address}", "-D", f"taskmanager.bind-host={address}"],
            *["-D", f"taskmanager.resource-id={name}"],
        ]
