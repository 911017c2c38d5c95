"""`lengthwise inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    import numpy as np

    from lengthwise.dataset.errors import CorruptDataError
    from lengthwise.dataset.schema import LENGTH, MASK

    layout = manifest.layouts[shard.max_length]
    path = manifest.path_of(shard)
    count = min(most, shard.records)
    try:
        with open(path, "rb") as file:
            data = file.read(count * layout.stride)
    except OSError as reason:
        raise CorruptDataError(f"{path}: cannot be read: {reason.strerror}") from None
    if len(data) < count * layout.stride:
        raise CorruptDataError(
            f"{path}: is shorter than the manifest says; run `lengthwise verify`"
        )
    decoded = layout.decode(np.frombuffer(data, np.uint8).reshape(count, layout.stride))
    for row in range(count):
        length = int(decoded[LENGTH][row])
        missing = length - int(decoded[MASK][row].sum())
        click.echo(f"\n{shard.name}, record {row}: length {length}, {missing} steps missing")
        for feature in manifest.schema.features:
            values = decoded[feature.name][row]
            shown = values[:length] if feature.sequence else values
            text = np.array2string(shown, threshold=24, edgeitems=2, precision=4)
            click.echo(f"  {feature.name} = " + text.replace("\n", "\n      "))
    return count
