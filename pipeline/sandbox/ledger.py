"""
What really happened in the sandbox, kept apart from the pipeline: one JSON Lines file per table.

A row is written once and never altered; a resource that changes gets one row per version, so the last row
of an id is how it stands. Times ending in ``_ms`` are ms since 1970: ``at_ms`` is the sandbox's own clock
when it wrote the row, the others are what stands on the wire. Another process can read the files while they
grow: after each `Ledger.flush` every row is whole.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import orjson

from pipeline.errors import ConfigError

__all__ = ["TABLES", "Ledger", "table_file", "wall_ms"]

_TEXT: Final = "VARCHAR"
_TIME: Final = "BIGINT"

#: table -> column -> DuckDB type
TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "tenants": {
        "tenant": _TEXT,
        "time_zone": _TEXT,
        "region": _TEXT,  #: how a number without a country is read
        "dialect": _TEXT,
        "account_id": _TEXT,
        "location_id": _TEXT,
    },
    "contacts": {
        "at_ms": _TIME,
        "tenant": _TEXT,
        "system": _TEXT,  #: sakari, users
        "account_id": _TEXT,  #: Sakari account or Users API location
        "contact_id": _TEXT,
        "number": _TEXT,  #: the mobile as on the wire
        "country": _TEXT,
        "tags": "VARCHAR[]",
        "removed": "BOOLEAN",
        "blocked": "BOOLEAN",
    },
    "location_tags": {
        "at_ms": _TIME,
        "tenant": _TEXT,
        "location_id": _TEXT,
        "tag_id": _TEXT,
        "name": _TEXT,
        "colour": _TEXT,
        "description": _TEXT,
        "removed": "BOOLEAN",
    },
    "messages": {
        "at_ms": _TIME,
        "tenant": _TEXT,
        "account_id": _TEXT,
        "message_id": _TEXT,
        "contact_id": _TEXT,
        "conversation_id": _TEXT,
        "outgoing": "BOOLEAN",
        "status": _TEXT,
        "created_ms": _TIME,
        "updated_ms": _TIME,
        "segments": "BIGINT",
        "price": _TEXT,  #: decimal
        "template": _TEXT,
        "job": _TEXT,
        "campaign": _TEXT,
        "number": _TEXT,  #: our own, E.164
    },
    "conversations": {
        "at_ms": _TIME,
        "tenant": _TEXT,
        "account_id": _TEXT,
        "conversation_id": _TEXT,
        "contact_id": _TEXT,
        "number": _TEXT,
        "created_ms": _TIME,
        "closed_ms": _TIME,
    },
    "opts": {
        "at_ms": _TIME,
        "tenant": _TEXT,
        "account_id": _TEXT,
        "contact_id": _TEXT,
        "webhook": _TEXT,  #: the only one that tells of it
        "out": "BOOLEAN",
        "changed_ms": _TIME,  #: null where the payload carries no time
    },
    "webhooks": {
        "at_ms": _TIME,  #: handed in for delivery
        "webhook": _TEXT,
        "tenant": _TEXT,
        "product": _TEXT,
        "kind": _TEXT,
        "contact_id": _TEXT,
        "resource_id": _TEXT,  #: of a message or conversation
        "updated_ms": _TIME,  #: which version of it
    },
    "deliveries": {
        "at_ms": _TIME,  #: of the last attempt
        "webhook": _TEXT,
        "twin": "BOOLEAN",  #: a duplicate
        "accepted": "BOOLEAN",
        "status": "BIGINT",
        "attempts": "BIGINT",  #: 0: lost on purpose
    },
}
#: rows that wait in memory at most, over all tables
_BUFFERED: Final = 2_000


def wall_ms() -> int:
    """Now, in ms since 1970."""
    return time.time_ns() // 1_000_000


def table_file(directory: Path, table: str) -> Path:
    """Where *table* is kept in the ledger's *directory*."""
    return directory / f"{table}.jsonl"


class Ledger:
    """
    Appends rows to the files of *directory*; a context manager that closes them.

    Args:
        directory: made if missing; must not hold another ledger.
        clock: ms since 1970.

    Raises:
        ConfigError: the directory cannot be used, or holds a ledger already.
    """

    def __init__(self, directory: Path, clock: Callable[[], int] = wall_ms) -> None:
        self.directory = directory
        self.clock = clock
        self.rows = dict.fromkeys(TABLES, 0)
        self._pending: dict[str, list[bytes]] = {table: [] for table in TABLES}
        self._waiting = 0
        self._files = _opened(directory)

    def note(self, table: str, **row: Any) -> None:
        """Append *row*; ``at_ms`` is filled in where the table has it and the row has not."""
        if "at_ms" in TABLES[table]:
            row.setdefault("at_ms", self.clock())
        self._pending[table].append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        self.rows[table] += 1
        self._waiting += 1
        if self._waiting >= _BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Write every row to its file."""
        for table, rows in self._pending.items():
            if rows:
                self._files[table].write(b"".join(rows))
                self._files[table].flush()
                rows.clear()
        self._waiting = 0

    def close(self) -> None:
        """Flush and close the files."""
        self.flush()
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(directory: Path) -> dict[str, BinaryIO]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return {table: table_file(directory, table).open("xb") for table in TABLES}
    except FileExistsError as error:
        raise ConfigError(f"{directory} holds a ledger already; name an empty directory") from error
    except OSError as error:
        raise ConfigError(f"{directory}: cannot hold a ledger: {error.strerror}") from error
