"""`lengthwise train`: from a dataset folder to a trained model."""

from __future__ import annotations

from typing import Any

import click

from lengthwise.pipeline.commands.chatter import without_chatter


@click.command("train")
@click.argument("dataset", type=click.Path())
@click.option(
    "--run-dir",
    required=True,
    type=click.Path(),
    help="Folder for checkpoints, history and metrics. The same run may be in it already.",
)
@click.option(
    "--task",
    default="classify",
    show_default=True,
    help="What to learn; classify: one class for each row.",
)
@click.option("--label", help="Feature to predict.  [default: the dataset's only label]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME",
    help="Feature that the network sees; may be given more than once.  [default: all but labels]",
)
@click.option("--split", default="train", show_default=True, help="Split to train on.")
@click.option(
    "--validation-split",
    help="Split that chooses the best epoch.  [default: 'val' or 'validation' where there is one, "
    "otherwise the training loss chooses]",
)
@click.option(
    "--units", metavar="N", default=64, show_default=True, help="State size of each direction."
)
@click.option(
    "--layers", metavar="N", default=1, show_default=True, help="BiLSTMs on top of each other."
)
@click.option(
    "--embedding-size", metavar="N", default=32, show_default=True, help="Size of an id's vector."
)
@click.option(
    "--dropout", default=0.3, show_default=True, help="Fraction dropped after each layer."
)
@click.option(
    "--normalize/--no-normalize",
    default=True,
    show_default=True,
    help="Bring float features to mean 0 and variance 1 inside the model.",
)
@click.option(
    "--epochs", metavar="N", default=40, show_default=True, help="Passes over the training split."
)
@click.option("--batch-size", metavar="N", default=32, show_default=True, help="Rows of a batch.")
@click.option(
    "--token-budget",
    metavar="N",
    type=int,
    help="Padded steps of a batch, instead of --batch-size: many short rows or few long ones.",
)
@click.option("--learning-rate", default=0.005, show_default=True, help="Of Adam.")
@click.option("--clip-norm", default=1.0, show_default=True, help="Largest norm of a gradient.")
@click.option(
    "--seed", metavar="N", default=0, show_default=True, help="Of weights, dropout and row order."
)
def command(*, dataset: str, run_dir: str, inputs: tuple[str, ...], **options: Any) -> None:
    """Train a masked BiLSTM on the dataset folder DATASET.

    The run folder gets config.json, history.csv, metrics.json, and the model of the best epoch
    (best.keras) and of the last one (last.keras). The same command gives the same weights on the
    same machine.

    \b
    lengthwise train OUT --run-dir RUN --epochs 40
    lengthwise evaluate RUN OUT --split test
    """
    from rich.console import Console

    with without_chatter():
        from lengthwise.model import TrainConfig, train

    config = TrainConfig(inputs=inputs or None, **options)
    result = train(dataset, run_dir, config, console=Console(stderr=True))
    numbers = "  ".join(
        f"{name} {value:.4f}"
        for name, value in result.best.items()
        if name not in ("epoch", "seconds")
    )
    click.echo(
        f"best epoch {result.best_epoch} of {len(result.history)}: {numbers} "
        f"({result.seconds:.1f} s)\nrun: {result.run.path}"
    )
