"""Writes docs/options.md: every option of every command, as the commands themselves say it.

python docs/render_options.py > docs/options.md
"""

from __future__ import annotations

import click

from lengthwise.pipeline.commands.main import group


def render() -> str:
    """The page."""
    parts = [
        "# Options",
        "Every command and every option, as `--help` (`-h`) says it. This page is written by "
        "`docs/render_options.py`; a test holds it true.",
    ]
    context = click.Context(group, info_name="lengthwise")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=context) as inner:
            usage = command.collect_usage_pieces(inner)
            parts.append(f"## lengthwise {' '.join([name, *usage])}")
            parts.append((command.help or "").split("\n\n")[0].replace("\n", " "))
            rows = [
                record
                for option in command.params
                if (record := option.get_help_record(inner)) is not None
            ]
            lines = ["| option | meaning |", "|---|---|"]
            lines += [f"| `{_cell(left)}` | {_cell(right)} |" for left, right in rows]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(render(), end="")
