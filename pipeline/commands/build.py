"""`lengthwise build`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from lengthwise.pipeline.commands.options import (
    PLANNING_NAMES,
    execution_options,
    names_and_options,
    planning_options,
    split_beam_args,
    vocabularies,
)
from lengthwise.pipeline.commands.source_options import reading_of, reading_over, source_options


@click.command("build")
@click.argument("paths", nargs=-1, required=True, metavar="INPUT… OUT")
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(),
    help="A plan made before; instead of the options of plan, and of how the input is read.",
)
@planning_options
@source_options
@execution_options
@click.option(
    "--batch-rows",
    type=click.IntRange(1),
    default=None,
    help="Rows that are decoded at once; never changes the result. [default: about 4 MiB]",
)
@click.option(
    "--exchange",
    type=click.Choice(["spill", "engine"]),
    default=None,
    help="How rows get to their shards: through files (spill) or the runner's shuffle (engine). "
    "Same bytes. [default: spill where the shuffle is in memory, engine elsewhere]",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    plan_path: str | None,
    workers: int,
    runner: str,
    ship: bool,
    batch_rows: int | None,
    exchange: str | None,
    **values: Any,
) -> None:
    """Build the dataset OUT of INPUT: bucketed, padded, masked TFRecords.

    INPUT is a file, a glob, a folder or a URL, in any format that plan reads; written as NAME=PATH,
    its rows all go to split NAME. OUT is new, empty, or a dataset, which is replaced once the new
    one is complete. A build that was killed goes on when it is run again.

    \b
    lengthwise build rows/ DATASET --sequence tokens --label topic --split train=0.9,val=0.1
    lengthwise build train=a.parquet test=b.parquet DATASET --sequence frames --label speaker
    """
    from lengthwise.dataset.errors import UsageError
    from lengthwise.dataset.plan import Plan
    from lengthwise.pipeline.building import build
    from lengthwise.pipeline.commands.tables import bucket_table, console, split_table
    from lengthwise.pipeline.progress import ConsoleProgress
    from lengthwise.pipeline.runners import Execution

    (*inputs, out), beam_args = split_beam_args(paths)
    if not inputs:
        raise UsageError("give at least one INPUT and then OUT")
    given = [
        name
        for name in values
        if ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
    ]
    planned = [name for name in PLANNING_NAMES if name in given]
    execution = Execution(runner, workers, beam_args, exchange, ship)
    if plan_path is not None:
        if planned:
            option = planned[0].replace("_", "-")
            raise UsageError(f"--{option} is in the plan already; leave it out, or plan again")
        plan = Plan.load(plan_path)
        planning: dict[str, Any] = {"plan": plan}
        reading = reading_over(plan.reading, values, given)
    else:
        names, options = names_and_options(values)
        reading = reading_of(values)
        planning = {
            "names": names,
            "options": options,
            "vocabularies": vocabularies(values),
        }
    with ConsoleProgress() as progress:
        manifest = build(
            inputs,
            out,
            **planning,
            reading=reading,
            execution=execution,
            batch_rows=batch_rows,
            progress=progress,
        )
    printed = console()
    printed.print(bucket_table(Plan.load(manifest.root / "plan.json")))
    printed.print()
    printed.print(split_table(manifest))
    click.echo(f"\ndataset: {out}\nreport:  {out}/report.html")
