"""What docs/reading.md says, done: every example in it runs, in the order in which it stands."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np

from lengthwise.dataset import Feature, Schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reading.md"
VOWELS = Schema(
    (Feature("features", "float32", (12,)), Feature("speaker", "int64", sequence=False, label=True))
)


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, write_rows):
    rng = np.random.default_rng(0)
    rows = [
        {"features": rng.normal(size=(length, 12)).astype(np.float32), "speaker": length % 9}
        for length in range(7, 27)
    ]
    write_rows(tmp_path / "vowels", {"train": rows}, schema=VOWELS, max_lengths=(16, 29))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    if not importlib.util.find_spec("torch"):
        blocks = [block for block in blocks if "torch" not in block]
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert set(names["sizes"]) == {16, 29}  # pyright: ignore
    assert len(list(names["again"])) == 3  # pyright: ignore
    assert {"mixed", "pools", "short"} <= set(names)
