"""A small dataset written through the library, and documents from a hostile hand."""

import copy
import json

import crc32c
import numpy as np
import pytest
from hypothesis import strategies as st

from lengthwise.dataset import Account, Feature, Manifest, Plan, PlanOptions, Schema, Shard
from lengthwise.dataset.manifest import MANIFEST_NAME, PLAN_NAME
from lengthwise.transforms import RaggedRows, assign_buckets, summarize, write_shard
from lengthwise.transforms.encoding import RowEncoder
from lengthwise.transforms.lengths import length_histogram
from lengthwise.transforms.writing import write_text

SCHEMA = Schema(
    (
        Feature("frames", "float32", (2,)),
        Feature("speaker", "int64", sequence=False, label=True),
        Feature("tokens", "int64"),
    )
)
MAX_LENGTHS = (4, 8, 12)
SHARDS = {"train": 2, "val": 1}
LAYOUTS = [
    {},
    {"canonical": True},
    {"compression": "gzip"},
    {"canonical": True, "compression": "gzip"},
]


@pytest.fixture
def dataset(request, tmp_path):
    """The manifest of a dataset in a folder of its own; its layout by an indirect parameter."""
    return write_dataset(tmp_path / "dataset", **getattr(request, "param", {}))


@pytest.fixture(scope="session", params=LAYOUTS, ids=lambda layout: "-".join(layout) or "plain")
def shared_dataset(request, tmp_path_factory):
    """A dataset of each layout for many tests: what a test changes, it changes back."""
    return write_dataset(tmp_path_factory.mktemp("shared") / "dataset", **request.param)


@pytest.fixture(scope="session")
def mutated():
    """A strategy for JSON texts that differ from a document in a few places."""
    return mutated_texts


def write_dataset(root, *, canonical=False, compression="none"):
    rows = {"train": random_rows(30, seed=0), "val": random_rows(9, seed=1)}
    plan = plan_of(rows, canonical=canonical, compression=compression)
    fingerprint = "0123456789abcdef"
    data = root / f"data-{fingerprint}"
    shards = []
    for split, own in rows.items():
        buckets = assign_buckets(own.lengths, MAX_LENGTHS)
        for bucket, max_length in enumerate(MAX_LENGTHS):
            members = np.flatnonzero(buckets == bucket)
            for index, part in enumerate(np.array_split(members, SHARDS[split])):
                records = own.select(part)
                place = {
                    "split": split,
                    "max_length": max_length,
                    "index": index,
                    "count": SHARDS[split],
                    "compression": compression,
                }
                name = Shard(**place, records=0, steps=0, nbytes=0, crc32c=0).name
                framed = RowEncoder(SCHEMA, plan.layout(max_length)).encode(records)
                written = write_shard(data / name, [framed], compression=compression)
                shard = Shard(
                    **place,
                    records=len(records),
                    steps=int(records.lengths.sum()),
                    nbytes=written.nbytes,
                    crc32c=written.crc32c,
                )
                shards.append(shard)
    for folder in (data, root):
        write_text(folder / PLAN_NAME, plan.dumps())
    manifest = Manifest(
        root=root,
        fingerprint=fingerprint,
        created_by="lengthwise tests",
        schema=SCHEMA,
        seed=7,
        max_lengths=MAX_LENGTHS,
        widths=plan.widths,
        shards=tuple(shards),
        accounts={
            "train": Account(33, 30, {"empty sequence": 2}, {"null sequence": 1}),
            "val": Account(9, 9),
        },
        plan_crc32c=crc32c.crc32c(plan.dumps().encode()),
        canonical=canonical,
        compression=compression,
    )
    write_text(root / MANIFEST_NAME, manifest.dumps())
    return manifest


def random_rows(count, *, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, MAX_LENGTHS[-1] + 1, count)
    steps = int(lengths.sum())
    return RaggedRows(
        lengths,
        {
            "frames": rng.normal(size=(steps, 2)).astype(np.float32),
            "tokens": rng.integers(0, 300, steps),
        },
        {"speaker": rng.integers(-1, 9, count)},
    )


def plan_of(rows, **layout):
    summaries = {}
    for own in rows.values():
        ones = np.ones(len(own), np.int64)
        for feature in SCHEMA.features:
            if feature.sequence:
                summary = summarize(own.values[feature.name], own.lengths, feature)
            else:
                summary = summarize(own.contexts[feature.name], ones, feature)
            previous = summaries.get(feature.name)
            summaries[feature.name] = previous.merged(summary) if previous else summary
    return Plan(
        schema=SCHEMA,
        options=PlanOptions(
            num_buckets=3, align=4, splits={"train": 0.75, "val": 0.25}, seed=7, **layout
        ),
        max_lengths=MAX_LENGTHS,
        histograms={split: length_histogram(own.lengths) for split, own in rows.items()},
        statistics={name: summaries[name].statistics(SCHEMA[name]) for name in SCHEMA.names},
    )


# Python's own writer of JSON refuses what its reader takes for infinity.
INFINITY = "<infinity>"
HOSTILE = [
    *(None, True, False, 0, 1, -1, 2**24 + 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**300),
    *(0.5, -0.0, 1.0, 1e308, 5e-324, float("nan"), INFINITY),
    *("", ".", "..", "../x", "/tmp/x", "a/b", "a\\b", "CON", "x" * 1000, "a\nb", "\0", "\ud800"),
    *("float32", "int64", "train", "fixed", "drop", "-5", "007", "1_0"),
    *([], {}, [[]], [0], [True], [2**70], {"": {}}, {"a": -1}, {"../x": 1}),
    json.loads("[" * 60 + "]" * 60),
]


@st.composite
def mutated_texts(draw, document):
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(list(paths_of(document)) or [("a",)]))
        parent = document
        for key in path:
            parent = parent[key]
        drawn = draw(st.sampled_from(HOSTILE) | st.integers(-2, 20) | st.text(max_size=4))
        value = copy.deepcopy(drawn)
        action = draw(st.sampled_from(["replace", "replace", "remove", "add", "rename"]))
        if isinstance(parent, list):
            if action in ("add", "rename"):
                parent.insert(last, copy.deepcopy(parent[last]) if action == "add" else value)
            elif action == "remove":
                del parent[last]
            else:
                parent[last] = value
        elif action == "remove":
            parent.pop(last, None)
        elif action == "rename":
            parent[str(value)[:100].strip("<>")] = parent.pop(last, None)
        elif action == "add":
            parent[draw(st.text(max_size=4))] = value
        else:
            parent[last] = value
    return document


def paths_of(document, path=()):
    if path:
        yield path
    members = ()
    if isinstance(document, dict):
        members = document.items()
    elif isinstance(document, list):
        members = enumerate(document)
    for key, member in members:
        yield from paths_of(member, (*path, key))
