"""`lengthwise evaluate`: how good a trained model is on a split."""

from __future__ import annotations

import json

import click

from lengthwise.pipeline.commands.chatter import without_chatter


@click.command("evaluate")
@click.argument("run", type=click.Path())
@click.argument("dataset", type=click.Path())
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@click.option(
    "--checkpoint",
    default="best",
    show_default=True,
    help="Model to measure: 'best' or 'last' epoch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def command(*, run: str, dataset: str, split: str, checkpoint: str, as_json: bool) -> None:
    """Measure the model of the run folder RUN on a split of the dataset folder DATASET.

    Loss (mean cross-entropy in nats) and accuracy are means over the rows of the split.
    """
    with without_chatter():
        from lengthwise.model import evaluate

    numbers = evaluate(run, dataset, split, checkpoint=checkpoint)
    if as_json:
        click.echo(json.dumps({"split": split, "checkpoint": checkpoint, **numbers}))
        return
    click.echo(f"split      {split}\ncheckpoint {checkpoint}")
    for name, value in numbers.items():
        click.echo(f"{name:<10} {value:.4f}" if isinstance(value, float) else f"{name:<10} {value}")
