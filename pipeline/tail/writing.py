"""How `pipeline tail` writes records: a line for people, a line of JSON, or a row of CSV each."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from pipeline.tail.columns import DEFAULT, Column, columns

__all__ = ["Write", "as_csv", "as_json", "as_text"]

#: The text for a record as `pipeline.tail.columns.Viewer` shows it, its end of line included.
Write: TypeAlias = Callable[[Mapping[str, Any]], str]


def as_text(chosen: Sequence[Column]) -> Write:
    """Write time, place, key, type and value, or what is *chosen*, two spaces apart."""

    def usual(shown: Mapping[str, Any]) -> str:
        place = f"{shown['partition']}:{shown['offset']}"
        type_ = shown["headers"].get("ce_type")
        return _line((shown["timestamp"], place, shown["key"], type_, shown["value"]))

    def some(shown: Mapping[str, Any]) -> str:
        return _line([column.of(shown) for column in chosen])

    return some if chosen else usual


def as_json(chosen: Sequence[Column]) -> Write:
    """Write all parts, or what is *chosen* under its path, as one object."""

    def write(shown: Mapping[str, Any]) -> str:
        parts = {column.name: column.of(shown) for column in chosen} if chosen else shown
        return orjson.dumps({"kind": "record", **parts}).decode() + "\n"

    return write


def as_csv(chosen: Sequence[Column]) -> tuple[str, Write]:
    """The first row, and what writes the others (RFC 4180); what is neither text nor number is JSON."""
    given = chosen or columns(DEFAULT)

    def write(shown: Mapping[str, Any]) -> str:
        return _row([_cell(column.of(shown)) for column in given])

    return _row([column.name for column in given]), write


def _row(cells: Sequence[str]) -> str:
    row = io.StringIO()
    csv.writer(row).writerow(cells)
    return row.getvalue()


def _cell(value: Any) -> str:
    """*value* as text; nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _line(values: Sequence[Any]) -> str:
    return "  ".join("-" if value is None else _printable(_cell(value)) for value in values) + "\n"


def _printable(text: str) -> str:
    """*text* without what a terminal would take for orders."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
