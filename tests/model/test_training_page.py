"""Every command of docs/training.md can be read by the command line."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def test_the_commands_of_the_page_are_commands():
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").replace(";", "\n").splitlines()
    seen = set()
    for line in lines:
        _, found, rest = line.partition("lengthwise ")
        if not found:
            continue
        name, *arguments = shlex.split(rest, comments=True)
        command = importlib.import_module(f"lengthwise.pipeline.commands.{name}").command
        # Fails for an option that there is not, and for a value that it does not take.
        command.make_context(name, arguments).close()
        seen.add(name)
    assert seen == {"build", "train", "evaluate", "tune"}
