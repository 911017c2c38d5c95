"""`lengthwise evaluate`: how good a trained model is on a split."""

from __future__ import annotations

import json

import click

from lengthwise.pipeline.commands.chatter import without_chatter
from lengthwise.pipeline.commands.run_options import run_options
from lengthwise.pipeline.commands.tables import console, number_table


@click.command("evaluate")
@click.argument("run", type=click.Path())
@click.argument("dataset", type=click.Path())
@click.option("--split", default="test", show_default=True, help="Split to measure on.")
@run_options
@click.option(
    "--write/--no-write",
    default=True,
    show_default=True,
    help="Leave metrics, tables and plots in RUN/evaluation/SPLIT.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def command(
    *,
    run: str,
    dataset: str,
    split: str,
    checkpoint: str,
    build_model: str | None,
    write: bool,
    as_json: bool,
) -> None:
    """Measure the model of the run folder RUN on a split of the dataset folder DATASET.

    All numbers are over the real items of the split (rows, or real steps to tag), and again for
    each bucket, which tells whether long rows fare worse.
    """
    with without_chatter():
        from lengthwise.model.evaluation import evaluate, write_evaluation
        from lengthwise.model.networks import find_builder

    if build_model is not None:
        find_builder(build_model)
    report = evaluate(run, dataset, split, checkpoint=checkpoint)
    folder = write_evaluation(run, split, report, checkpoint=checkpoint) if write else None
    if as_json:
        numbers = {name: value for name, value in report.items() if name != "confusion"}
        click.echo(json.dumps({"split": split, "checkpoint": checkpoint, **numbers}))
        return
    click.echo(f"split      {split}\ncheckpoint {checkpoint}")
    for name, value in report.items():
        if isinstance(value, float):
            click.echo(f"{name:<10} {value:.4f}")
        elif isinstance(value, int):
            click.echo(f"{name:<10} {value:,}")
    click.echo()
    console().print(number_table(report["buckets"]))
    if "classes" in report:
        worst = sorted(report["classes"], key=lambda item: (item["items"] == 0, item["f1"]))
        shown = worst[:20]
        click.echo(f"\nclasses, worst first{'' if len(shown) == len(worst) else ' (20 of them)'}")
        console().print(number_table(shown))
    if folder is not None:
        click.echo(f"\nwritten to {folder}")
