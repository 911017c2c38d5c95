"""What is written after an option: sizes, lists, names with values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import click

from lengthwise.dataset.errors import UsageError

T = TypeVar("T")

_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class ByteSize(click.ParamType):
    """A number of bytes, as in 64M."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMG]?)i?B?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size; write bytes, or as in 64M", param, ctx)
        return int(match[1]) * _SIZES[match[2].upper()]


class Buckets(click.ParamType):
    """A number of buckets, or auto."""

    name = "n|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value == "auto" or isinstance(value, int):
            return value
        if not _is_number(str(value)) or int(value) < 1:
            self.fail(f"{value!r} is neither 'auto' nor a number from 1", param, ctx)
        return int(value)


class Boundaries(click.ParamType):
    """Ascending lengths, separated by commas."""

    name = "n,n,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(_is_number(part) for part in parts):
            self.fail(f"{value!r} is not a list of lengths, as in 16,64,256", param, ctx)
        return tuple(int(part) for part in parts)


class Splits(click.ParamType):
    """Names and fractions of splits."""

    name = "name=fraction,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        if isinstance(value, dict):
            return value
        splits: dict[str, float] = {}
        for part in str(value).split(","):
            name, _, fraction = part.partition("=")
            try:
                number = float(fraction)
            except ValueError:
                self.fail(f"{part!r} is not NAME=FRACTION, as in train=0.9", param, ctx)
            if name.strip() in splits:
                self.fail(f"split {name.strip()!r} is named twice", param, ctx)
            splits[name.strip()] = number
        return splits


class Named(click.ParamType):
    """NAME=VALUE."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not (name and equals and text):
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


def once(option: str, pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """What an option that is given several times says of each name.

    Raises:
        UsageError: it says two things of one name.
    """
    named: dict[str, T] = {}
    for name, value in pairs:
        if name in named:
            raise UsageError(f"--{option} is given twice for '{name}'; give it once")
        named[name] = value
    return named


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
