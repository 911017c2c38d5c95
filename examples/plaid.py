"""PLAID: the current that an appliance draws when it is switched on; which kind of appliance is it?

Source: `sktime/datasets/data/PLAID/PLAID_{TRAIN,TEST}.ts` in sktime 1.2.0, with the official split.
J. Gao, S. Giri, E. C. Kara, M. Bergés: "PLAID: a public dataset of high-resolution electrical
appliance measurements for load identification research", BuildSys 2014; cut and edited by P.
Schäfer and U. Leser, CIKM 2017.

Licence: sktime is under the BSD 3-Clause licence. Neither it nor the two files say anything about
the licence of the data; the files name the authors and <http://www.plaidplug.com/>.

A row is one recording. What oscillates most in nearly all of them has a period of five values. A
step is a frame of `FRAME` values, four periods, and what does not fill the last frame is cut off.
Currents differ by four orders of magnitude from one appliance to another, so arsinh(100 x) takes
the place of each value x: linear below 0.01, logarithmic above.
Classes: 0 air conditioner, 1 compact fluorescent lamp, 2 fan, 3 fridge, 4 hairdryer, 5 heater, 6
incandescent light bulb, 7 laptop, 8 microwave, 9 vacuum cleaner, 10 washing machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from examples.conversion import Conversion, ragged_column

MEMBERS = "sktime/datasets/data/PLAID/*.ts"
CLASSES = 11
FRAME = 20


def convert(folder: Path) -> Conversion:
    """Reads both files below the folder that the package was unpacked to."""
    return Conversion(
        {
            split: to_table(next(folder.rglob(f"PLAID_{split.upper()}.ts")).read_text("utf-8"))
            for split in ("train", "test")
        }
    )


def to_table(text: str) -> pa.Table:
    """Reads the `.ts` format: after `@data` a row per line, its values, a colon and its class.

    Returns:
        `current`, lists of frames of `FRAME` float32, and `appliance`.

    Raises:
        ValueError: a line is something else. The files are clean, so nothing is left out.
    """
    rows = text.partition("@data\n")[2].splitlines()
    if not rows:
        raise ValueError("no row follows @data")
    values, classes = zip(*(row.rsplit(":", 1) for row in rows), strict=True)
    current = [np.array(written.split(","), np.float32) for written in values]
    frames = [len(row) // FRAME for row in current]
    appliance = np.array(classes, np.int64)
    steps = np.concatenate([row[: n * FRAME] for row, n in zip(current, frames, strict=True)])
    if not np.isfinite(steps).all() or appliance.min() < 0 or appliance.max() >= CLASSES:
        raise ValueError(f"a value is not finite, or a class is not within 0 to {CLASSES - 1}")
    return pa.table(
        {
            "current": ragged_column(
                pa.FixedSizeListArray.from_arrays(pa.array(np.arcsinh(100 * steps)), FRAME), frames
            ),
            "appliance": appliance,
        }
    )
