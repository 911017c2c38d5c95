"""`lengthwise doctor`: does the mask reach every layer that needs it?"""

from __future__ import annotations

import json
import sys

import click

from lengthwise.pipeline.commands.chatter import without_chatter


@click.command("doctor")
@click.argument("model", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array and nothing else.")
def command(*, model: str, as_json: bool) -> None:
    """Follow the mask through the Keras model in the file MODEL.

    The model runs on a small random batch, and on the same rows with other padding. One line tells
    each layer that drops the mask or reads padding, each output whose loss would be averaged over
    padding, and each layer that cannot use cuDNN. Exits with 1 if anything but speed is wrong.
    """
    with without_chatter():
        from lengthwise.model import check_model_file

        findings = check_model_file(model)
    if as_json:
        fields = ("kind", "layer", "message")
        click.echo(json.dumps([{name: getattr(f, name) for name in fields} for f in findings]))
    else:
        for finding in findings:
            click.echo(str(finding))
        if not findings:
            click.echo("padding changes nothing: the mask reaches every layer that needs it")
    if any(finding.wrong for finding in findings):
        sys.exit(1)
