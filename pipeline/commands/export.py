"""`lengthwise export`: a trained model as others can use it."""

from __future__ import annotations

import click

from lengthwise.pipeline.commands.chatter import without_chatter
from lengthwise.pipeline.commands.run_options import run_options


@click.command("export")
@click.argument("run", type=click.Path())
@click.argument("directory", type=click.Path(), metavar="DIR")
@run_options
def command(*, run: str, directory: str, checkpoint: str, build_model: str | None) -> None:
    """Export the model of the run folder RUN to the new folder DIR.

    DIR becomes a SavedModel that takes ragged rows as they come: strings and numbers that are not
    normalised; vocabulary, normalisation and masking are inside. Beside it model.keras, the
    network alone, and serving.json, which says what goes in and what comes out.

    \b
    lengthwise export RUN models/speakers/1
    """
    with without_chatter():
        from lengthwise.model.exporting import export
        from lengthwise.model.networks import find_builder

        if build_model is not None:
            find_builder(build_model)
        exported = export(run, directory, checkpoint=checkpoint)
    click.echo("inputs of the signature serving_default")
    for name, what in exported.inputs.items():
        click.echo(f"  {name}: {what}")
    click.echo(f"outputs\n  {', '.join(exported.outputs)}\nmodel: {directory}")
