"""What became of every row that was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lengthwise.dataset.errors import LengthwiseError
from lengthwise.dataset.manifest import Account
from lengthwise.dataset.reasons import REASONS

# Faulty rows that a message names; the rest is counted.
NAMED_FAULTS = 5


class UnbalancedError(LengthwiseError):
    """Rows were lost or doubled: a defect of Lengthwise, never of the data."""


@dataclass
class Tally:
    """Counts of the rows of one split so far.

    Attributes:
        read: rows that belong to the split.
        written: rows that are passed on.
        dropped, rejected: reason -> rows.
        pieces: rows more, because overlong rows were split.
    """

    read: int = 0
    written: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    pieces: int = 0

    def add(self, other: Tally) -> None:
        self.read += other.read
        self.written += other.written
        self.pieces += other.pieces
        for mine, theirs in ((self.dropped, other.dropped), (self.rejected, other.rejected)):
            for reason, rows in theirs.items():
                mine[reason] = mine.get(reason, 0) + rows

    def account(self, records: int) -> Account:
        """The account of a split whose shards hold `records`.

        Raises:
            UnbalancedError: rows were lost or doubled on the way.
        """
        account = Account(self.read, records, self.dropped, self.rejected, self.pieces)
        if records != self.written or not account.balanced:
            raise UnbalancedError(
                f"accounts do not balance: {self.read} rows were read, {records} written, "
                f"{self.dropped} dropped and {self.rejected} rejected, {self.pieces} pieces added, "
                f"{self.written} passed on; "
                "the old dataset stays as it was; please report this"
            )
        return account

    def to_json(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "written": self.written,
            "dropped": self.dropped,
            "rejected": self.rejected,
            "pieces": self.pieces,
        }


def tally_by_split(
    splits: np.ndarray, fates: np.ndarray, dropped: Iterable[int], names: Sequence[str]
) -> dict[str, Tally]:
    """Counts rows by split and fate.

    Args:
        splits: (n,) positions in `names`.
        fates: (n,) codes in `REASONS`; 0 is a row that is passed on.
        dropped: the codes that mean dropped; others mean rejected.
        names: of the splits.
    """
    tallies = {}
    counts = np.zeros((len(names), len(REASONS)), np.int64)
    np.add.at(counts, (splits, fates), 1)
    dropped = set(dropped)
    for name, row in zip(names, counts.tolist(), strict=True):
        tallies[name] = tally = Tally(read=sum(row), written=row[0])
        for code, rows in enumerate(row):
            if code and rows:
                fate = tally.dropped if code in dropped else tally.rejected
                fate[REASONS[code]] = rows
    return tallies


def merge_tallies(parts: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Adds tallies up, split by split."""
    merged: dict[str, Tally] = {}
    for part in parts:
        for split, tally in part.items():
            merged.setdefault(split, Tally()).add(tally)
    return merged


def rejected_rows(tallies: Mapping[str, Tally]) -> dict[str, int]:
    """Reason -> rejected rows of all splits, in the order of the reasons."""
    reasons: Counter[str] = Counter()
    for tally in tallies.values():
        reasons.update(tally.rejected)
    return dict(sorted(reasons.items()))


def fault_message(reasons: Mapping[str, int], first: Sequence[str]) -> str:
    """One line that says how many rows are faulty, why, and where the first ones are.

    Args:
        reasons: reason -> rows.
        first: where the first of them are and what is wrong with each, at least `NAMED_FAULTS`
            where there are as many.
    """
    counts = ", ".join(f"{rows} × {reason}" for reason, rows in reasons.items())
    total = sum(reasons.values())
    named = "; ".join(first[:NAMED_FAULTS])
    more = f"; and {total - NAMED_FAULTS} more" if total > NAMED_FAULTS else ""
    return f"{total} faulty row{'s' if total > 1 else ''} ({counts}): {named}{more}"
