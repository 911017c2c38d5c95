"""docs/format.md: it names every member of the documents, and its example reads every layout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import Manifest, PlanOptions
from lengthwise.pipeline import FeatureNames, build

PAGE = (Path(__file__).resolve().parents[1] / "docs/format.md").read_text(encoding="utf-8")
FRAMES = [[[1.0, float("nan")], [3.0, 4.0]], [[5.0, 6.0]] * 5]


@pytest.fixture(params=[{}, {"canonical": True, "compression": "gzip", "element_mask": True}])
def manifest(request, tmp_path) -> Manifest:
    """A dataset where the example of the page looks for it."""
    type_ = pa.list_(pa.list_(pa.float32(), 2))
    table = pa.table({"frames": pa.array(FRAMES, type_), "speaker": [300, 7]})
    pq.write_table(table, tmp_path / "in.parquet")
    options = PlanOptions(num_buckets=2, align=1, **request.param)
    names = FeatureNames(labels=("speaker",))
    return build([tmp_path / "in.parquet"], tmp_path / "vowels", names=names, options=options)


def test_the_page_names_every_member(manifest):
    named = set(re.findall(r"`([a-z0-9_]+)`", PAGE))
    document = json.loads((manifest.root / "dataset.json").read_text())
    plan = json.loads((manifest.root / "plan.json").read_text())
    members = {*document, *plan}
    for part in ("schema", "buckets", "shards"):
        members |= set(document[part][0])
    members |= set(document["accounts"]["train"])
    members |= {name for field in document["buckets"][0]["fields"].values() for name in field}
    members |= {name for found in plan["statistics"].values() for name in found}
    assert members <= named


def test_the_example_reads_every_record(manifest, monkeypatch):
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(manifest.root.parent)
    kept: list[dict[str, Any]] = []
    # What the loop of the example does with a batch is nothing; here it is kept.
    exec(example + "        kept.append(batch)\n", {"kept": kept})
    assert [batch["frames"].shape for batch in kept] == [(1, 2, 2), (1, 5, 2)]
    assert [batch["speaker"].numpy().tolist() for batch in kept] == [[300], [7]]
    masked = manifest.schema["frames"].element_mask
    assert kept[0]["mask"].numpy().tolist() == [[int(masked), 1]]
    if masked:
        assert kept[0]["frames__observed"].numpy().tolist() == [[[1, 0], [1, 1]]]
