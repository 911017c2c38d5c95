"""docs/options.md is what the commands say of themselves."""

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page_of_options_is_true():
    render = runpy.run_path(str(DOCS / "render_options.py"))["render"]
    page = (DOCS / "options.md").read_text(encoding="utf-8")
    assert page == render(), "write it again: python docs/render_options.py > docs/options.md"
