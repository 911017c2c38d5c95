"""What a build costs that grows: counted at 1×, 4× and 16×, modelled, carried to 1 TB and 100 TB.

Nothing here is timed: bytes, files, pieces and reads are counted, and peak memory is that of the
whole command. The model is fitted to the smallest size alone and says what the larger ones take;
then it is carried further. `--write` puts the tables into docs/scaling.md.

    python benchmarks/cost_model.py --write
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from lengthwise_build import build_task, source_file
from process_usage import call_task, run
from ragged_data import KINDS, ROW_GROUP_ROWS, SEQUENCE

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
SHARD_SIZE = 1 << 20
GROWTH = (1, 4, 16)
_PAGE_BYTES = 4096
_SAMPLED_SHARDS = 16
_COUNTED = {
    "units": "units of the input",
    "shards": "shards, keys of the GroupByKey",
    "staged_bytes": "bytes staged",
    "dataset_bytes": "bytes of the dataset",
    "references": "pieces: pairs of unit and shard",
    "spill_bytes": "bytes through the GroupByKey, `spill`",
    "engine_bytes": "bytes through the GroupByKey, `engine`",
    "places_bytes": "bytes of places, `spill`",
    "files": "files staged, `spill`",
    "report_bytes": "bytes of reports that the driver reads",
    "manifest_bytes": "bytes of the manifest",
}


@dataclass(frozen=True)
class Rates:
    """What the model takes from the smallest size.

    Attributes:
        unit_rows: rows of a unit.
        groups: buckets of all splits: each has a shard that is not full.
        staged, dataset, places: bytes a row.
        reference, header: bytes of a piece that are not rows, `spill` and `engine`.
        report: bytes of a unit's report.
        manifest, entry: bytes of a manifest without shards, and of a shard in it.
    """

    unit_rows: float
    groups: int
    staged: float
    dataset: float
    places: float
    reference: float
    header: float
    report: float
    manifest: float
    entry: float

    def at(self, rows: float, *, shard_size: float, unit_rows: float) -> dict[str, float]:
        """The costs of a build of so many rows."""
        units = np.ceil(rows / unit_rows)
        # Half a shard more for each bucket, whose last is not full.
        shards = rows * self.dataset / shard_size + self.groups / 2
        # Rows are spread over shards at random: the expected number of those that a unit meets.
        in_unit = min(unit_rows, rows)
        references = units * shards * -np.expm1(in_unit * np.log1p(-1 / shards))
        reports = units * self.report
        return {
            "units": units,
            "shards": shards,
            "staged_bytes": rows * self.staged,
            "dataset_bytes": rows * self.dataset,
            "references": references,
            "spill_bytes": references * self.reference,
            "engine_bytes": rows * self.staged + references * self.header,
            "places_bytes": rows * self.places,
            "files": 3 * units + shards * 2,
            "report_bytes": reports,
            "manifest_bytes": self.manifest + shards * self.entry,
        }


def fitted(found: Mapping[str, float]) -> Rates:
    """The rates that the counts of one size tell."""
    rows, pieces = found["rows"], found["references"]
    return Rates(
        unit_rows=found["unit_rows"],
        groups=int(found["groups"]),
        staged=found["staged_bytes"] / rows,
        dataset=found["dataset_bytes"] / rows,
        places=found["places_bytes"] / rows,
        reference=found["spill_bytes"] / pieces,
        header=(found["engine_bytes"] - found["staged_bytes"]) / pieces,
        report=found["report_bytes"] / found["units"],
        manifest=found["manifest_bytes"] - found["shards"] * found["entry_bytes"],
        entry=found["entry_bytes"],
    )


def count(kind: str, source: str, output: str) -> dict[str, float]:
    """Builds, and counts what lies in the staging folder right before the commit."""
    from lengthwise.dataset import PlanOptions
    from lengthwise.pipeline import FeatureNames, build, building

    found: dict[str, float] = {}
    jobs: list[Any] = []
    run_exchange, commit = building.exchange, building.commit

    def remembered(pipeline: Any, units: int, job: Any) -> None:
        jobs.append((units, job))
        run_exchange(pipeline, units, job)

    def counted(*arguments: Any, **options: Any) -> None:
        found.update(_staged(*jobs[0]))
        commit(*arguments, **options)

    building.exchange, building.commit = remembered, counted  # pyright: ignore[reportAttributeAccessIssue]
    try:
        manifest = build(
            [source],
            output,
            names=FeatureNames(sequences=(SEQUENCE[kind],), labels=("label",)),
            options=PlanOptions(shard_size=SHARD_SIZE),
        )
    finally:
        building.exchange, building.commit = run_exchange, commit  # pyright: ignore[reportAttributeAccessIssue]
    text = Path(output, "dataset.json").read_text()
    shards = json.loads(text)["shards"]
    entries = len(json.dumps(shards, indent=1)) + 2 * sum(len(entry) + 2 for entry in shards)
    return {
        **found,
        "rows": manifest.records("train"),
        "unit_rows": pq.ParquetFile(source).metadata.row_group(0).num_rows,
        "groups": len(manifest.max_lengths),
        "shards": len(shards),
        "dataset_bytes": sum(shard.nbytes for shard in manifest.shards),
        "manifest_bytes": len(text),
        "entry_bytes": entries / len(shards),
    }


def _staged(units: int, job: Any) -> dict[str, float]:
    from dataclasses import replace

    from lengthwise.dataset.storage import files_below
    from lengthwise.pipeline.exchange import refer_to_rows

    staging = Path(job.staging)
    files = files_below(staging)
    names = [name for name in files if name.startswith("units/")]
    pieces, nbytes = {}, {}
    for kind in ("spill", "engine"):
        of_kind = replace(job, exchange=kind, finished=frozenset())
        groups: dict[Any, list[Any]] = {}
        nbytes[kind] = 0
        for unit in range(units):
            for shard, piece in refer_to_rows(unit, of_kind):
                nbytes[kind] += len(pickle.dumps((shard, piece)))
                if kind == "spill":
                    groups.setdefault(shard, []).append(piece)
        if kind == "spill":
            pieces = groups
    return {
        "units": units,
        "staged_bytes": sum(files[name] for name in names if name.endswith(".arrow")),
        "report_bytes": sum(files[name] for name in names if name.endswith(".json")),
        "places_bytes": sum(n for name, n in files.items() if "/places/" in name),
        "files": len(files) - sum(name in ("lock", "staging.json") for name in files),
        "references": sum(map(len, pieces.values())),
        "spill_bytes": nbytes["spill"],
        "engine_bytes": nbytes["engine"],
        **_reads(job, pieces),
    }


def _reads(job: Any, pieces: Mapping[Any, list[Any]]) -> dict[str, float]:
    """What a shard touches of the staged rows: bytes of its rows, and of pages they lie in."""
    from lengthwise.pipeline.staged_rows import StagedRows
    from lengthwise.transforms.row_places import spans_of

    rows = nbytes = pages = 0
    sampled = list(pieces)[:: max(1, len(pieces) // _SAMPLED_SHARDS)]
    for shard in sampled:
        places, _kept = StagedRows(job.staging, job.shards)._located(sorted(pieces[shard]))
        rows += len(places)
        nbytes += sum(int(np.maximum(spans["size"], 0).sum()) for _, spans in spans_of(places))
        touched = []
        for _, spans in spans_of(places):
            first = spans["address"] // _PAGE_BYTES
            last = (spans["address"] + np.maximum(spans["size"], 1) - 1) // _PAGE_BYTES
            touched += [first, last]
        pages += len(np.unique(np.concatenate(touched)))
    return {"row_read": nbytes / rows, "page_reads": pages * _PAGE_BYTES / nbytes}


def measured(kind: str, sizes: list[int], folder: Path) -> list[dict[str, float]]:
    """Counts, and the peak memory of a whole command, of each size."""
    results = []
    for rows in sizes:
        source, output = source_file(folder, kind, rows), folder / "out"
        task = call_task(
            "cost_model:count", rows=rows, kind=kind, source=str(source), output=str(output)
        )
        counts = dict(run(task).own)
        options = ("--shard-size", str(SHARD_SIZE))
        usage = run(build_task(source, output, kind, rows, *options), environment={})
        results.append({**counts, "peak_rss": usage.peak_rss})
        print(f"{rows:,} rows: {counts}, {usage.peak_rss / 2**20:.0f} MiB", flush=True)
    return results


def checked_table(results: list[dict[str, float]]) -> list[str]:
    """The counts of each size, and how far the model is from them."""
    rates = fitted(results[0])
    head = [f"{result['rows']:,.0f} rows" for result in results]
    lines = [
        f"| | {head[0]}, fitted | {' | '.join(head[1:])} |",
        "|---|" + "---|" * len(results),
    ]
    models = [
        rates.at(result["rows"], shard_size=SHARD_SIZE, unit_rows=rates.unit_rows)
        for result in results
    ]
    for name, title in _COUNTED.items():
        cells = [_shown(name, results[0][name])]
        for result, model in zip(results[1:], models[1:], strict=True):
            ratio = model[name] / result[name]
            cells.append(f"{_shown(name, result[name])} (model {ratio:.2f} ×)")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for name, title, shown in (
        ("page_reads", "pages touched a byte of rows, `spill`", "{:.1f}"),
        ("peak_rss", "largest process", "{:.0f} MiB"),
    ):
        scale = 2**20 if name == "peak_rss" else 1
        cells = [shown.format(result[name] / scale) for result in results]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def carried_table(rates: Rates) -> list[str]:
    """The costs of 1 TB and 100 TB of dataset, with default options and with larger pieces."""
    cases = [
        (1e12, 64 * 2**20, rates.unit_rows),
        (1e12, 512 * 2**20, 1e6),
        (1e14, 64 * 2**20, rates.unit_rows),
        (1e14, 512 * 2**20, 1e6),
        (1e14, 4 * 2**30, 8e6),
    ]
    head = [
        f"{size / 1e12:.0f} TB, shards of {shard / 2**20:,.0f} MiB, units of {unit:,.0f} rows"
        for size, shard, unit in cases
    ]
    lines = [f"| | {' | '.join(head)} |", "|---|" + "---|" * len(cases)]
    models = [
        rates.at(size / rates.dataset, shard_size=shard, unit_rows=unit)
        for size, shard, unit in cases
    ]
    for name, title in _COUNTED.items():
        cells = [_shown(name, model[name]) for model in models]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _shown(name: str, value: float) -> str:
    if not name.endswith("_bytes"):
        return f"{value:,.0f}" if value < 1e7 else f"{value:.1e}"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            break
        value /= 1000
    return f"{value:.3g} {unit}"


def write_tables(tables: Mapping[str, list[str]]) -> None:
    """Puts tables between their marks in the page."""
    text = PAGE.read_text("utf-8")
    for name, lines in tables.items():
        before, rest = text.split(f"<!-- {name} -->\n", 1)
        _, after = rest.split(f"<!-- end of {name} -->", 1)
        table = "\n".join(lines)
        text = f"{before}<!-- {name} -->\n{table}\n<!-- end of {name} -->{after}"
    PAGE.write_text(text, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Counts what a build costs, and carries it further.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kind", choices=KINDS, default="ids")
    parser.add_argument("--groups", type=int, default=4, help="row groups of the smallest size")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    options = parser.parse_args()
    sizes = [options.groups * ROW_GROUP_ROWS[options.kind] * growth for growth in GROWTH]
    with tempfile.TemporaryDirectory() as folder:
        results = measured(options.kind, sizes, Path(folder))
    tables = {"measured": checked_table(results), "carried": carried_table(fitted(results[0]))}
    for lines in tables.values():
        print(*lines, "", sep="\n")
    if options.write:
        write_tables(tables)


if __name__ == "__main__":
    main()
