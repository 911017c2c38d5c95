"""The report: one page of HTML that says what is in a dataset and what padding costs.

It holds nothing that changes from run to run, so that it too is the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from lengthwise.dataset.manifest import PLAN_NAME, Manifest
from lengthwise.dataset.plan import Plan

# Bars of a histogram; longer ranges of lengths are summed up.
_BARS = 64

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1d2733; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #e3e8ee; }
th:first-child, td:first-child { text-align: left; }
.bar { display: inline-block; height: .7rem; background: #3b7dd8; vertical-align: baseline; }
.bar.padding { background: #e8a33d; }
.meter { display: inline-block; width: 14rem; text-align: left; white-space: nowrap; }
.histogram { display: flex; align-items: flex-end; height: 9rem; gap: 1px;
             border-bottom: 1px solid #8a97a6; }
.histogram div { flex: 1; background: #3b7dd8; min-height: 1px; }
.axis { display: flex; justify-content: space-between; color: #5b6a7a; font-size: .85rem; }
.legend { color: #5b6a7a; }
"""


def render_report(manifest: Manifest) -> str:
    """The page.

    Args:
        manifest: of a committed dataset, with its `plan.json` beside it.
    """
    plan = Plan.load(manifest.data_folder / PLAN_NAME)
    sections = [
        f"<h1>Dataset {manifest.fingerprint}</h1>",
        f"<p>Written by {escape(manifest.created_by)}, seed {manifest.seed}.</p>",
        "<h2>Features</h2>",
        _features(manifest, plan),
        "<h2>Accounts</h2>",
        "<p class=legend>read = written + dropped + rejected</p>",
        _accounts(manifest),
    ]
    for split in manifest.splits:
        histogram = plan.histograms.get(split, {})
        if histogram:
            sections += [f"<h2>Split {escape(split)}</h2>", _padding(manifest, plan, split)]
            sections += [_histogram(histogram), _buckets(manifest, split)]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Lengthwise dataset {manifest.fingerprint}</title>"
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _features(manifest: Manifest, plan: Plan) -> str:
    rows = []
    for feature in manifest.schema.features:
        found = plan.statistics[feature.name]
        numbers = [found.mean, found.variance**0.5, found.low, found.high]
        rows.append(
            [
                escape(feature.describe()),
                f"{found.count:,}",
                f"{found.missing:,}",
                *(f"{number:.6g}" for number in numbers),
            ]
        )
    return _table(
        ["feature", "observed", "missing", "mean", "standard deviation", "least", "greatest"], rows
    )


def _accounts(manifest: Manifest) -> str:
    rows = []
    for split in manifest.splits:
        account = manifest.accounts[split]
        # In the order of reasons: that of the rows depends on how the input was cut.
        reasons = sorted([*account.dropped.items(), *account.rejected.items()])
        why = [f"{n:,} × {reason}" for reason, n in reasons]
        rows.append(
            [
                escape(split),
                f"{account.read:,}",
                f"{account.written:,}",
                f"{sum(account.dropped.values()):,}",
                f"{sum(account.rejected.values()):,}",
                escape("; ".join(why)),
            ]
        )
    return _table(["split", "read", "written", "dropped", "rejected", "why"], rows)


def _padding(manifest: Manifest, plan: Plan, split: str) -> str:
    histogram = plan.histograms[split]
    longest = max(histogram)
    steps = sum(length * rows for length, rows in histogram.items())
    before = 1 - steps / (longest * sum(histogram.values()))
    return (
        f"<p>{sum(histogram.values()):,} rows, {steps:,} real steps, lengths from "
        f"{min(histogram)} to {longest}. Padding: <b>{before:.1%}</b> if all were padded to the "
        f"longest, <b>{manifest.padding_fraction(split):.1%}</b> in these buckets.</p>"
    )


def _histogram(counts: Mapping[int, int]) -> str:
    width = -(-max(counts) // _BARS)
    bars = [0] * -(-max(counts) // width)
    for length, rows in counts.items():
        bars[(length - 1) // width] += rows
    most = max(bars)
    cells = "".join(
        f'<div style="height:{100 * rows / most:.2f}%" '
        f'title="{i * width + 1}–{(i + 1) * width}: {rows:,} rows"></div>'
        for i, rows in enumerate(bars)
    )
    axis = f"<div class=axis><span>length 1</span><span>{len(bars) * width}</span></div>"
    return f"<div class=histogram>{cells}</div>{axis}"


def _buckets(manifest: Manifest, split: str) -> str:
    rows = []
    for max_length in manifest.max_lengths:
        shards = manifest.shards_of(split, max_length)
        records = sum(shard.records for shard in shards)
        if not records:
            continue
        steps = sum(shard.steps for shard in shards)
        share = steps / (records * max_length)
        meter = (
            f'<span class=meter><span class=bar style="width:{share:.2%}"></span>'
            f'<span class="bar padding" style="width:{1 - share:.2%}"></span></span>'
        )
        rows.append(
            [
                f"{max_length}",
                f"{records:,}",
                f"{steps:,}",
                f"{1 - share:.1%}",
                meter,
                f"{len(shards):,}",
                f"{sum(shard.nbytes for shard in shards):,}",
            ]
        )
    return _table(
        ["max_length", "rows", "real steps", "padding", "steps and padding", "shards", "bytes"],
        rows,
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{name}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>\n{body}</table>"
