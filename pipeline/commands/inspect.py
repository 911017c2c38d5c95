"""`lengthwise inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lengthwise.dataset import Manifest, Shard


@click.command("inspect")
@click.argument("dataset", type=click.Path())
@click.option("--split", default=None, help="Rows of this split. [default: train]")
@click.option(
    "--rows", type=click.IntRange(0), default=3, show_default=True, help="How many rows to show."
)
def command(*, dataset: str, split: str | None, rows: int) -> None:
    """Show schema, buckets, padding and a few decoded rows of DATASET."""
    from lengthwise.dataset import Manifest, Plan
    from lengthwise.dataset.manifest import PLAN_NAME
    from lengthwise.pipeline.commands.tables import bucket_table, console, split_table

    manifest = Manifest.load(dataset)
    out = console()
    click.echo(f"dataset {manifest.fingerprint}, {manifest.created_by}\n")
    click.echo(f"features\n{manifest.schema}\n")
    click.echo("buckets")
    out.print(bucket_table(Plan.load(manifest.data_folder / PLAN_NAME)))
    click.echo("\nsplits")
    out.print(split_table(manifest))
    if split is None:
        in_turn = sorted(manifest.splits, key=lambda name: (name != "train", name))
        split = next((name for name in in_turn if manifest.records(name)), in_turn[0])
    shards = manifest.shards_of(split)
    left = rows
    for shard in shards:
        if left <= 0:
            break
        left -= _show_rows(manifest, shard, left)


def _show_rows(manifest: Manifest, shard: Shard, most: int) -> int:
    from lengthwise.dataset.errors import CorruptDataError
    from lengthwise.dataset.shard_records import decode_block, read_shard

    layout = manifest.layouts[shard.max_length]
    path = manifest.path_of(shard)
    count, shown = min(most, shard.records), 0
    try:
        with path.open("rb") as file:
            for block in read_shard(file, layout, shard.compression, records=shard.records):
                decoded = decode_block(block, layout, [field.name for field in layout.fields])
                for row in range(min(count - shown, len(block))):
                    values = {name: rows[row] for name, rows in decoded.items()}
                    _show_row(manifest, shard, shown + row, values)
                shown += len(block)
                if shown >= count:
                    return count
    except OSError as reason:
        raise CorruptDataError(f"{path}: cannot be read: {reason.strerror}") from None
    except CorruptDataError as reason:
        raise CorruptDataError(f"{path}: {reason}; run `lengthwise verify`") from None
    raise CorruptDataError(f"{path}: is shorter than the manifest says; run `lengthwise verify`")


def _show_row(manifest: Manifest, shard: Shard, number: int, values: dict[str, Any]) -> None:
    import numpy as np

    from lengthwise.dataset.schema import LENGTH, MASK

    length = int(values[LENGTH])
    steps = manifest.steps_of(length, shard.max_length)
    missing = length - int(values[MASK].sum())
    click.echo(f"\n{shard.name}, record {number}: length {length}, {missing} steps missing")
    for feature in manifest.schema.features:
        shown = values[feature.name][steps] if feature.sequence else values[feature.name]
        text = np.array2string(shown, threshold=24, edgeitems=2, precision=4)
        click.echo(f"  {feature.name} = " + text.replace("\n", "\n      "))
        if feature.element_mask:
            observed = values[feature.observed_name]
            of = length * feature.size
            click.echo(f"  {feature.observed_name}: {int(observed.sum())} of {of} elements")
