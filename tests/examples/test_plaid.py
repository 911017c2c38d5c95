import numpy as np
import pytest

from examples import plaid

HEADER = "#\ufeff# PLAID dataset\n@problemName PLAID\n@classLabel true 0 1 2\n@data\n"


def line(values, appliance):
    return f"{','.join(map(str, values))}:{appliance}\n"


def test_rows_become_frames_of_a_logarithmic_current_and_keep_their_classes():
    first, second = np.linspace(-3, 90, 47), np.arange(20) / 100
    table = plaid.to_table(HEADER + line(first, 10) + line(second, 0))
    assert [str(column.type) for column in table.columns] == [
        "list<item: fixed_size_list<item: float>[20]>",
        "int64",
    ]
    assert table["appliance"].to_pylist() == [10, 0]
    one, other = table["current"].to_pylist()
    # Seven values that fill no frame are cut off.
    np.testing.assert_allclose(np.sinh(np.ravel(one)) / 100, first[:40], rtol=1e-5)
    np.testing.assert_allclose(np.sinh(np.ravel(other)) / 100, second, rtol=1e-5)
    assert (len(one), len(other)) == (2, 1)


def test_both_files_are_found_and_kept_apart(tmp_path):
    folder = tmp_path / "sktime" / "PLAID"
    folder.mkdir(parents=True)
    (folder / "PLAID_TRAIN.ts").write_text(HEADER + line([0] * 40, 3), encoding="utf-8")
    (folder / "PLAID_TEST.ts").write_text(HEADER + line([0] * 20, 5), encoding="utf-8")
    conversion = plaid.convert(tmp_path)
    assert {name: table.to_pylist() for name, table in conversion.tables.items()} == {
        "train": [{"current": [[0.0] * 20] * 2, "appliance": 3}],
        "test": [{"current": [[0.0] * 20], "appliance": 5}],
    }


@pytest.mark.parametrize(
    "row", [*("", "1,?:0\n", "1,2\n", "1,:0\n", "1:11\n", "1:-1\n"), line(["nan"] * 20, 0)]
)
def test_anything_else_is_refused(row):
    with pytest.raises(ValueError, match=r".+"):
        plaid.to_table(HEADER + row)
