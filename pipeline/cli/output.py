"""What commands print: one JSON object a line, or tables that are also readable in a pipe."""

import sys
from collections.abc import Sequence
from typing import Any

import orjson

__all__ = ["print_json", "print_table"]


def print_json(kind: str, **fields: Any) -> None:
    """Print one line of JSON: *kind* and *fields*."""
    print(orjson.dumps({"kind": kind, **fields}).decode(), flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print *rows* under *columns*: ruled on a terminal, else aligned text whose lines are never cut."""
    if sys.stdout.isatty():
        _ruled(title, columns, rows)
        return
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _ruled(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # noqa: PLC0415 - a pipe does not pay for it
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
