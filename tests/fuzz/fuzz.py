"""Runs one target under the coverage-guided fuzzer Atheris; `scripts/fuzz` calls it.

    python -m tests.fuzz.fuzz TARGET -max_total_time=60

The corpus begins with seeds made by code and lives as long as the run. What makes a target fail is
written to the current folder as `crash-…` by libFuzzer, to become a line of `FINDINGS` in
`test_targets.py`. Further arguments are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

with atheris.instrument_imports(include=["lengthwise"]):  # pyright: ignore
    from tests.fuzz.targets import TARGETS

_LIMITS = ("-timeout=20", "-rss_limit_mb=3000", "-max_len=4096")


def main(name: str, *arguments: str) -> None:
    """Fuzzes a target until it fails, or libFuzzer's arguments say stop."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as corpus:
        for number, seed in enumerate(target.seeds()):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *_LIMITS, *arguments, corpus], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
