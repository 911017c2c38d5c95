"""`lengthwise verify`."""

from __future__ import annotations

import sys

import click


@click.command("verify")
@click.argument("dataset", type=click.Path())
def command(*, dataset: str) -> None:
    """Check every byte of DATASET against its manifest.

    Prints one line for each fault and exits with 1, or says that the dataset is whole.
    """
    from lengthwise.dataset import Manifest, verify

    faults = verify(dataset)
    for fault in faults:
        click.echo(fault)
    if faults:
        click.echo(f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in {dataset}", err=True)
        sys.exit(1)
    manifest = Manifest.load(dataset)
    records = sum(shard.records for shard in manifest.shards)
    nbytes = sum(shard.nbytes for shard in manifest.shards)
    click.echo(
        f"{dataset}: whole: {records:,} records in {len(manifest.shards):,} shards, "
        f"{nbytes:,} bytes"
    )
