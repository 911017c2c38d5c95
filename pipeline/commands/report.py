"""`lengthwise report`."""

from __future__ import annotations

import click


@click.command("report")
@click.argument("dataset", type=click.Path())
def command(*, dataset: str) -> None:
    """Write DATASET/report.html again, as build does: histograms, padding by bucket, accounts."""
    from lengthwise.dataset import Manifest
    from lengthwise.dataset.errors import OutputError
    from lengthwise.dataset.manifest import REPORT_NAME
    from lengthwise.pipeline.report import render_report
    from lengthwise.transforms.writing import write_text

    manifest = Manifest.load(dataset)
    path = manifest.root / REPORT_NAME
    try:
        write_text(path, render_report(manifest))
    except OSError as reason:
        raise OutputError(f"{path}: cannot be written: {reason.strerror}") from None
    click.echo(f"report: {path}")
