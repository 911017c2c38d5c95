"""`lengthwise build` against what others write ragged rows with, in CPU time per row.

All sides read the same Parquet files (`ragged_data.py`) on one core, each in an environment of its
own that `rivals/environments` makes:

    lengthwise            `lengthwise build --workers 1`, all of it
    tfds                  a builder of TensorFlow Datasets on Beam
    seqio                 `seqio_cache_tasks`, SeqIO's offline cache, on Beam
    huggingface           `datasets`: Parquet, map that adds lengths, save_to_disk
    huggingface padded    a map that pads to buckets and adds a mask, shuffle, save_to_disk
    mosaic                `MDSWriter` of mosaicml-streaming

They do not do the same work: the modules in `rivals/` say what each writes. What each wrote is read
back: all must have the same rows and steps.

    benchmarks/rivals/environments ENVIRONMENTS
    python benchmarks/build_against_rivals.py ENVIRONMENTS --rounds 3
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import (
    CPU_PER_ROW,
    USER_PER_ROW,
    Comparison,
    Side,
    compare,
    compare_kinds,
    comparison_parser,
    print_comparison,
    spread,
)
from process_usage import SINGLE_THREAD, Task, call_task, run

KINDS = ("floats", "ids")
SEQUENCE = {"floats": "features", "ids": "tokens"}
BASELINE = "lengthwise"


@dataclass(frozen=True)
class Rival:
    """A side: its environment, its module in `rivals/`, and rows of the small and the large run."""

    environment: str
    module: str
    floats: tuple[int, int]
    ids: tuple[int, int]
    # Where below its output the dataset lies; the rest is a cache.
    dataset: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


# A fast side needs more rows than a slow one for a slope that is not noise.
RIVALS = {
    "tfds": Rival("tfds", "tfds_beam", (2_048, 14_336), (4_096, 36_864)),
    "seqio": Rival("seqio", "seqio_cache", (1_024, 7_168), (2_048, 12_288)),
    "huggingface": Rival("huggingface", "huggingface", (8_192, 106_496), (65_536, 589_824), "rows"),
    "huggingface padded": Rival(
        *("huggingface", "huggingface", (8_192, 57_344), (32_768, 294_912), "rows"),
        options={"padded": True},
    ),
    "mosaic": Rival("mosaic", "mosaic", (8_192, 57_344), (16_384, 262_144)),
}
OURS = {"floats": (8_192, 106_496), "ids": (65_536, 851_968)}
CHECKED_ROWS = 4_096

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    **SINGLE_THREAD,
}
_LENGTHWISE = "import sys; from lengthwise.pipeline.commands import main; sys.exit(main())"


@dataclass(frozen=True)
class Contest:
    """The tasks of all sides for one kind of data, in one folder."""

    kind: str
    folder: Path
    environments: Path

    def source(self, rows: int) -> Path:
        """The input; it stays in the folder for the next time."""
        path = self.folder / f"{self.kind}-{rows}.parquet"
        run(
            call_task(
                "ragged_data:ensure_file", rows=rows, path=str(path), kind=self.kind, count=rows
            )
        )
        return path

    def output(self, side: str) -> Path:
        return self.folder / f"{self.kind}-{side}".replace(" ", "-")

    def write(self, side: str, rows: int) -> Task:
        source, output = self.source(rows), self.output(side)
        if side == BASELINE:
            options = ["--sequence", SEQUENCE[self.kind], "--label", "label", "--buckets", "8"]
            argv = [sys.executable, "-c", _LENGTHWISE, "build", str(source), str(output)]
            return Task([*argv, *options, "--workers", "1"], rows, fresh=[output])
        more = RIVALS[side].options
        return self._call(side, "write", rows, fresh=[output], source=str(source), **more)

    def count(self, side: str) -> dict[str, int]:
        """Rows and steps of what a side wrote last."""
        if side == BASELINE:
            manifest = json.loads((self.output(side) / "dataset.json").read_text())
            shards = manifest["shards"]
            return {name: sum(s[key] for s in shards) for name, key in _COUNTED.items()}
        return dict(run(self._call(side, "count", 0), environment=QUIET).own)

    def dataset_bytes(self, side: str) -> int:
        """Size of what a side wrote last, its caches left out."""
        return sum(file.stat().st_size for file in self._files(side))

    def digests(self, side: str) -> dict[str, str]:
        """File -> SHA-256 of what a side wrote last, its caches left out."""
        return {
            str(file.relative_to(self.output(side))): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in self._files(side)
        }

    def _files(self, side: str) -> list[Path]:
        below = "" if side == BASELINE else RIVALS[side].dataset
        return sorted(file for file in (self.output(side) / below).rglob("*") if file.is_file())

    def _call(self, side: str, function: str, rows: int, **arguments: Any) -> Task:
        rival = RIVALS[side]
        return call_task(
            f"rivals.{rival.module}:{function}",
            rows=rows,
            python=self.environments / rival.environment / "bin" / "python",
            kind=self.kind,
            output=str(self.output(side)),
            **arguments,
        )


_COUNTED = {"rows": "records", "steps": "steps"}


def check_same_rows(contest: Contest, sides: list[str]) -> None:
    """Raises RuntimeError unless all sides write the rows and steps that there are."""
    counts = {}
    for side in sides:
        run(contest.write(side, CHECKED_ROWS), environment=QUIET)
        counts[side] = contest.count(side)
    if len({tuple(sorted(count.items())) for count in counts.values()}) > 1:
        raise RuntimeError(f"the sides did not write the same rows: {counts}")
    print(f"{contest.kind}: all sides write the same rows: {counts[sides[0]]}", flush=True)


def measure(contest: Contest, sides: list[str], *, rounds: int, core: int | None) -> Comparison:
    """Checks all sides and times them."""
    check_same_rows(contest, sides)
    contenders = []
    for side in sides:
        sizes = OURS if side == BASELINE else vars(RIVALS[side])
        small, large = sizes[contest.kind]
        contenders.append(
            Side(side, small=contest.write(side, small), large=contest.write(side, large))
        )
    comparison = compare(contenders, CPU_PER_ROW, rounds=rounds, core=core, environment=QUIET)
    for contender in contenders:
        written = contest.count(contender.name)["rows"]
        if written != contender.large.rows:
            raise RuntimeError(f"{contender.name} wrote {written} of {contender.large.rows} rows")
    return comparison


def print_same_bytes(contest: Contest, sides: list[str]) -> None:
    """Says for each side whether the same rows, written twice, are the same bytes."""
    for side in sides:
        digests = []
        for _ in range(2):
            run(contest.write(side, CHECKED_ROWS), environment=QUIET)
            digests.append(contest.digests(side))
        differ = sorted(set(digests[0].items()) ^ set(digests[1].items()))
        names = sorted({name for name, _ in differ})
        said = f"other bytes in {', '.join(names)}" if names else "the same bytes"
        print(f"{contest.kind}: {side}: written twice: {said}", flush=True)


def print_result(contest: Contest, comparison: Comparison) -> None:
    kind = contest.kind
    print_comparison(comparison, title=f"writing, {kind} ({BASELINE} is the baseline)")
    for side in list(comparison.runs)[1:]:
        less = [1 / ratio for ratio in comparison.ratios(side)]
        user = [1 / ratio for ratio in comparison.by(USER_PER_ROW).ratios(side)]
        print(
            f"{kind}: {side} takes {spread(less)} times the CPU of {BASELINE}, without the "
            f"kernel's share {spread(user)} times"
        )
    for side, runs in comparison.runs.items():
        rows = runs[0][0].rows
        size = contest.dataset_bytes(side) / rows
        peak = statistics.median(large.peak_rss for large, _ in runs) / 2**20
        print(f"{kind}: {side}: {rows:,} rows, {size:,.0f} bytes a row, peak {peak:,.0f} MiB")


def main() -> None:
    parser = comparison_parser(
        "lengthwise build against other writers: CPU time per row.", KINDS, rounds=3
    )
    parser.add_argument("environments", type=Path, help="the folder of rivals/environments")
    parser.add_argument("--sides", nargs="+", choices=list(RIVALS), default=list(RIVALS))
    parser.add_argument(
        "--bytes", action="store_true", help="only: whether a second run writes the same bytes"
    )
    options = parser.parse_args()

    def measure_kind(kind: str, folder: Path) -> Comparison | None:
        contest = Contest(kind, folder, options.environments.absolute())
        sides = [BASELINE, *options.sides]
        if options.bytes:
            print_same_bytes(contest, sides)
            return None
        comparison = measure(contest, sides, rounds=options.rounds, core=options.core)
        print_result(contest, comparison)
        return comparison

    compare_kinds(options, measure_kind)


if __name__ == "__main__":
    main()
