"""MaskedBiLSTM against torch.nn.LSTM with pack_padded_sequence: training step and inference.

Each side is a process of its own (`rivals/bilstm_side.py`), asked turn by turn on the same batch
with the same weights, and waits while the other one computes. Before a shape is timed both give
their outputs and gradients, which must be equal. A ratio is the median over turns: of CPU time with
one thread, of time on the clock with more, as waiting threads use up CPU time too.

    benchmarks/rivals/environments ENVIRONMENTS torch
    python benchmarks/bilstm_against_torch.py ENVIRONMENTS
    python benchmarks/bilstm_against_torch.py ENVIRONMENTS --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bilstm_against_keras import draw_lengths
from harness import spread
from rich.console import Console
from rich.table import Table

SHAPES = ((32, 50, 16, 64), (64, 100, 32, 128), (64, 400, 64, 256))
LENGTHS = ("uniform", "bucketed", "full")
LEAST_TURNS = 7
# Of gradients to the largest one; outputs lie within ±1.
TOLERANCE = 1e-4


class Contender:
    """A process that computes when it is asked."""

    def __init__(self, python: str, side: str, threads: int) -> None:
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        variables = dict.fromkeys(names, str(threads)) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("rivals") / "bilstm_side.py"), side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **variables, "CUDA_VISIBLE_DEVICES": "-1"},
        )
        self.side = side

    def ask(self, do: str, **arguments: Any) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        reply = self._process.stdout.readline()
        if not reply:
            raise RuntimeError(f"{self.side} ended with exit code {self._process.wait()}")
        return json.loads(reply)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(
    ours: Contender,
    theirs: Contender,
    shape: tuple[int, int, int, int],
    *,
    training: bool,
    seconds: float,
    clock: str,
    folder: Path,
) -> dict[str, tuple[list[float], float, float]]:
    """Lengths -> ratios by turn, our seconds of a step, the largest difference of results."""
    batch, total, width, units = shape
    made = {"width": width, "units": units, "training": training}
    for contender in (ours, theirs):
        contender.ask("make", **made, weights=str(folder / "weights.npz"))
    inputs = np.random.default_rng(1).normal(size=(batch, total, width)).astype(np.float32)
    measured = {}
    for kind in LENGTHS:
        mask = np.arange(total) < draw_lengths(kind, batch, total)[:, np.newaxis]
        np.savez(folder / "batch.npz", inputs=inputs, mask=mask)
        for contender in (ours, theirs):
            contender.ask(
                "bind",
                batch=str(folder / "batch.npz"),
                results=str(folder / f"{contender.side}.npz"),
            )
        difference = compare_results(folder / f"{ours.side}.npz", folder / f"{theirs.side}.npz")
        ratios, own = [], []
        started = time.perf_counter()
        while time.perf_counter() - started < seconds or len(ratios) < LEAST_TURNS:
            mine, other = ours.ask("step")[clock], theirs.ask("step")[clock]
            ratios.append(other / mine)
            own.append(mine)
        measured[kind] = ratios, statistics.median(own), difference
    return measured


def compare_results(ours: Path, theirs: Path) -> float:
    """The largest difference, relative to the largest value; raises if it is no rounding error."""
    one, other = np.load(ours), np.load(theirs)
    differences = [
        float(np.abs(one[name] - other[name]).max() / max(1, np.abs(other[name]).max()))
        for name in one.files
    ]
    if len(one.files) != len(other.files) or max(differences) > TOLERANCE:
        raise RuntimeError(f"the sides do not compute the same: {differences}")
    return max(differences)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("environments", type=Path, help="the folder of rivals/environments")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="per shape, lengths and mode")
    parser.add_argument("--shapes", nargs="+", type=int, default=list(range(len(SHAPES))))
    options = parser.parse_args()
    clock = "cpu" if options.threads == 1 else "wall"
    table = Table(
        title=f"times faster than PyTorch, {clock} time, {options.threads} thread(s)",
        title_justify="left",
    )
    for heading in ("(B, T, D, H)", "mode", "lengths", "ratio", "a step of ours", "difference"):
        table.add_column(heading, justify="right")
    python = str(options.environments.absolute() / "torch" / "bin" / "python")
    ours = Contender(sys.executable, "lengthwise", options.threads)
    theirs = Contender(python, "torch", options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for number in options.shapes:
            for training in (True, False):
                mode = "training" if training else "inference"
                measured = measure(
                    ours,
                    theirs,
                    SHAPES[number],
                    training=training,
                    seconds=options.seconds,
                    clock=clock,
                    folder=Path(folder),
                )
                for kind, (ratios, own, difference) in measured.items():
                    cells = (spread(ratios), f"{own * 1e3:,.1f} ms", f"{difference:.0e}")
                    table.add_row(str(SHAPES[number]), mode, kind, *cells)
                    print(SHAPES[number], mode, kind, *cells, flush=True)
    for contender in (ours, theirs):
        contender.close()
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
