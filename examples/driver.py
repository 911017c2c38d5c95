"""Downloads, converts, builds and verifies the examples, and prints one table about them."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
# Run as a script, Python looks beside it; the examples import each other from the repository.
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from examples.catalogue import EXAMPLES, Example  # noqa: E402
from examples.packages import PackageError  # noqa: E402
from lengthwise.dataset import Manifest, Plan  # noqa: E402

HEADINGS = (
    *("data set", "rows", "steps min/median/p95/max", "buckets", "padding before → after"),
    *("records per split", "left out", "dropped", "seconds"),
)


def main() -> int:
    arguments = _arguments()
    chosen = [example for example in EXAMPLES if example.name in arguments.names]
    table = []
    for example in chosen:
        print(f"== {example.name}", flush=True)
        started = time.monotonic()
        try:
            left_out = prepare(example, cache=arguments.cache, output=arguments.output)
            dataset = build(example, output=arguments.output)
        except PackageError as reason:
            print(f"{example.name}: {reason}", file=sys.stderr)
            return 1
        except subprocess.CalledProcessError as failed:
            return failed.returncode
        seconds = time.monotonic() - started
        table.append([example.name, *summary(dataset, left_out), f"{seconds:.0f}"])
        print(flush=True)
    print("\n".join(markdown(table)))
    return 0


def prepare(example: Example, *, cache: Path, output: Path) -> int:
    """Leaves ragged rows in `output/rows/<name>`; returns how many of the source were left out."""
    folder = output / "rows" / example.name
    with tempfile.TemporaryDirectory() as unpacked:
        conversion = example.rows(cache=cache, unpacked=Path(unpacked))
    if conversion is None:
        shutil.copytree(REPOSITORY / "examples" / "data", folder, dirs_exist_ok=True)
        return 0
    conversion.write(folder)
    for reason, count in conversion.left_out.items():
        print(f"left out by the converter: {count} ({reason})")
    return sum(conversion.left_out.values())


def build(example: Example, *, output: Path) -> Path:
    """Builds and verifies; returns the dataset's folder."""
    folder = output / "rows" / example.name
    inputs = []
    for written in example.inputs:
        split, equals, name = written.rpartition("=")
        inputs.append(f"{split}{equals}{folder / name}")
    dataset = output / "datasets" / example.name
    dataset.parent.mkdir(parents=True, exist_ok=True)
    _lengthwise("build", *inputs, str(dataset), *example.options)
    _lengthwise("verify", str(dataset))
    return dataset


def summary(dataset: Path, left_out: int) -> list[str]:
    """What the table says about a dataset, from its manifest and plan."""
    manifest = Manifest.load(dataset)
    plan = Plan.load(dataset / "plan.json")
    histogram: Counter[int] = Counter()
    for of_split in plan.histograms.values():
        histogram.update(of_split)
    lengths = np.repeat(*np.array(sorted(histogram.items())).T)
    low, median, p95, high = np.quantile(lengths, (0, 0.5, 0.95, 1), method="inverted_cdf")
    before = 1 - lengths.sum() / (high * len(lengths))
    slots = sum(shard.max_length * shard.records for shard in manifest.shards)
    splits = sorted(manifest.splits, key=lambda split: ("train", "val", "test").index(split))
    accounts = manifest.accounts.values()
    return [
        f"{sum(account.read for account in accounts):,}",
        f"{low} / {median} / {p95} / {high}",
        str(len(manifest.max_lengths)),
        f"{before:.1%} → {1 - lengths.sum() / slots:.1%}",
        ", ".join(f"{split} {manifest.records(split):,}" for split in splits),
        str(left_out),
        str(sum(account.read + account.pieces - account.written for account in accounts)),
    ]


def markdown(rows: list[list[str]]) -> list[str]:
    """The lines of a table whose columns line up."""
    cells = [list(HEADINGS), *rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(HEADINGS))]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]


def _lengthwise(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("lengthwise")
    program = str(beside) if beside.exists() else "lengthwise"
    print("$ " + shlex.join(["lengthwise", *arguments]), flush=True)
    subprocess.run([program, *arguments], check=True)


def _arguments() -> argparse.Namespace:
    names = [example.name for example in EXAMPLES]
    folder = REPOSITORY / "demo-output" / "examples"
    parser = argparse.ArgumentParser(prog="examples/build_all", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all")
    parser.add_argument("--output", type=Path, default=folder)
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(os.environ.get("LENGTHWISE_EXAMPLES_CACHE") or folder / "cache"),
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(names)}")
    arguments.names = arguments.names or names
    return arguments


if __name__ == "__main__":
    sys.exit(main())
