"""Driver and workers run the same Lengthwise: each worker says so before it writes anything.

Bytes depend on the code that writes them. So a worker with another version of it, or of what it
computes with, stops the job. That Python and Beam fit each other is also a condition of Beam, which
sends them pickled functions.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import apache_beam as beam

from lengthwise.dataset.errors import LengthwiseError

T = TypeVar("T")

ROOMS = ("dataset", "transforms", "pipeline", "model")


class WorkerError(LengthwiseError):
    """A worker cannot do the job: it runs other versions than the driver, or no Lengthwise."""


def room_folder(room: str) -> Path:
    """Where a room of Lengthwise is installed; it is not imported for that."""
    spec = importlib.util.find_spec(f"lengthwise.{room}")
    if spec is None or not spec.origin:
        raise WorkerError(f"lengthwise.{room} is not installed; install Lengthwise again")
    return Path(spec.origin).parent


@functools.cache
def versions() -> dict[str, str]:
    """What decides the bytes that this process writes, name -> version."""
    digest = hashlib.blake2b(digest_size=4)
    for room in ROOMS[:3]:
        folder = room_folder(room)
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{room}/{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return {
        "lengthwise": f"{metadata.version('lengthwise')} (source {digest.hexdigest()})",
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{name: metadata.version(name) for name in ("apache-beam", "numpy", "pyarrow")},
    }


class CheckVersions(beam.PTransform):
    """Passes elements on, on workers that run what this process runs.

    Raises:
        WorkerError: in the worker, which names what differs.
    """

    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | beam.Map(require_versions, versions())


def require_versions(element: T, wanted: Mapping[str, str]) -> T:
    """Returns the element where this process has the versions that are wanted.

    Raises:
        WorkerError: it has others.

    Example:
        >>> require_versions(1, {**versions(), "numpy": "0.9"})
        Traceback (most recent call last):
        ...
        lengthwise.pipeline.versions.WorkerError: a worker has numpy ..., the driver 0.9; install \
the same on both, or --ship this Lengthwise
    """
    found = versions()
    other = [
        f"{name} {found.get(name, 'not at all')}, the driver {version}"
        for name, version in wanted.items()
        if found.get(name) != version
    ]
    if other:
        raise WorkerError(
            f"a worker has {'; '.join(other)}; install the same on both, or --ship this Lengthwise"
        )
    return element
