"""What running a killed build again saves, against building it whole.

In each round the same build runs

    whole      from nothing to the committed dataset
    killed     SIGKILL to it and to all its processes, once a share of the wall time of the whole
               one has passed; then the same command again, which is what is measured

The second run must give the dataset that the whole one gave, by its fingerprint. Start-up, a few
seconds of imports that no resumption can save, is in all figures: a large build saves more.

    python benchmarks/resume_saves.py --kind floats --rows 200000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from harness import CPU_PER_ROW, WALL_PER_ROW, Comparison, Pair, print_comparison
from lengthwise_build import build_task, source_file
from process_usage import SINGLE_THREAD, Task, run
from ragged_data import KINDS


def fingerprint(output: Path) -> str:
    """Of the dataset that was committed."""
    return json.loads((output / "dataset.json").read_text())["fingerprint"]


def kill_after(task: Task, seconds: float, output: Path) -> None:
    """Starts a build from nothing and kills it.

    Raises:
        RuntimeError: it ended by itself before.
    """
    shutil.rmtree(output, ignore_errors=True)
    process = subprocess.Popen(
        list(task.argv),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **SINGLE_THREAD},
        start_new_session=True,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return
    raise RuntimeError("the build was over before it could be killed; give more --rows")


def measure(
    source: Path, folder: Path, kind: str, rows: int, shares: list[float], rounds: int
) -> dict[str, list[Pair]]:
    """Usage of whole and resumed builds, by round."""
    output = folder / "out"
    options = ("--buckets", "8", "--workers", "1", "--shard-size", "16MB")
    whole = build_task(source, output, kind, rows, *options)
    again = Task(whole.argv, rows)
    run(whole)
    sides: dict[str, list[Pair]] = {"whole": []}
    sides |= {f"killed at {share:.0%}": [] for share in shares}
    for number in range(1, rounds + 1):
        usage = run(whole)
        sides["whole"].append((usage, None))
        expected = fingerprint(output)
        for share in shares:
            kill_after(whole, share * usage.wall_seconds, output)
            time.sleep(0.5)
            resumed = run(again)
            if fingerprint(output) != expected:
                raise RuntimeError("the resumed build gave another dataset")
            sides[f"killed at {share:.0%}"].append((resumed, None))
            print(
                f"round {number}: killed at {share:.0%}: whole {usage.wall_seconds:.1f} s "
                f"({usage.cpu_seconds:.1f} s CPU), again {resumed.wall_seconds:.1f} s "
                f"({resumed.cpu_seconds:.1f} s CPU)",
                flush=True,
            )
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What running a killed build again saves.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kind", choices=KINDS, default="floats")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.9])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = source_file(folder, options.kind, options.rows)
        sides = measure(source, folder, options.kind, options.rows, options.shares, options.rounds)
    print_comparison(Comparison(WALL_PER_ROW, sides), title="wall time")
    print_comparison(Comparison(CPU_PER_ROW, sides), title="CPU time")


if __name__ == "__main__":
    main()
