"""`lengthwise predict`: raw input files through a trained model."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from lengthwise.pipeline.commands.chatter import without_chatter
from lengthwise.pipeline.commands.options import execution_options, split_beam_args
from lengthwise.pipeline.commands.run_options import run_options
from lengthwise.pipeline.commands.source_options import reading_given, source_options


@click.command("predict")
@click.argument("run", type=click.Path())
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@click.option(
    "-o",
    "--output",
    default="predictions.parquet",
    show_default=True,
    type=click.Path(),
    help="The Parquet file; predictions that are there already are replaced.",
)
@run_options
@source_options
@execution_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    run: str,
    inputs: tuple[str, ...],
    output: str,
    checkpoint: str,
    build_model: str | None,
    workers: int,
    runner: str,
    ship: bool,
    **values: Any,
) -> None:
    """Predict the rows of INPUT with the model of the run folder RUN; write a Parquet file.

    INPUT is raw, as for plan and build, and needs no labels. Vocabulary, normalisation, filling and
    overlong policy are those of the dataset that the model was trained on. A row that cannot be
    used has no prediction but a reason.

    \b
    lengthwise predict RUN new-rows.jsonl -o predictions.parquet
    """
    with without_chatter():
        import lengthwise.model.loading  # noqa: F401, TensorFlow is loud only when it is loaded

    from lengthwise.dataset.errors import UsageError
    from lengthwise.pipeline.predicting import predict
    from lengthwise.pipeline.progress import ConsoleProgress
    from lengthwise.pipeline.runners import Execution

    paths, beam_args = split_beam_args(inputs)
    if not paths:
        raise UsageError("give at least one INPUT after RUN")
    if not output.strip():
        raise UsageError("--output is empty; name a file")
    # An option that was written down counts, also where it has the value of its default.
    given = [n for n in values if ctx.get_parameter_source(n) is not ParameterSource.DEFAULT]
    with ConsoleProgress() as progress:
        found = predict(
            run,
            paths,
            output,
            checkpoint=checkpoint,
            build_model=build_model,
            reading=reading_given(values, given),
            execution=Execution(runner, workers, beam_args, ship=ship),
            progress=progress,
        )
    without = sum(found.reasons.values())
    click.echo(f"{found.rows:,} rows, {found.rows - without:,} predicted")
    for reason, rows in found.reasons.items():
        click.echo(f"  {rows:,} × {reason}")
    click.echo(f"predictions: {output}")
