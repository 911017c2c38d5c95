"""The `lengthwise` command."""

from lengthwise.pipeline.commands.main import main

__all__ = ["main"]
