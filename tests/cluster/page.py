"""The table of docs/cluster.md: which runner has shown what."""

from __future__ import annotations

from collections.abc import Sequence

from tests.cluster.processes import REPOSITORY
from tests.cluster.trials import YES, Row

PAGE = REPOSITORY / "docs" / "cluster.md"
_COLUMNS = ("plan", "build (spill)", "build (engine)", "predict")


def show_rows(rows: Sequence[Row], title: str, *, write: bool) -> None:
    """Prints the table, and puts it into the page if asked to."""
    text = f"{title}.\n\n{_table(rows)}"
    print(f"\n{text}")
    if write:
        replace_block("trials", text)


def replace_block(name: str, text: str) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- end of name -->` in the page."""
    page = PAGE.read_text(encoding="utf-8")
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(first)
    _, _, after = rest.partition(last)
    PAGE.write_text(f"{before}{first}\n{text}\n\n{last}{after}", encoding="utf-8")


def _table(rows: Sequence[Row]) -> str:
    lines = [
        f"| runner | {' | '.join(_COLUMNS)} | same bytes | faults survived |",
        "|---" * (len(_COLUMNS) + 3) + "|",
    ]
    for row in rows:
        if not row.cells:
            lines.append(f"| {row.title} | {row.remark} |" + " |" * (len(_COLUMNS) + 1))
            continue
        cells = [row.cells[column] for column in _COLUMNS]
        same = YES if set(cells) == {YES} else "see left"
        faults = "<br>".join(f"{name}: {outcome}" for name, outcome in row.faults.items())
        lines.append(f"| {row.title} | {' | '.join(cells)} | {same} | {faults} |")
    lines += [f"\n{row.title}: {row.remark}." for row in rows if row.cells and row.remark]
    return "\n".join(lines)
