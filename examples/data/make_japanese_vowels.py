"""Writes JapaneseVowels as two Parquet files from the text files that come in the `aeon` package.

    pip download aeon==1.6.0 --no-deps && unzip -d aeon aeon-1.6.0-*.whl
    python examples/data/make_japanese_vowels.py aeon [FOLDER]

The first argument is the folder that holds the package's `aeon/`; the second is where the two files
go, by default beside this script. The same text gives the same bytes under the same version of
pyarrow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIMENSIONS = 12
# Rows of each speaker, as the authors' documentation gives them.
ROWS_BY_SPEAKER = {
    "train": [30, 30, 30, 30, 30, 30, 30, 30, 30],
    "test": [31, 35, 88, 44, 29, 24, 40, 50, 29],
}
LENGTHS = (7, 29)

STEP = pa.list_(pa.float32(), DIMENSIONS)
SCHEMA = pa.schema([("features", pa.list_(STEP)), ("speaker", pa.int64())])


def parse_ts(text: str) -> tuple[list[np.ndarray], list[int]]:
    """Reads the `.ts` format: after `@data` a row per line, dimensions and class parted by colons.

    Returns:
        One (steps, dimensions) float32 array per row, and the classes as written, from 1.
    """
    sequences, classes = [], []
    _, _, rows = text.partition("@data\n")
    for row in rows.splitlines():
        *dimensions, label = row.split(":")
        values = [np.array(dimension.split(","), np.float32) for dimension in dimensions]
        sequences.append(np.stack(values, axis=1))
        classes.append(int(label))
    return sequences, classes


def to_table(sequences: list[np.ndarray], classes: list[int]) -> pa.Table:
    """Makes the table: the rows in their order, the speakers counted from 0."""
    lengths = [len(sequence) for sequence in sequences]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    steps = np.concatenate(sequences)  # (all steps, dimensions) float32
    features = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.FixedSizeListArray.from_arrays(pa.array(steps.ravel()), type=STEP),
    )
    speakers = pa.array(np.array(classes, np.int64) - 1)
    return pa.Table.from_arrays([features, speakers], schema=SCHEMA)


def check(split: str, sequences: list[np.ndarray], classes: list[int]) -> None:
    """Raises ValueError unless this is the official split, whole."""
    rows_by_speaker = np.bincount(classes, minlength=10)[1:].tolist()
    if rows_by_speaker != ROWS_BY_SPEAKER[split]:
        raise ValueError(
            f"{split}: {rows_by_speaker} rows by speaker, not {ROWS_BY_SPEAKER[split]}"
        )
    for row, sequence in enumerate(sequences):
        steps, dimensions = sequence.shape
        if dimensions != DIMENSIONS or not LENGTHS[0] <= steps <= LENGTHS[1]:
            raise ValueError(f"{split}, row {row}: {steps} steps of {dimensions} values")
        if not np.isfinite(sequence).all():
            raise ValueError(f"{split}, row {row}: a value is not finite")


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source = Path(sys.argv[1]) / "aeon" / "datasets" / "data" / "JapaneseVowels"
    folder = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent
    for split in ROWS_BY_SPEAKER:
        text = (source / f"JapaneseVowels_{split.upper()}.ts").read_text("utf-8")
        sequences, classes = parse_ts(text)
        check(split, sequences, classes)
        path = folder / f"japanese_vowels_{split}.parquet"
        pq.write_table(to_table(sequences, classes), path, compression="zstd", use_dictionary=False)
        print(f"{path}: {len(classes)} rows")


if __name__ == "__main__":
    main()
