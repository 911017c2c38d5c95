import pytest

from examples import plaid

HEADER = "#\ufeff# PLAID dataset\n@problemName PLAID\n@classLabel true 0 1 2\n@data\n"


def test_rows_keep_their_lengths_values_and_classes():
    table = plaid.to_table(HEADER + "0.5,-1,2.25:10\n3:0\n")
    assert table.to_pydict() == {"current": [[0.5, -1.0, 2.25], [3.0]], "appliance": [10, 0]}
    assert [str(column.type) for column in table.columns] == ["list<item: float>", "int64"]


def test_both_files_are_found_and_kept_apart(tmp_path):
    folder = tmp_path / "sktime" / "PLAID"
    folder.mkdir(parents=True)
    (folder / "PLAID_TRAIN.ts").write_text(HEADER + "1,2:3\n", encoding="utf-8")
    (folder / "PLAID_TEST.ts").write_text(HEADER + "4:5\n", encoding="utf-8")
    conversion = plaid.convert(tmp_path)
    assert {name: table.to_pylist() for name, table in conversion.tables.items()} == {
        "train": [{"current": [1.0, 2.0], "appliance": 3}],
        "test": [{"current": [4.0], "appliance": 5}],
    }


@pytest.mark.parametrize("row", ["", "1,?:0\n", "1,2\n", "1,:0\n", "1,nan:0\n", "1:11\n", "1:-1\n"])
def test_anything_else_is_refused(row):
    with pytest.raises(ValueError, match=r".+"):
        plaid.to_table(HEADER + row)
