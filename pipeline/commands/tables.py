"""Tables that several commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from lengthwise.dataset import Manifest, Plan


def console() -> Console:
    """Where tables go; plain and wide enough where there is no terminal.

    Without markup: names of columns and files may hold brackets.
    """
    found = Console(highlight=False, markup=False)
    if found.is_terminal:
        return found
    return Console(highlight=False, markup=False, width=100, no_color=True)


def bucket_table(plan: Plan) -> Table:
    """Rows, steps, padding and shards of each bucket, over all splits."""
    table = _table("max_length", "rows", "real steps", "padding", "shards")
    counts = plan.shard_counts()
    all_rows = all_steps = all_slots = all_shards = 0
    previous = 0
    for max_length in plan.max_lengths:
        rows = steps = 0
        for histogram in plan.histograms.values():
            for length, count in histogram.items():
                if previous < length <= max_length:
                    rows += count
                    steps += count * length
        shards = sum(n for (_, end), n in counts.items() if end == max_length)
        table.add_row(*_cells(str(max_length), rows, steps, rows * max_length, shards))
        previous = max_length
        all_rows, all_steps = all_rows + rows, all_steps + steps
        all_slots, all_shards = all_slots + rows * max_length, all_shards + shards
    table.add_section()
    table.add_row(*_cells("all", all_rows, all_steps, all_slots, all_shards))
    return table


def split_table(manifest: Manifest) -> Table:
    """Accounts and padding of each split."""
    table = _table("split", "read", "written", "dropped", "rejected", "padding", "shards", "bytes")
    for split in manifest.splits:
        account = manifest.accounts[split]
        shards = manifest.shards_of(split)
        table.add_row(
            split,
            f"{account.read:,}",
            f"{account.written:,}",
            f"{sum(account.dropped.values()):,}",
            f"{sum(account.rejected.values()):,}",
            f"{manifest.padding_fraction(split):.1%}",
            f"{len(shards):,}",
            f"{sum(shard.nbytes for shard in shards):,}",
        )
    return table


def number_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of names and numbers, with the columns of the first."""
    table = _table(*(name.replace("_", " ") for name in rows[0]))
    for row in rows:
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _cells(name: str, rows: int, steps: int, slots: int, shards: int) -> list[str]:
    padding = 1 - steps / slots if slots else 0.0
    return [name, f"{rows:,}", f"{steps:,}", f"{padding:.1%}", f"{shards:,}"]
