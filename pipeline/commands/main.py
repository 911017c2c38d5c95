"""The command group: finds a command's module when it is called, and turns errors into lines."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib import import_module

import click

# Command -> what it does, here so that `--help` imports no command.
_COMMANDS = {
    "plan": "Read the input once and choose buckets; writes plan.json.",
    "build": "Build a dataset: bucketed, padded, masked TFRecords.",
    "verify": "Check every byte of a dataset against its manifest.",
    "inspect": "Show schema, buckets, padding and a few rows of a dataset.",
    "report": "Write report.html of a dataset again.",
    "train": "Train a masked BiLSTM on a dataset.",
    "evaluate": "Evaluate a trained run on a split of a dataset.",
    "tune": "Search for good options of training.",
    "predict": "Predict the rows of raw input files with a trained run.",
    "export": "Export a trained run as a SavedModel that takes ragged rows as they come.",
    "doctor": "Follow the mask through a Keras model, and tell what reads padding.",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return import_module(f"lengthwise.pipeline.commands.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`lengthwise COMMAND --help` explains a command. Exit codes: 0 done, 1 a fault in data "
    "or result, 2 wrong usage.",
)
@click.version_option(package_name="lengthwise", message="lengthwise %(version)s")
@click.option("--verbose", is_flag=True, help="Show what Beam and TensorFlow have to say.")
def group(*, verbose: bool) -> None:
    """Ragged sequences to bucketed, padded, masked TFRecords, and a BiLSTM trained on them.

    \b
    lengthwise build rows.parquet DATASET --sequence tokens --label topic
    lengthwise train DATASET --task classify --run-dir RUN
    lengthwise evaluate RUN DATASET --split test
    lengthwise predict RUN new-rows.parquet -o predictions.parquet
    """
    if verbose:
        os.environ["LENGTHWISE_VERBOSE"] = "1"
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        logging.disable(logging.ERROR)
        warnings.simplefilter("ignore")


def main() -> None:
    """The console script: runs a command, and prints one line where it cannot be done."""
    # Arrow's allocator keeps the memory of a batch for the next one; read when Arrow is imported.
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
    try:
        group.main(standalone_mode=False, prog_name="lengthwise")
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("lengthwise: stopped; the same command takes up where it was", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        # Imported only now: with its room it brings numpy and pyarrow, which `--help` never needs.
        from lengthwise.dataset.errors import LengthwiseError, UsageError

        if isinstance(error, OSError):
            place = f"{error.filename}: " if error.filename else ""
            error = LengthwiseError(f"{place}{error.strerror or error}")
        if not isinstance(error, LengthwiseError):
            raise
        click.echo(f"lengthwise: {error}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
