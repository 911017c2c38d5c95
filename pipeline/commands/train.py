"""`lengthwise train`: from a dataset folder to a trained model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lengthwise.pipeline.commands.chatter import without_chatter
from lengthwise.pipeline.commands.option_list import with_options


def _words(*words: str) -> Any:
    return click.Choice(words)


# Every field of TrainConfig; the defaults are the same, which a test holds.
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--task",
        type=_words("classify", "regress", "tag"),
        default="classify",
        show_default=True,
        help="What to learn: a class for each row (or each of several labels of 0 and 1), numbers "
        "for each row, or a class for each step.",
    ),
    click.option("--label", help="Feature to predict.  [default: the dataset's only label]"),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME",
        help="Feature that the network sees; may be given more than once.  [default: all but "
        "labels]",
    ),
    click.option("--split", default="train", show_default=True, help="Split to train on."),
    click.option(
        "--validation-split",
        help="Split that chooses the best epoch.  [default: 'val' or 'validation' where there is "
        "one, otherwise the numbers of training choose]",
    ),
    click.option(
        "--build-model",
        metavar="MODULE:FUNCTION",
        help="A network of your own: a function of inputs, output and options that gives a "
        "keras.Model.",
    ),
    click.option(
        "--units", metavar="N", default=64, show_default=True, help="State size of each direction."
    ),
    click.option(
        "--layers", metavar="N", default=1, show_default=True, help="BiLSTMs on top of each other."
    ),
    click.option(
        "--embedding-size",
        metavar="N",
        default=32,
        show_default=True,
        help="Size of an id's vector.",
    ),
    click.option(
        "--context",
        type=_words("embed", "onehot"),
        default="embed",
        show_default=True,
        help="How ids that belong to the row enter.",
    ),
    click.option(
        "--dropout", default=0.3, show_default=True, help="Fraction dropped after each layer."
    ),
    click.option(
        "--pooling",
        type=_words("last", "mean", "max", "attention"),
        default="last",
        show_default=True,
        help="From real steps to a row: last step of each direction, mean, max, or attention.",
    ),
    click.option(
        "--layer-norm/--no-layer-norm",
        default=False,
        show_default=True,
        help="Normalise the outputs of each layer.",
    ),
    click.option(
        "--residual/--no-residual",
        default=False,
        show_default=True,
        help="Add the input of each layer but the first to its output.",
    ),
    click.option(
        "--normalize/--no-normalize",
        default=True,
        show_default=True,
        help="Bring float features, and labels to regress, to mean 0 and variance 1 inside the "
        "model, unless the build did.",
    ),
    click.option(
        "--epochs",
        metavar="N",
        default=40,
        show_default=True,
        help="Passes over the training split.",
    ),
    click.option(
        "--batch-size",
        metavar="N",
        default=32,
        show_default=True,
        help="Rows of a batch, over all replicas.",
    ),
    click.option(
        "--token-budget",
        metavar="N",
        type=int,
        help="Padded steps of a batch, instead of --batch-size: many short rows or few long ones.",
    ),
    click.option("--learning-rate", default=0.005, show_default=True, help="Of Adam."),
    click.option(
        "--schedule",
        type=_words("constant", "cosine", "plateau"),
        default="constant",
        show_default=True,
        help="Learning rate after the warm-up: constant, falling to 0 along a cosine, or lowered "
        "where nothing gets better.",
    ),
    click.option(
        "--warmup-steps",
        metavar="N",
        default=0,
        show_default=True,
        help="Updates over which the learning rate rises.",
    ),
    click.option(
        "--plateau-patience",
        metavar="N",
        default=3,
        show_default=True,
        help="Epochs without a better one after which --schedule plateau lowers the rate.",
    ),
    click.option(
        "--plateau-factor",
        default=0.5,
        show_default=True,
        help="What --schedule plateau multiplies the rate by.",
    ),
    click.option(
        "--weight-decay", default=0.0, show_default=True, help="Of AdamW, in place of Adam."
    ),
    click.option("--clip-norm", default=1.0, show_default=True, help="Largest norm of a gradient."),
    click.option(
        "--accumulate-steps",
        metavar="N",
        default=1,
        show_default=True,
        help="Batches whose mean gradient makes one update.",
    ),
    click.option(
        "--class-weights",
        type=_words("none", "balanced"),
        default="none",
        show_default=True,
        help="balanced: rare classes weigh more in the loss of training.",
    ),
    click.option(
        "--precision",
        type=_words("float32", "mixed_bfloat16", "mixed_float16"),
        default="float32",
        show_default=True,
        help="Of the layers; weights stay float32.",
    ),
    click.option(
        "--patience",
        metavar="N",
        type=int,
        help="Stop after so many epochs without a better one.  [default: never]",
    ),
    click.option(
        "--monitor",
        type=_words("loss", "accuracy", "macro_f1", "rmse", "mae"),
        default="loss",
        show_default=True,
        help="Number that says which epoch is better.",
    ),
    click.option(
        "--checkpoint-steps",
        metavar="N",
        type=int,
        help="Write the state of the run every N steps too, so that a killed run loses less.  "
        "[default: at the end of each epoch]",
    ),
    click.option(
        "--strategy",
        type=_words("none", "mirrored", "multiworker"),
        default="none",
        show_default=True,
        help="mirrored: all GPUs of this machine; multiworker: the processes of TF_CONFIG.",
    ),
    click.option(
        "--seed", metavar="N", default=0, show_default=True, help="Of weights, dropout, row order."
    ),
)


def config_options(function: Any) -> Any:
    """Decorates a command with an option for every field of `TrainConfig`, and `--config`."""
    function = with_options(function, _OPTIONS)
    return click.option(
        "--config",
        "config_path",
        metavar="FILE.yaml",
        type=click.Path(),
        help="Options as lines 'name: value', with the names of this page; those of the command "
        "line take their place.",
    )(function)


def read_config(config_path: str | None, options: dict[str, Any]) -> Any:
    """The `TrainConfig` of a command: its file, and over it what was given on the command line."""
    from lengthwise.model import TrainConfig

    options = {**options, "inputs": options["inputs"] or None}
    if config_path is None:
        return TrainConfig(**options)
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is not default
    }
    return TrainConfig.from_yaml(config_path, **given)


@click.command("train")
@click.argument("dataset", type=click.Path())
@click.option(
    "--run-dir",
    required=True,
    type=click.Path(),
    help="Folder for checkpoints, history and metrics. A run that was stopped goes on in it.",
)
@click.option("--fresh", is_flag=True, help="Begin again, whatever the run has done so far.")
@config_options
def command(
    *, dataset: str, run_dir: str, fresh: bool, config_path: str | None, **options: Any
) -> None:
    """Train a masked BiLSTM on the dataset folder DATASET.

    The run folder gets config.json, history.csv, metrics.json, plots, and the model of the best
    epoch (best.keras) and of the last one (last.keras). The same command gives the same weights on
    the same machine; one that was killed goes on where it was and ends with the same weights too.

    \b
    lengthwise train OUT --run-dir RUN --epochs 40
    lengthwise evaluate RUN OUT --split test
    """
    from rich.console import Console

    with without_chatter():
        from lengthwise.model import train

    config = read_config(config_path, options)
    result = train(dataset, run_dir, config, console=Console(stderr=True), fresh=fresh)
    for name, items in (result.unseen or {}).items():
        click.echo(
            f"note: class '{name}' is not in training, yet {items:,} × in validation; nothing "
            "could be learnt about it",
            err=True,
        )
    shown = [name for name in result.best if name.removeprefix("val_") in _NUMBERS]
    numbers = "  ".join(f"{name} {result.best[name]:.4f}" for name in shown)
    click.echo(
        f"best epoch {result.best_epoch} of {len(result.history)}: {numbers} "
        f"({result.seconds:.1f} s)\nrun: {result.run.path}"
    )


_NUMBERS = ("loss", "accuracy", "macro_f1", "rmse", "mae")
