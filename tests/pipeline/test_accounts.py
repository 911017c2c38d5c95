"""Every row that was read is somewhere, or the build fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lengthwise.pipeline import FeatureNames, build, building
from lengthwise.pipeline.accounts import Tally, UnbalancedError
from tests.pipeline.conftest import folder_digest, ragged_table


def test_an_account_balances_or_is_refused():
    tally = Tally(read=9, written=7, dropped={"empty": 2}, rejected={"faulty": 1}, pieces=1)
    assert tally.account(7).balanced
    for records, wrong in ((6, tally), (7, replace(tally, read=8)), (7, replace(tally, pieces=0))):
        with pytest.raises(UnbalancedError, match=r"accounts do not balance: . rows were read"):
            wrong.account(records)


@pytest.mark.parametrize("more", [-1, 1], ids=["lost", "doubled"])
def test_a_build_that_loses_or_doubles_a_row_leaves_the_old_dataset(
    write_input, tmp_path, monkeypatch, more
):
    path, out = write_input("a.parquet", ragged_table(20)), tmp_path / "out"
    names = FeatureNames(sequences=("tokens",))
    build([path], out, names=names)
    digest = folder_digest(out)
    whole = building.written_shards

    def otherwise(job):
        first, *others = whole(job)
        return (replace(first, records=first.records + more), *others)

    monkeypatch.setattr(building, "written_shards", otherwise)
    write_input("a.parquet", ragged_table(21))
    with pytest.raises(UnbalancedError, match=f"21 rows were read, {21 + more} written"):
        build([path], out, names=names)
    left = {name: made for name, made in folder_digest(out).items() if ".staging" not in name}
    assert left == digest
