"""Options of the commands that use a trained model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lengthwise.pipeline.commands.option_list import F, with_options


def run_options(command: F) -> F:
    """Adds the options that say which model of a run is used, and how it is loaded."""
    return with_options(command, _RUN)


_RUN: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--checkpoint",
        type=click.Choice(["best", "last"]),
        default="best",
        show_default=True,
        help="Model of the best epoch or of the last one.",
    ),
    click.option(
        "--build-model",
        metavar="MODULE:FUNCTION",
        help="Of a network of your own: its module is imported first, as it knows the layers.",
    ),
)
