"""Why a row cannot be used, in the one set of words of builds, predictions and exported models."""

from __future__ import annotations

# Positions are the codes of faults; 0 is none.
REASONS = (
    "",
    "null sequence",
    "sequence features of different lengths",
    "null context or label",
    "integer out of range",
    "infinite, or beyond float32",
    "empty sequence",
    "overlong sequence",
    "NaN value",
    "more steps than a record can have",
    # Of rows that a trained network is asked about.
    "id that the model does not know",
    "value that cannot be normalised",
    "the network gave no number",
)
NULL_SEQUENCE, UNEQUAL_LENGTHS, NULL_CONTEXT, OUT_OF_RANGE, INFINITE = range(1, 6)
EMPTY, OVERLONG, NOT_A_NUMBER, TOO_LONG = range(6, 10)
UNKNOWN_NUMBER, NOT_NORMALIZABLE, NO_NUMBER = range(10, 13)
