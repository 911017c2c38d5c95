"""The preprocessing of a serving graph gives what a build gives, option by option."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset import Feature, Plan, PlanOptions
from lengthwise.dataset.schema import LENGTH, MASK
from lengthwise.model import read_dataset
from lengthwise.model.flat_rows import as_table, flat_rows
from lengthwise.model.prediction import tensors_of
from lengthwise.model.preprocessing import Preprocessing
from lengthwise.pipeline import FeatureNames, build

NAMES = FeatureNames(
    sequences=("frames", "ids", "level", "words"), labels=("y",), contexts=("id", "place", "size")
)
WORDS = ["", "a", "the", "cat", "é", "never seen in training"]


def rows(count=24, *, seed=0, longest=12):
    """Every kind of feature; nulls and NaN among the steps."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        n = int(rng.integers(1, longest + 1))
        frames = rng.normal(3, 2, (n, 2)).astype(np.float32)
        frames[rng.random(n) < 0.1, 1] = np.nan
        steps = frames.tolist()
        if n > 2:
            steps[2][0] = None
        words = [WORDS[k] for k in rng.integers(0, len(WORDS) - 1, n)]
        found.append(
            {
                "frames": steps,
                "ids": [None if rng.random() < 0.1 else int(k) for k in rng.integers(0, 9, n)],
                "level": [float(v) for v in np.exp(rng.normal(size=n))],
                "words": [None if rng.random() < 0.1 else word for word in words],
                "id": number,
                "place": WORDS[int(rng.integers(1, 4))],
                "size": float(rng.normal()),
                "y": int(rng.integers(0, 3)),
            }
        )
    found[0]["frames"] = [[np.nan, 1.0]] * len(found[0]["frames"])
    return found


TYPES = pa.schema(
    [
        ("frames", pa.list_(pa.list_(pa.float32(), 2))),
        ("ids", pa.list_(pa.int16())),
        ("level", pa.list_(pa.float64())),
        ("words", pa.list_(pa.string())),
        ("id", pa.int64()),
        ("place", pa.string()),
        ("size", pa.float32()),
        ("y", pa.int64()),
    ]
)

OPTIONS = {
    "plain": {},
    "left": {"padding": "left", "pad_value": -3.0, "align": 4},
    "forward": {"fill": "forward", "normalize": {"frames": "zscore", "level": "log1p"}},
    "mean": {"fill": "mean", "normalize": {"frames": "minmax"}},
    "number": {"fill": 7.0, "normalize": {"level": "zscore"}},
    "cut at the end": {"max_length": 5, "overlong": "truncate_end", "fill": "forward"},
    "cut at the start": {"max_length": 5, "overlong": "truncate_start", "fill": "forward"},
    "pieces": {"max_length": 5, "overlong": "split", "overlap": 2, "fill": "forward"},
    "dropped": {"max_length": 5, "overlong": "drop", "padding": "left"},
    "elements": {"element_mask": True, "fill": "forward", "normalize": {"frames": "zscore"}},
    "means of elements": {"element_mask": True, "fill": "mean", "padding": "left"},
    "elements of pieces": {
        "max_length": 5,
        "overlong": "split",
        "overlap": 2,
        "fill": "forward",
        "element_mask": True,
    },
    "rare words": {"vocab_size": 4, "splits": {"train": 0.5, "val": 0.5}},
}


def without_padding(features, mask, length, side):
    """Each line as bytes that can be compared, its padding cut off."""
    found = []
    for line, steps in enumerate(length.tolist()):
        inside = slice(mask.shape[1] - steps, None) if side == "left" else slice(steps)
        values = [
            (name, value[line][inside] if value.ndim > 1 else value[line])
            for name, value in sorted(features.items())
        ]
        found.append(
            (
                int(features["id"][line]),
                mask[line][inside].tolist(),
                [(name, np.asarray(value).tolist()) for name, value in values],
            )
        )
    return sorted(found, key=repr)


@pytest.mark.parametrize("case", OPTIONS)
def test_a_batch_is_what_a_build_makes_of_the_rows(case, tmp_path):
    given = rows()
    options = PlanOptions(**{"num_buckets": 3, "align": 1, **OPTIONS[case]})
    pq.write_table(pa.Table.from_pylist(given, TYPES), tmp_path / "in.parquet")
    manifest = build([tmp_path / "in.parquet"], tmp_path / "out", names=NAMES, options=options)
    plan = Plan.load(tmp_path / "out" / "plan.json")
    inputs = [feature for feature in plan.schema.features if not feature.label]
    prepare = Preprocessing(plan, inputs)

    built = []
    for split in manifest.splits:
        for features, _ in read_dataset(manifest, split, batch_size=8).as_numpy_iterator():
            mask, length = features.pop(MASK), features.pop(LENGTH)
            built += without_padding(features, mask, length, options.padding)

    served = []
    for row in given:
        plain = [
            Feature(f.name, f.dtype, f.shape, sequence=f.sequence, encoding=f.encoding)
            for f in inputs
        ]
        batch = as_table([row], plain).to_batches()[0]
        flat, faults = flat_rows(batch, plain, prepare.element_masked)
        values = tensors_of(flat)
        batch = prepare(values, values[LENGTH], values[MASK])
        assert not faults.any()
        if batch.faults.numpy().any():
            continue
        features = {name: value.numpy() for name, value in batch.features.items()}
        mask, length = batch.mask.numpy(), batch.length.numpy()
        served += without_padding(features, mask, length, options.padding)
        outside = ~np.isin(
            np.arange(mask.shape[1]), np.flatnonzero(batch.step[0] < len(flat.observed))
        )
        assert set(features["level"][0][outside].tolist()) <= {options.pad_value}
        assert mask.shape[1] in plan.max_lengths

    assert_same(sorted(served, key=repr), sorted(built, key=repr))


def assert_same(served, built):
    assert [line[:2] for line in served] == [line[:2] for line in built]
    for ours, theirs in zip(served, built, strict=True):
        for (name, mine), (_, other) in zip(ours[2], theirs[2], strict=True):
            # log1p alone differs, in the last bit.
            np.testing.assert_allclose(mine, other, rtol=3e-7 if name == "level" else 0)
