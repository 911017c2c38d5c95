"""A bound on the memory that reading one piece of input may take.

A few hundred bytes of Parquet can say, truthfully, that one row has a billion zeros. No count in
the file tells this from a billion zeros in a million rows, and nothing in Arrow stops it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # not on this system: then there is no bound
    resource = None

_STATUS = Path("/proc/self/status")


@contextlib.contextmanager
def bounded_memory(nbytes: int) -> Iterator[None]:
    """Lets this process take at most so many bytes more; beyond, allocations fail.

    Raises:
        MemoryError: from what is inside, where it wants more.
    """
    taken = _private_bytes()
    if resource is None or taken is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([taken + nbytes, *bounds]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_bytes() -> int | None:
    """What the process has of the memory that the bound is about; None where nobody knows."""
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None
