"""A whole epoch, from data to weights: Lengthwise against two ways to do it with Keras alone.

The same rows, the same network (BiLSTM of 64 units, dense layer on its last steps), the same
optimizer and as many rows per batch:

    padded      tf.data, `padded_batch`, `Bidirectional(LSTM)` with mask
    bucketed    tf.data, `bucket_by_sequence_length`, `Bidirectional(LSTM)` with mask
    lengthwise  `read_dataset`, `MaskedBiLSTM`

Keras's sides have all rows in memory as ragged tensors, so they neither read nor parse a file;
Lengthwise reads its dataset from disk. The buckets of the second side are those that Lengthwise
planned. Lengths are log-normal, mean about 60 steps of 16 floats, 1 to 512; the label is one of ten
directions that the steps lean to. Each side runs in a process of its own.

Each side trains until its loss over held-out rows, the same for all, is no more than `--loss`, and
for three epochs at least; one that does not come to it in `--epochs` ends the program. Two things
are compared: seconds per epoch, the median over all but the first with its tracing; and those times
the epochs that a side took to the loss.

    python benchmarks/epoch_against_keras.py [--rows 3200] [--loss 0.06] [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import Side, compare, own, print_comparison, spread
from process_usage import call_task
from ragged_data import NUM_LABELS, WIDTH, draw_lengths

UNITS = 64
BATCH = 64
BUCKETS = 8
LEAST_EPOCHS = 3
EPOCH, TO_LOSS = "seconds per epoch", "seconds to the loss"


def write_rows(path: Path, count: int, *, seed: int) -> None:
    """Rows as Parquet; a step is noise plus a bit of its row's direction."""
    rng = np.random.default_rng(seed)
    lengths = draw_lengths(rng, count)
    labels = rng.integers(NUM_LABELS, size=count)
    directions = np.random.default_rng(0).normal(size=(NUM_LABELS, WIDTH)).astype(np.float32) / 4
    frames = rng.standard_normal((int(lengths.sum()), WIDTH), dtype=np.float32)
    frames += np.repeat(directions[labels], lengths, axis=0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    steps = pa.FixedSizeListArray.from_arrays(pa.array(frames.ravel()), WIDTH)
    table = {"frames": pa.ListArray.from_arrays(pa.array(offsets), steps), "label": labels}
    pq.write_table(pa.table(table), path)


def train_padded(path: str, dataset: str, **options: Any) -> dict[str, float]:
    """Epochs of `padded_batch` and Bidirectional(LSTM)."""
    del dataset
    data = _examples(path).padded_batch(BATCH)
    return _train(data.map(_with_mask).prefetch(2), ours=False, **options)


def train_bucketed(path: str, dataset: str, **options: Any) -> dict[str, float]:
    """Epochs of `bucket_by_sequence_length` and Bidirectional(LSTM)."""
    import tensorflow as tf

    from lengthwise.dataset import Manifest

    max_lengths = list(Manifest.load(dataset).max_lengths)
    data = _examples(path).bucket_by_sequence_length(
        lambda frames, label: tf.shape(frames)[0],
        bucket_boundaries=[end + 1 for end in max_lengths],
        bucket_batch_sizes=[BATCH] * (len(max_lengths) + 1),
        pad_to_bucket_boundary=True,
    )
    return _train(data.map(_with_mask).prefetch(2), ours=False, **options)


def train_lengthwise(path: str, dataset: str, **options: Any) -> dict[str, float]:
    """Epochs of `read_dataset` and MaskedBiLSTM."""
    from lengthwise.model import read_dataset

    del path
    data = read_dataset(dataset, batch_size=BATCH, epochs=options["epochs"])
    data = data.map(lambda f, label: ({"frames": f["frames"], "mask": f["mask"]}, label))
    return _train(data, ours=True, **options)


def _examples(path: str) -> Any:
    import tensorflow as tf

    ragged, labels = _read_rows(path)
    data = tf.data.Dataset.from_tensor_slices((ragged, labels))
    shuffled = data.shuffle(len(labels), seed=0)
    return shuffled.map(
        lambda row, label: (tf.ensure_shape(tf.convert_to_tensor(row), [None, WIDTH]), label)
    )


def _read_rows(path: str) -> tuple[Any, np.ndarray]:
    import tensorflow as tf

    table = pq.read_table(path)
    frames = table["frames"].combine_chunks()
    flat = np.asarray(frames.values.values).reshape(-1, WIDTH)
    ragged_tensor: Any = tf.RaggedTensor
    ragged = ragged_tensor.from_row_splits(flat, np.asarray(frames.offsets), validate=False)
    return ragged, np.asarray(table["label"])


def _with_mask(frames: Any, label: Any) -> Any:
    import tensorflow as tf

    # No value is exactly zero but that of padding.
    return {"frames": frames, "mask": tf.reduce_any(tf.not_equal(frames, 0), axis=-1)}, label


def _train(data: Any, *, ours: bool, epochs: int, held_out: str, loss: float) -> dict[str, float]:
    import keras

    from lengthwise.model import MaskedBiLSTM

    keras.utils.set_random_seed(0)
    frames = keras.Input((None, WIDTH), name="frames")
    mask = keras.Input((None,), dtype="bool", name="mask")
    layer = MaskedBiLSTM(UNITS) if ours else keras.layers.Bidirectional(keras.layers.LSTM(UNITS))
    logits = keras.layers.Dense(NUM_LABELS)(layer(frames, mask=mask))
    model: Any = keras.Model([frames, mask], logits)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    ragged, labels = _read_rows(held_out)
    rows, _ = _with_mask(ragged.to_tensor(), labels)
    starts, ends, losses = [], [], []

    def end_epoch(epoch: int, logs: Any) -> None:
        ends.append(time.perf_counter())
        losses.append(float(model.evaluate(rows, labels, batch_size=BATCH, verbose=0)))
        model.stop_training = min(losses) <= loss and len(losses) >= LEAST_EPOCHS

    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: starts.append(time.perf_counter()),
        on_epoch_end=end_epoch,
    )
    # Ours holds all epochs, one after the other; theirs begins again.
    steps = int(data.cardinality()) // epochs if ours else None
    model.fit(
        data, epochs=epochs, steps_per_epoch=steps, shuffle=False, callbacks=[clock], verbose=0
    )
    reached = [number for number, value in enumerate(losses, 1) if value <= loss]
    if not reached:
        raise SystemExit(f"held-out losses never came to {loss}: {losses}; try more --epochs")
    seconds = statistics.median(np.subtract(ends, starts)[1:])
    return {
        EPOCH: seconds,
        TO_LOSS: seconds * reached[0],
        "epochs": reached[0],
        "loss": losses[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--epochs", type=int, default=12, help="at most")
    parser.add_argument("--loss", type=float, default=0.06, help="over held-out rows, to come to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="1")
    options = parser.parse_args()
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    environment: dict[str, str] = dict.fromkeys(names, str(options.threads)) | {
        "TF_CPP_MIN_LOG_LEVEL": "3"
    }
    with tempfile.TemporaryDirectory() as folder:
        rows, dataset = Path(folder, "rows.parquet"), Path(folder, "dataset")
        held_out = Path(folder, "held-out.parquet")
        write_rows(rows, options.rows, seed=0)
        write_rows(held_out, options.rows // 8, seed=1)
        _build(rows, dataset)
        sides = [
            Side(
                name,
                large=call_task(
                    f"epoch_against_keras:train_{name}",
                    rows=options.rows,
                    dataset=str(dataset),
                    path=str(rows),
                    epochs=options.epochs,
                    held_out=str(held_out),
                    loss=options.loss,
                ),
            )
            for name in ("padded", "bucketed", "lengthwise")
        ]
        seconds = own(EPOCH, higher_is_better=False)
        comparison = compare(sides, seconds, rounds=options.rounds, environment=environment)
        for metric in (seconds, own(TO_LOSS, higher_is_better=False)):
            runs = comparison.runs
            print_comparison(comparison.by(metric), title=f"{metric.name}, padded_batch")
            against = {name: runs[name] for name in ("bucketed", "lengthwise")}
            title = f"{metric.name}, bucket_by_sequence_length"
            print_comparison(type(comparison)(metric, against), title=title)
        for name, pairs in comparison.runs.items():
            epochs, losses = (spread([p[0].own[key] for p in pairs]) for key in ("epochs", "loss"))
            print(f"{name}: epochs to a loss of {options.loss}: {epochs}; last loss: {losses}")


def _build(rows: Path, dataset: Path) -> None:
    from lengthwise.dataset import PlanOptions
    from lengthwise.pipeline import FeatureNames, build

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    build(
        [str(rows)],
        str(dataset),
        names=FeatureNames(sequences=("frames",), labels=("label",)),
        options=PlanOptions(num_buckets=BUCKETS),
    )


if __name__ == "__main__":
    main()
