"""`lengthwise tune`: a search for good options of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from lengthwise.pipeline.commands.chatter import without_chatter
from lengthwise.pipeline.commands.train import config_options, read_config


@click.command("tune")
@click.argument("dataset", type=click.Path())
@click.option(
    "--tune-dir",
    required=True,
    type=click.Path(),
    help="Folder for the search and the runs of its trials. A search that was stopped goes on.",
)
@click.option(
    "--trials", metavar="N", type=click.IntRange(1), default=20, show_default=True, help="How many."
)
@click.option(
    "--search",
    "ranges",
    multiple=True,
    metavar="NAME=LOW..HIGH|NAME=A,B,C",
    help="Option of `train` to search for; may be given more than once.  [default: learning_rate, "
    "units, dropout, layers]",
)
@config_options
def command(
    *,
    dataset: str,
    tune_dir: str,
    trials: int,
    ranges: tuple[str, ...],
    config_path: str | None,
    **options: Any,
) -> None:
    """Train with many options on the dataset folder DATASET, and keep what validates best.

    Needs Optuna: pip install 'lengthwise[tune]'. The folder gets best.yaml, for
    `lengthwise train --config`, trials.csv, and a run folder of each trial.

    \b
    lengthwise tune OUT --tune-dir SEARCH --trials 20 --epochs 10 --search units=32,64,128
    lengthwise train OUT --run-dir RUN --config SEARCH/best.yaml
    """
    with without_chatter():
        from lengthwise.model.search import DEFAULT_RANGES, SearchRange, search

    def show(number: int, values: Mapping[str, Any], result: float) -> None:
        shown = "  ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items()
        )
        click.echo(f"trial {number}  {result:.4f}  {shown}", err=True)

    found = search(
        dataset,
        tune_dir,
        read_config(config_path, options),
        ranges=tuple(SearchRange.parse(text) for text in ranges or DEFAULT_RANGES),
        trials=trials,
        on_trial=show,
    )
    best = "  ".join(f"{name}={value}" for name, value in found.best.items())
    click.echo(f"best of {found.trials}: {found.monitor} {found.value:.4f}  {best}\n{found.path}")
