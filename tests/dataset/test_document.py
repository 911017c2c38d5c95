"""JSON documents are files, so they are untrusted."""

import json

import pytest

from lengthwise.dataset import ManifestError, PlanError
from lengthwise.dataset.document import MAX_DOCUMENT_BYTES, Fields, read_document, to_json


@pytest.fixture
def file_of(tmp_path):
    def write(text):
        path = tmp_path / "plan.json"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        return path

    return write


def fields_of(**members):
    return Fields(members, place="plan.json", error=PlanError)


def test_documents_are_indented_and_keep_the_order_of_keys():
    assert to_json({"b": [1], "a": "ä"}) == '{\n "b": [\n  1\n ],\n "a": "ä"\n}\n'


def test_documents_hold_finite_numbers_only():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"mean": float("nan")})


def test_what_is_written_is_read_back(file_of):
    document = {"text": "ä", "list": [1, 2.5, None, True], "nested": {"x": -(2**63)}}

    assert read_document(file_of(to_json(document)), error=PlanError) == document


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a": "\ud800"}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "expected a JSON object, found list"),
        ("null", "expected a JSON object, found NoneType"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_json_object_is_refused_by_name(file_of, text, reason):
    path = file_of(text)

    with pytest.raises(ManifestError) as error:
        read_document(path, error=ManifestError)

    assert str(error.value).startswith(f"{path}: ")
    assert reason in str(error.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(PlanError, match=r"none\.json: cannot be read: No such file"):
        read_document(tmp_path / "none.json", error=PlanError)
    with pytest.raises(PlanError, match="cannot be read: Is a directory"):
        read_document(tmp_path, error=PlanError)


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.json"
    with open(path, "wb") as file:
        file.truncate(MAX_DOCUMENT_BYTES + 1)  # a hole: takes no space

    with pytest.raises(PlanError, match="is more than a document"):
        read_document(path, error=PlanError)


def test_members_are_taken_by_name_and_type():
    fields = fields_of(
        integer=3, number=2.5, whole=2, text="a", items=[1], counts={"a": 1}, objects=[{"b": True}]
    )

    assert fields.integer("integer") == 3
    assert (fields.number("number"), fields.number("whole")) == (2.5, 2)
    assert fields.text("text") == "a"
    assert fields.items("items") == [1]
    assert fields.integers("items") == [1]
    assert fields.counts("counts") == {"a": 1}
    assert fields.objects("objects")[0].take("b", bool) is True


@pytest.mark.parametrize(
    ("take", "value", "message"),
    [
        ("integer", True, "plan.json: 'x' must be int, found True"),
        ("integer", 1.0, "plan.json: 'x' must be int, found 1.0"),
        ("integer", None, "plan.json: 'x' must be int, found None"),
        ("integer", -1, "plan.json: 'x' is -1, outside [0, 9223372036854775807]"),
        ("integer", 2**63, "plan.json: 'x' is 9223372036854775808, outside [0, "),
        ("number", True, "plan.json: 'x' must be float, found True"),
        ("number", "1", "plan.json: 'x' must be float, found '1'"),
        ("number", float("inf"), "plan.json: 'x' is inf, not a finite number"),
        ("number", float("nan"), "plan.json: 'x' is nan, not a finite number"),
        ("number", 10**400, "plan.json: 'x' is 1000"),
        ("text", 1, "plan.json: 'x' must be str, found 1"),
        ("items", {}, "plan.json: 'x' must be list, found an object"),
        ("nested", [], "plan.json: 'x' must be dict, found a list"),
        ("objects", [{}, 1], "plan.json: x[1]: expected an object, found int"),
        ("integers", [1, True], "plan.json: 'x' must hold integers in [0, 92233720368547"),
        ("integers", [2**70], "found 1180591620717411303424"),
        ("counts", {"a": -1}, "plan.json: x: 'a' is -1"),
        ("counts", {"a": 1.5}, "plan.json: x: 'a' must be int, found 1.5"),
    ],
)
def test_members_of_the_wrong_type_are_named_with_their_place(take, value, message):
    with pytest.raises(PlanError) as error:
        getattr(fields_of(x=value), take)("x")

    assert message in str(error.value)


def test_a_missing_member_is_named():
    for take in ("integer", "number", "text", "items", "nested", "objects", "integers", "counts"):
        with pytest.raises(PlanError, match="'x' is missing"):
            getattr(fields_of(), take)("x")


def test_an_object_is_asked_for():
    with pytest.raises(PlanError, match=r"plan\.json: expected an object, found list"):
        Fields([], place="plan.json", error=PlanError)


@pytest.mark.parametrize("name", ["two\nlines", "\ud800", "\x1b[2J", "long " * 10_000])
@pytest.mark.parametrize("value", ["v\nw", "\ud800", "v" * 10_000, [0] * 10_000, 10**300])
def test_messages_are_one_short_line_whatever_the_document_holds(name, value):
    messages = []
    for break_it in (
        lambda: fields_of(**{name: value}).integer(name),
        lambda: fields_of(**{name: {"x": value}}).nested(name).integer("x"),
        lambda: fields_of(x={name: value}).counts("x"),
        lambda: fields_of(x=[[value]]).integers("x"),
    ):
        with pytest.raises(PlanError) as error:
            break_it()
        messages.append(str(error.value))

    for message in messages:
        assert message.isprintable()
        assert len(message) < 400


def test_nested_places_are_named_from_the_outside_in():
    document = json.loads('{"statistics": {"frames": {"count": "many"}}}')
    statistics = Fields(document, place="plan.json", error=PlanError).nested("statistics")

    with pytest.raises(PlanError, match=r"plan\.json: statistics: frames: 'count' must be int"):
        statistics.nested("frames").integer("count")
