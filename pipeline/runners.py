"""How a Beam pipeline is run: on this machine by default, anywhere by the same code."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import create_runner
from apache_beam.transforms import environments

from lengthwise.dataset.errors import LengthwiseError, OutputError, UsageError
from lengthwise.pipeline.runner_options import IN_MEMORY, left_open
from lengthwise.pipeline.shipping import write_wheel
from lengthwise.pipeline.sources import one_line
from lengthwise.pipeline.versions import WorkerError
from lengthwise.pipeline.worker import VERBOSE, bundles_end_soon
from lengthwise.pipeline.worker_counts import describe_counts

LOCAL_RUNNER = "local"
# Each is a process with a hundred MiB of its own; past the number of cores none helps.
MAX_WORKERS = 256
EXCHANGES = ("spill", "engine")
# What Beam puts behind the message of an exception.
_STEP = re.compile(r" \[while running '[^']*'\]")


@dataclass(frozen=True)
class Execution:
    """Where and with how many workers a job runs.

    Attributes:
        runner: `local`, or the name of a runner of Beam.
        workers: processes on this machine; the local runner only.
        beam_args: options handed to Beam as they are, as in `--flink_master=…`; see
            `runner_options` for what Lengthwise adds where they leave something open.
        exchange: how rows get to their shards, one of `EXCHANGES`; None takes `spill` for runners
            whose shuffle is in memory and `engine` for others.
        ship: whether workers are sent this Lengthwise as a package, which they install.
    """

    runner: str = LOCAL_RUNNER
    workers: int = 1
    beam_args: tuple[str, ...] = ()
    exchange: str | None = None
    ship: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--workers is {self.workers}; it must lie within [1, {MAX_WORKERS}]")
        if self.exchange not in (None, *EXCHANGES):
            raise UsageError(
                f"--exchange is {self.exchange!r}; it must be one of {', '.join(EXCHANGES)}"
            )

    def check(self) -> None:
        """Raises UsageError where Beam knows no such runner or option, LengthwiseError where the
        cluster cannot be reached. With `--verbose`, says what Lengthwise has chosen.
        """
        options = _options(list(self.beam_args))
        if self.ship and self.is_local:
            raise UsageError("--ship is for workers elsewhere; those of --runner local are here")
        if self.runner != LOCAL_RUNNER:
            try:
                runner = create_runner(self.runner)
            except (ValueError, ImportError, AttributeError) as reason:
                raise UsageError(f"--runner {self.runner}: {one_line(reason)}") from None
            faults = PipelineOptionsValidator(options, runner).validate()
            if faults:
                raise UsageError(f"--runner {self.runner}: {' '.join(faults)}")
            chosen = ["--exchange " + self.chosen_exchange, *self.left_open]
            _say(f"{self.runner}: {' '.join(chosen)}")

    @cached_property
    def left_open(self) -> tuple[str, ...]:
        """What the runner is told beside `beam_args`."""
        return left_open(self.runner, self.beam_args)

    @property
    def is_local(self) -> bool:
        """Whether all workers are on this machine."""
        return self.runner == LOCAL_RUNNER

    @property
    def chosen_exchange(self) -> str:
        """The exchange that was asked for, or the one that suits the runner."""
        return self.exchange or ("spill" if self.runner in IN_MEMORY else "engine")


def run_pipeline(construct: Callable[[beam.Pipeline], Any], execution: Execution) -> None:
    """Builds a pipeline and runs it to its end.

    Args:
        construct: adds the steps to the pipeline.
        execution: where to run it.

    Raises:
        OutputError: a worker could not write (disk full, no permission).
        LengthwiseError: the pipeline failed; one line says why.
    """
    args = [*execution.beam_args, *execution.left_open]
    runner = execution.runner
    with contextlib.ExitStack() as stack:
        if execution.is_local:
            # FnApiRunner by name: DirectRunner would look for another runner on the network first.
            runner = FnApiRunner(_worker_processes() if execution.workers > 1 else None)
            args.append(f"--direct_num_workers={execution.workers}")
            stack.enter_context(bundles_end_soon())
        if execution.ship:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lengthwise-"))
            args.append(f"--extra_package={write_wheel(Path(folder))}")
        options = _options(args)
        stack.enter_context(one_line_errors())
        stack.enter_context(_old_objects_left_alone())
        pipeline = stack.enter_context(beam.Pipeline(runner=runner, options=options))
        construct(pipeline)
    if os.environ.get(VERBOSE):
        # The job is done: that its counters cannot be had is no fault of it.
        with contextlib.suppress(NotImplementedError, grpc.RpcError):
            _say(describe_counts(pipeline.result))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Says in one line why a pipeline that runs inside has failed.

    Raises:
        OutputError: a worker could not write (disk full, no permission).
        LengthwiseError: the pipeline failed; one line says why.
    """
    try:
        yield
    except LengthwiseError as reason:
        raise type(reason)(_STEP.sub("", str(reason))) from reason
    except OSError as reason:
        raise OutputError(f"{reason.filename or 'output'}: {reason.strerror or reason}") from reason
    except grpc.RpcError as reason:
        raise OutputError(
            f"the job server has gone: {one_line(reason)[:300]}; what was done is kept, run the "
            "same command again"
        ) from reason
    except RuntimeError as reason:
        # A worker's exception arrives as text: its last line is the exception itself.
        _raise_worker_error(str(reason))
        lines = [line for line in str(reason).splitlines() if line.strip()]
        cause = next((line for line in reversed(lines) if "Error" in line), lines[-1])
        raise OutputError(f"the job failed: {_STEP.sub('', cause).strip()[:300]}") from reason


def _say(text: str) -> None:
    if os.environ.get(VERBOSE):
        print(f"lengthwise: {text}", file=sys.stderr)


def _raise_worker_error(text: str) -> None:
    """Raises what a worker has said of itself, where it did, without what runners put around it."""
    if found := re.search(
        rf"{WorkerError.__name__}: (a worker has .*?--ship this Lengthwise)", text
    ):
        raise WorkerError(found[1]) from None
    if "No module named 'lengthwise" in text:
        raise WorkerError(
            "a worker has no Lengthwise; install it there, as in scripts/worker.Dockerfile, or "
            "--ship this one"
        ) from None


@contextlib.contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Spares the garbage collector the objects of Beam, of which a run makes no garbage.

    Beam makes so many short-lived objects that the collector would go through them again and again.
    """
    if gc.get_freeze_count():  # somebody else does it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _options(args: list[str]) -> PipelineOptions:
    """Beam's options; its parser would print a page and exit."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions(args)
            options.get_all_options()
    except SystemExit:
        lines = complaint.getvalue().strip().splitlines() or ["unknown option"]
        raise UsageError(f"options of Beam: {lines[-1].partition('error: ')[2]}") from None
    return options


def _worker_processes() -> environments.Environment:
    command = f"{shlex.quote(sys.executable)} -m lengthwise.pipeline.worker"
    # Beam's decorator hides the class's own methods from type checkers.
    environment: Any = environments.SubprocessSDKEnvironment
    return environment.from_command_string(command)
