"""`lengthwise plan`."""

from __future__ import annotations

from typing import Any

import click

from lengthwise.pipeline.commands.options import (
    execution_options,
    names_and_options,
    planning_options,
    split_beam_args,
    vocabularies,
)
from lengthwise.pipeline.commands.source_options import reading_of, source_options


@click.command("plan")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@click.option(
    "-o",
    "--output",
    default="plan.json",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="Where the plan goes.",
)
@planning_options
@source_options
@execution_options
def command(
    *, inputs: tuple[str, ...], output: str, workers: int, runner: str, ship: bool, **values: Any
) -> None:
    """Read INPUT once and choose buckets; write plan.json.

    INPUT is a file, a glob, a folder or a URL of Parquet, Arrow, JSON Lines, CSV, text, TFRecord or
    a data set of Hugging Face. The plan holds exact statistics, the boundaries of the buckets and
    all options; it can be read and edited; `lengthwise build --plan` follows it.

    \b
    lengthwise plan rows.parquet -o plan.json --sequence tokens --label topic
    """
    from pathlib import Path

    from lengthwise.dataset.errors import OutputError, UsageError
    from lengthwise.dataset.storage import absolute_path
    from lengthwise.pipeline.commands.tables import bucket_table, console
    from lengthwise.pipeline.planning import curve_of, make_plan
    from lengthwise.pipeline.progress import ConsoleProgress
    from lengthwise.pipeline.runners import Execution
    from lengthwise.transforms.writing import write_text

    paths, beam_args = split_beam_args(inputs)
    names, options = names_and_options(values)
    if not output:
        raise UsageError("--output is empty; name a file")
    target = absolute_path(output)
    folder = target.parent
    if isinstance(folder, Path) and not folder.is_dir():
        raise OutputError(f"{output}: the folder {folder} does not exist")
    execution = Execution(runner, workers, beam_args, ship=ship)
    with ConsoleProgress() as progress:
        plan = make_plan(
            paths,
            names=names,
            options=options,
            vocabularies=vocabularies(values),
            reading=reading_of(values),
            execution=execution,
            staging=None if execution.is_local else target.with_name(f".{target.name}.staging"),
            progress=progress,
        )
    try:
        write_text(output, plan.dumps())
    except OSError as reason:
        raise OutputError(f"{output}: cannot be written: {reason.strerror}") from None
    out = console()
    click.echo(f"features\n{plan.schema}\n")
    click.echo("padding against the number of buckets")
    out.print(_curve_table(curve_of(plan), chosen=len(plan.max_lengths)))
    click.echo("\nchosen buckets")
    out.print(bucket_table(plan))
    click.echo(f"\nplan: {output}")


def _curve_table(curve: list[Any], *, chosen: int) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("buckets", justify="right")
    table.add_column("padding", justify="right")
    table.add_column("")
    # Every point near the choice and at the start, then a few: the curve can have 64.
    shown = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, chosen - 1, chosen, chosen + 1, len(curve)}
    for point in sorted(shown & set(range(1, len(curve) + 1))):
        fraction = curve[point - 1].padding_fraction
        bar = "█" * round(40 * fraction)
        mark = "  ← chosen" if point == chosen else ""
        table.add_row(str(point), f"{fraction:.1%}", f"{bar}{mark}")
    return table
