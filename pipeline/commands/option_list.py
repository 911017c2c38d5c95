"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def with_options(command: F, options: Sequence[Callable[[Any], Any]]) -> F:
    """Adds options to a command; its help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command
