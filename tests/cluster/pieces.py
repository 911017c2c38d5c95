"""The programs of the cluster: Java, Flink, Beam's job server for it, each got by its own client.

Two pairs of Flink and job server are known. The official one is Beam's own release of this very
version: Flink from its wheel, the job server as one jar. Where Maven cannot get that jar, the same
job server is composed of the module it is made of and what that depends on, from an older release
of Beam whose protocol this one still speaks; Flink is among the dependencies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

MAIN_CLASS = "org.apache.beam.runners.flink.FlinkJobServerDriver"
# What conf/config.yaml of Flink says in env.java.opts.all: Java 17 locks up what Flink looks into.
_EXPORTS = (
    "java.base/sun.net.util java.rmi/sun.rmi.registry java.security.jgss/sun.security.krb5 "
    "jdk.compiler/com.sun.tools.javac.api jdk.compiler/com.sun.tools.javac.file "
    "jdk.compiler/com.sun.tools.javac.parser jdk.compiler/com.sun.tools.javac.tree "
    "jdk.compiler/com.sun.tools.javac.util"
)
_OPENS = (
    "java.base/java.lang java.base/java.net java.base/java.io java.base/java.nio "
    "java.base/sun.nio.ch java.base/java.lang.reflect java.base/java.text java.base/java.time "
    "java.base/java.util java.base/java.util.concurrent java.base/java.util.concurrent.atomic "
    "java.base/java.util.concurrent.locks"
)
JAVA_OPTIONS = (
    *(f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTS.split()),
    *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENS.split()),
    # Short lives on few cores: the second compiler and a parallel collector never pay.
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
)


# Of a download: where a network swallows what is asked, Maven would wait for half an hour.
_PATIENCE = 600.0


class MissingPieceError(Exception):
    """A program of the cluster cannot be had on this machine."""


@dataclass(frozen=True)
class Pair:
    """A release of Flink and the job server for it.

    Attributes:
        flink: version of Flink.
        artifact: the job server, as Maven names it: group:artifact:version.
        wheel: the package with Flink's jars; None if they are dependencies of the artifact.
        logging: what writes the log; the wheel and the official jar have their own.
    """

    flink: str
    artifact: str
    wheel: str | None = None
    logging: str | None = None


PAIRS = (
    Pair(
        flink="2.2.1",
        artifact="org.apache.beam:beam-runners-flink-2.2-job-server:2.77.0",
        wheel="apache-flink-libraries==2.2.1",
    ),
    Pair(
        flink="1.19.0",
        artifact="org.apache.beam:beam-runners-flink-1.19:2.62.0",
        logging="org.slf4j:slf4j-simple:1.7.36",
    ),
)
# Of a composed job server: what must not be on Java's boot class path, see `Pieces`.
_SUBMITTED = ("beam-runners-flink", "flink-java", "flink-clients", "flink-streaming", "flink-opt")


@dataclass(frozen=True)
class Pieces:
    """Where the programs are.

    Attributes:
        pair: which pair it is.
        java: the program.
        flink: jars of the JobManager and the TaskManagers.
        submitted: jars of the job server, which it sends along with every job.
        boot: jars of the job server that it does not send. A composed job server finds Beam on the
            cluster, so it need not send 100 MB with each job; but it sends all that is on its class
            path, and only Java's boot class path does not count.
    """

    pair: Pair
    java: str
    flink: tuple[str, ...]
    submitted: tuple[str, ...]
    boot: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What runs, for people."""
        _, artifact, version = self.pair.artifact.split(":")
        kind = "its official job server" if self.pair.wheel else "a job server composed of"
        return f"Flink {self.pair.flink} with {kind} {artifact} {version}"


def find_pieces(folder: Path) -> Pieces:
    """Gets the first pair that can be had.

    Args:
        folder: for what has to be unpacked.

    Raises:
        MissingPieceError: none can be had; the message says why.
    """
    if sys.platform != "linux":
        raise MissingPieceError("it takes Linux, whose loopback network has many addresses")
    java, maven = _program("java"), _program("mvn")
    _check_java(java)
    reasons = []
    for pair in PAIRS:
        try:
            jars = _resolved(pair, maven, folder)
            if pair.wheel is not None:
                return Pieces(pair, java, _unpacked(pair.wheel, folder), jars)
        except MissingPieceError as reason:
            reasons.append(str(reason))
            continue
        sent = tuple(jar for jar in jars if Path(jar).name.startswith(_SUBMITTED))
        kept = tuple(jar for jar in jars if jar not in sent)
        return Pieces(pair, java, jars, sent, kept)
    raise MissingPieceError("; ".join(reasons))


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingPieceError(f"there is no {name} on PATH")
    return found


def _runs(command: list[str]) -> bool:
    """Runs a program that downloads; whether it did its work in time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _check_java(java: str) -> None:
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = done.stderr.partition('version "')[2].partition(".")[0]
    if not version.isdigit() or int(version) < 11:
        raise MissingPieceError(f"{java} is not Java 11 or later: {done.stderr.strip()[:80]!r}")


def _resolved(pair: Pair, maven: str, folder: Path) -> tuple[str, ...]:
    """Paths of the artifact and its dependencies, in Maven's own store."""
    project = folder / f"flink-{pair.flink}"
    project.mkdir(parents=True, exist_ok=True)
    dependencies = _dependency(pair.artifact, alone=pair.wheel is not None)
    if pair.logging is not None:
        dependencies += _dependency(pair.logging, alone=True)
    (project / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>lengthwise</groupId><artifactId>cluster</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    )
    paths = project / "class-path"
    command = [maven, "-q", "-B", "-f", str(project / "pom.xml"), "dependency:build-classpath"]
    if not _runs([*command, f"-Dmdep.outputFile={paths}", "-DincludeScope=runtime"]):
        raise MissingPieceError(f"Maven cannot get {pair.artifact}")
    return tuple(paths.read_text().strip().split(os.pathsep))


def _dependency(coordinates: str, *, alone: bool) -> str:
    group, artifact, version = coordinates.split(":")
    others = (
        "<exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion>" if alone else ""
    )
    return (
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version><exclusions>{others}</exclusions></dependency>"
    )


def _unpacked(wheel: str, folder: Path) -> tuple[str, ...]:
    """The jars of Flink's wheel, which is not installed: it wants another Beam."""
    home = folder / wheel.replace("==", "-")
    if not home.is_dir():
        downloads = folder / "wheel"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d"]
        if not _runs([*pip, str(downloads), wheel]):
            raise MissingPieceError(f"pip cannot get {wheel}")
        (file,) = downloads.glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(
                home, [name for name in archive.namelist() if name.startswith("pyflink/lib/")]
            )
        shutil.rmtree(downloads)
    return tuple(str(jar) for jar in sorted(home.glob("pyflink/lib/*.jar")))


def build_prism(folder: Path) -> str:
    """Has Go build Prism of the Beam that is installed; some minutes. Returns the program.

    Raises:
        MissingPieceError: there is no Go, or it could not.
    """
    go = shutil.which("go")
    if go is None:
        raise MissingPieceError("no go on PATH")
    prism = _built_prism(folder)
    package = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{metadata.version('apache-beam')}"
    environment = {**os.environ, "GOBIN": str(prism.parent)}
    if subprocess.run([go, "install", package], env=environment, check=False).returncode:
        raise MissingPieceError(f"go install {package} failed")
    return str(prism)


def find_prism(folder: Path) -> str | None:
    """The Prism that was built, or the user's."""
    built = _built_prism(folder)
    if built.is_file():
        return str(built)
    return os.environ.get("LENGTHWISE_PRISM") or shutil.which("prism")


def _built_prism(folder: Path) -> Path:
    return folder.resolve() / "bin" / "prism"
