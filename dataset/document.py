"""Checked access to the JSON documents of a dataset: they are files, so they are untrusted."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TypeVar

from lengthwise.dataset.errors import LengthwiseError
from lengthwise.dataset.storage import RemotePath, size_of, storage_path

T = TypeVar("T")

# A manifest takes about 230 bytes a shard: this is room for a million shards.
MAX_DOCUMENT_BYTES = 1 << 28


def to_json(document: dict[str, Any]) -> str:
    """The one way in which Lengthwise writes JSON: indented, keys in the order given."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_document(
    path: str | os.PathLike[str] | RemotePath, *, error: type[LengthwiseError]
) -> dict[str, Any]:
    """Reads a JSON object from a file of bounded size.

    Args:
        path: the file.
        error: what to raise.

    Raises:
        error: the file is missing, too large, or not a JSON object.
    """
    path = storage_path(path)
    try:
        size = size_of(path)
        if size > MAX_DOCUMENT_BYTES:
            raise error(f"{path}: {size} bytes is more than a document of Lengthwise can have")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror or reason}") from None
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: not valid JSON: {reason}") from None
    if not isinstance(document, dict):
        raise error(f"{path}: expected a JSON object, found {type(document).__name__}")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class Fields:
    """A JSON object whose members are taken by name and type.

    Args:
        members: the parsed object.
        place: where it stands, for messages: file and path inside it.
        error: what to raise when a member is missing or of the wrong type.

    Example:
        >>> from lengthwise.dataset.errors import PlanError
        >>> fields = Fields({"seed": 7}, place="plan.json", error=PlanError)
        >>> fields.integer("seed")
        7
        >>> fields.text("strategy")
        Traceback (most recent call last):
        ...
        lengthwise.dataset.errors.PlanError: plan.json: 'strategy' is missing
    """

    def __init__(self, members: Any, *, place: str, error: type[LengthwiseError]) -> None:
        if not isinstance(members, dict):
            raise error(f"{place}: expected an object, found {type(members).__name__}")
        self.members: dict[str, Any] = members
        self.place = place
        self.error = error

    def fail(self, message: str) -> LengthwiseError:
        """An error that names the place; the caller raises it."""
        return self.error(f"{self.place}: {message}")

    def take(self, name: str, kind: type[T]) -> T:
        """The member `name`, of exactly the type `kind` (a bool is no int)."""
        if name not in self.members:
            raise self.fail(f"{_key(name)} is missing")
        value = self.members[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.fail(f"{_key(name)} must be {kind.__name__}, found {_shown(value)}")
        return value

    def integer(self, name: str, *, low: int = 0, high: int = 2**63 - 1) -> int:
        """An integer within `[low, high]`."""
        value = self.take(name, int)
        if not low <= value <= high:
            raise self.fail(f"{_key(name)} is {_shown(value)}, outside [{low}, {high}]")
        return value

    def flag(self, name: str) -> bool:
        """A bool that older documents do not have, where it was False."""
        return self.take(name, bool) if name in self.members else False

    def number(self, name: str) -> float | int:
        """A finite number."""
        value = self.members.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            value = self.take(name, float)
        # JSON has no infinity, but 1e999 is JSON.
        if not -sys.float_info.max <= value <= sys.float_info.max:
            raise self.fail(f"{_key(name)} is {_shown(value)}, not a finite number")
        return value

    def text(self, name: str, *, default: str | None = None) -> str:
        """A string; a default is for members that older documents do not have."""
        if default is not None and name not in self.members:
            return default
        return self.take(name, str)

    def optional_text(self, name: str) -> str | None:
        """A string; None where there is none, or null."""
        return None if self.members.get(name) is None else self.text(name)

    def nested(self, name: str) -> Fields:
        """A member that is itself an object."""
        place = f"{self.place}: {name if _is_short(name) else _key(name)}"
        return Fields(self.take(name, dict), place=place, error=self.error)

    def items(self, name: str) -> list[Any]:
        """A member that is a list."""
        return self.take(name, list)

    def objects(self, name: str) -> list[Fields]:
        """A member that is a list of objects."""
        return [
            Fields(item, place=f"{self.place}: {name}[{i}]", error=self.error)
            for i, item in enumerate(self.take(name, list))
        ]

    def integers(self, name: str, *, low: int = 0, high: int = 2**63 - 1) -> list[int]:
        """A member that is a list of integers within `[low, high]`."""
        values = self.take(name, list)
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise self.fail(
                    f"{_key(name)} must hold integers in [{low}, {high}], found {_shown(value)}"
                )
        return values

    def numbers(self, name: str) -> list[float]:
        """A member that is a list of finite numbers."""
        values = self.take(name, list)
        for value in values:
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise self.fail(f"'{name}' must hold numbers, found {str(value)[:40]!r}")
        return [float(value) for value in values]

    def texts(self, name: str) -> list[str]:
        """A member that is a list of strings."""
        values = self.take(name, list)
        for value in values:
            if not isinstance(value, str):
                raise self.fail(f"'{name}' must hold strings, found {str(value)[:40]!r}")
        return values

    def counts(self, name: str) -> dict[str, int]:
        """A member that maps names to counts."""
        nested = self.nested(name)
        return {key: nested.integer(key) for key in nested.members}


def _is_short(name: str) -> bool:
    return len(name) <= 80 and name.isprintable()


def _key(name: str) -> str:
    """A name of the document in quotes, on one line whatever it holds."""
    return repr(name[:80])


def _shown(value: Any) -> str:
    """A value of the document, short and on one line."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value)[:60]
