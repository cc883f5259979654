"""The ledger of the sandbox: rows on disk, whole, and never mixed with another run's."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from pipeline.errors import ConfigError
from pipeline.sandbox.ledger import TABLES, Ledger, table_file


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger whose clock stands at one second."""
    with Ledger(tmp_path / "ledger", clock=lambda: 1_000) as opened:
        yield opened


def rows(ledger: Ledger, table: str) -> list[dict[str, object]]:
    """What another process reads."""
    return [orjson.loads(line) for line in table_file(ledger.directory, table).read_bytes().splitlines()]


def test_rows_are_readable_by_others_after_a_flush(ledger: Ledger) -> None:
    """A flushed row stands in its table's file with the time it was written."""
    ledger.note("opts", tenant="acme", contact_id="c1", out=True, changed_ms=None)
    ledger.flush()
    assert rows(ledger, "opts") == [
        {"tenant": "acme", "contact_id": "c1", "out": True, "changed_ms": None, "at_ms": 1_000}
    ]


def test_memory_is_bounded_without_a_flush(ledger: Ledger) -> None:
    """Rows reach the disk by themselves once many wait."""
    for number in range(2_000):
        ledger.note("webhooks", webhook=f"w{number}")
    assert len(rows(ledger, "webhooks")) == 2_000


def test_a_given_time_stands(ledger: Ledger) -> None:
    """Only a missing ``at_ms`` is filled in."""
    ledger.note("deliveries", webhook="w1", at_ms=7)
    ledger.flush()
    assert rows(ledger, "deliveries")[0]["at_ms"] == 7


def test_a_ledger_is_never_continued(ledger: Ledger) -> None:
    """A second run in the same directory is refused, as its rows would mix."""
    with pytest.raises(ConfigError, match="holds a ledger already"):
        Ledger(ledger.directory)


def test_every_table_has_a_file_from_the_start(ledger: Ledger) -> None:
    """An empty table reads as no rows, not as a missing file."""
    assert all(rows(ledger, table) == [] for table in TABLES)


def test_an_unusable_directory_is_told(tmp_path: Path) -> None:
    """A file in the way is an error that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file"):
        Ledger(tmp_path / "file")
