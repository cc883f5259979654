"""
The oracle's database: the ledger, the rows of the topics, and what both are reckoned with, in DuckDB.

Beside the tables of `ledger.TABLES` and `oracle_records.TABLES` it holds:

``contact_keys``  native contact, its versions' contact keys and when each began and ended
``own_numbers``   what stands for our own numbers in dimensions
``folds``         how tag texts compare
``days``          the days of each tenant's zone
``buckets``       upper bounds of the histogram of reply times
``accepted``      webhooks: whether, and until when, they were delivered
``mismatches``    what was found wrong; ``compared`` how much was looked at
"""

import hmac
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import duckdb
import orjson
import phonenumbers

from pipeline.errors import ConfigError
from pipeline.sandbox import ledger, oracle_records
from pipeline.sandbox.oracle_records import Rows

__all__ = ["Database", "OracleSettings", "opened"]

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleSettings:
    """What the pipeline under test was told, and how late it may know of a change."""

    grace_s: int
    reply_window_s: int = 259_200
    max_tags: int = 50
    reconcile_days: int = 7  #: messages created within are found by polling
    poll_delay_s: float = 60.0  #: within so long a change at an API is known
    clock_slack_ms: int = 50  #: between two readings of one machine's clock


@dataclass(frozen=True, slots=True)
class Database:
    """A DuckDB connection with everything in it."""

    sql: duckdb.DuckDBPyConnection
    settings: OracleSettings
    now_ms: int

    def run(self, statement: str, **values: Any) -> duckdb.DuckDBPyConnection:
        """Execute *statement*; ``$name`` stands for a value, the settings and ``$now_ms`` among them."""
        known = {
            "grace_ms": self.settings.grace_s * 1_000,
            "reply_window_ms": self.settings.reply_window_s * 1_000,
            "max_tags": self.settings.max_tags,
            "reconcile_ms": self.settings.reconcile_days * DAY_MS,
            "poll_delay_ms": round(self.settings.poll_delay_s * 1_000),
            "slack_ms": self.settings.clock_slack_ms,
            "now_ms": self.now_ms,
            **values,
        }
        used = {name: value for name, value in known.items() if f"${name}" in statement}
        return self.sql.execute(statement, used or None)

    def load(self, table: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> None:
        """Create *table* of *rows*."""
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
            for row in rows:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            self.read(table, columns, Path(file.name))

    def read(self, table: str, columns: Mapping[str, str], path: Path) -> None:
        """Create *table* of the JSON Lines file at *path*."""
        types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
        self.sql.execute(
            f"CREATE TABLE {table} AS SELECT * FROM read_json($path, format='newline_delimited', "  # noqa: S608
            f"columns={{{types}}}, maximum_object_size=67108864)",
            {"path": str(path)},
        )

    def compare(self, check: str, total: str, wrong: str) -> None:
        """
        Look at *total* (a query of one number) things, of which *wrong* (a query of what, expected and
        actual) are mismatches.
        """
        self.run(f"INSERT INTO compared SELECT $check, coalesce(({total}), 0)", check=check)
        self.run(
            f"INSERT INTO mismatches SELECT $check, * FROM ({wrong}) AS found(what, expected, actual)",  # noqa: S608
            check=check,
        )


@contextmanager
def opened(
    directory: Path, rows: Rows, *, identity_secret: bytes, settings: OracleSettings, now_ms: int
) -> Iterator[Database]:
    """
    A database of the ledger in *directory* and the topics' *rows*.

    Raises:
        ConfigError: *directory* holds no ledger.
    """
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as connection:
        database = Database(connection, settings, now_ms)
        connection.execute(
            "CREATE TABLE mismatches(kind VARCHAR, what VARCHAR, expected VARCHAR, actual VARCHAR)"
        )
        connection.execute("CREATE TABLE compared(kind VARCHAR, number BIGINT)")
        _load_ledger(database, directory)
        for table, columns in oracle_records.TABLES.items():
            database.load(table, columns, rows[table])
        _load_identities(database, identity_secret)
        _load_days(database)
        _derive(database)
        yield database


def _load_ledger(database: Database, directory: Path) -> None:
    for table, columns in ledger.TABLES.items():
        path = ledger.table_file(directory, table)
        if not path.is_file():
            raise ConfigError(f"{directory} holds no ledger: {path.name} is missing")
        database.read(table, columns, path)


def _load_identities(database: Database, secret: bytes) -> None:
    """Contact keys and number hashes, by an HMAC of the oracle's own."""
    contacts = database.run(
        "SELECT DISTINCT tenant, system, contact_id, number, country, coalesce(country, region) "
        "FROM contacts JOIN tenants USING (tenant)"
    ).fetchall()
    names = ("tenant", "system", "contact_id", "number", "country")
    rows = [
        dict(zip(names, (*whose, number, country), strict=True))
        | {"contact_key": _key(secret, whose, _e164(number, region))}
        for *whose, number, country, region in contacts
    ]
    database.load("identities", dict.fromkeys((*names, "contact_key"), "VARCHAR"), rows)
    numbers = database.run("SELECT DISTINCT tenant, number FROM conversations").fetchall()
    hashes = [
        {"tenant": tenant, "number": number, "hash": _digest(secret, f"{tenant}\0number", number)}
        for tenant, number in numbers
    ]
    database.load("own_numbers", dict.fromkeys(("tenant", "number", "hash"), "VARCHAR"), hashes)
    texts = database.run("""
        SELECT DISTINCT text
        FROM (SELECT unnest(tags) AS text FROM contacts UNION ALL SELECT name FROM location_tags)
        WHERE text IS NOT NULL
    """).fetchall()
    folds = [{"text": text, "trimmed": text.strip(), "folded": text.strip().casefold()} for (text,) in texts]
    database.load("folds", dict.fromkeys(("text", "trimmed", "folded"), "VARCHAR"), folds)


def _key(secret: bytes, whose: Iterable[str], mobile: str | None) -> str:
    """The contact key: by the mobile where there is a valid one, else the native key (DESIGN §3)."""
    tenant, system, contact_id = whose
    return f"{tenant}:m:{_digest(secret, tenant, mobile)}" if mobile else f"{tenant}:{system[0]}:{contact_id}"


def _e164(number: str | None, region: str) -> str | None:
    try:
        parsed = phonenumbers.parse(number or "", region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def _digest(secret: bytes, scope: str, text: str) -> str:
    return hmac.new(secret, f"{scope}\0{text}".encode(), "sha256").hexdigest()[:32]


def _load_days(database: Database) -> None:
    """Every day from before the first fact to after the last one, in each tenant's zone."""
    first, last = database.run("""
        SELECT min(moment), max(moment)
        FROM (SELECT created_ms AS moment FROM messages
              UNION ALL SELECT occurred_ms FROM activities UNION ALL SELECT $now_ms)
    """).fetchall()[0]
    days = [
        {"tenant": tenant, "start_ms": start, "end_ms": end}
        for tenant, zone in database.run("SELECT tenant, time_zone FROM tenants").fetchall()
        for start, end in _days_of(ZoneInfo(zone), first - 2 * DAY_MS, last + 2 * DAY_MS)
    ]
    database.load("days", {"tenant": "VARCHAR", "start_ms": "BIGINT", "end_ms": "BIGINT"}, days)


def _days_of(zone: ZoneInfo, first_ms: int, last_ms: int) -> Iterator[tuple[int, int]]:
    day = datetime.fromtimestamp(first_ms / 1_000, zone).date()
    end = datetime.fromtimestamp(last_ms / 1_000, zone).date()
    while day < end:
        following = day + timedelta(days=1)
        yield _midnight(day, zone), _midnight(following, zone)
        day = following


def _midnight(day: date, zone: ZoneInfo) -> int:
    local = datetime(day.year, day.month, day.day, tzinfo=zone)
    return round(local.astimezone(UTC).timestamp() * 1_000)


def _derive(database: Database) -> None:
    # A version of a contact holds from its row to the next one.
    database.run("""
        CREATE TABLE contact_versions AS
        SELECT c.*, i.contact_key,
               lead(c.at_ms, 1, 9e15::BIGINT) OVER one AS until_ms,
               lead(c.at_ms) OVER one IS NULL AS is_last
        FROM (SELECT *, rowid AS row FROM contacts) c
        JOIN identities i ON (c.tenant, c.system, c.contact_id) = (i.tenant, i.system, i.contact_id)
             AND c.number IS NOT DISTINCT FROM i.number AND c.country IS NOT DISTINCT FROM i.country
        WINDOW one AS (PARTITION BY c.tenant, c.system, c.contact_id ORDER BY c.row)
    """)
    database.run("""
        CREATE TABLE tag_versions AS
        SELECT t.*, lead(t.at_ms, 1, 9e15::BIGINT) OVER one AS until_ms,
               lead(t.at_ms) OVER one IS NULL AS is_last
        FROM (SELECT *, rowid AS row FROM location_tags) t
        WINDOW one AS (PARTITION BY t.tenant, t.tag_id ORDER BY t.row)
    """)
    # Attempts without acceptance leave open whether the pipeline has it: a connection may break after. Where
    # nobody answered it may come at any time: whoever is stopped reads it when they go on.
    database.run("""
        CREATE TABLE accepted AS
        WITH ends AS (
            SELECT webhook, bool_or(accepted) AS is_accepted,
                   bool_or(NOT accepted AND attempts > 0) AS is_unknown,
                   max(if(accepted OR status IS NOT NULL, at_ms, 9e15::BIGINT))
                       FILTER (attempts > 0) AS until_ms
            FROM deliveries GROUP BY webhook)
        SELECT w.*, coalesce(e.is_accepted, false) AS is_accepted,
               coalesce(e.is_unknown, false) AS is_unknown,
               coalesce(e.until_ms, w.at_ms) AS until_ms
        FROM webhooks w LEFT JOIN ends e USING (webhook)
    """)
    database.run("""
        CREATE TABLE buckets AS
        WITH RECURSIVE bounds(bucket, upper) AS (
            SELECT 0, 0::BIGINT
            UNION ALL
            SELECT bucket + 1, least(greatest(upper + 1, upper * 102 // 100), 259200)
            FROM bounds WHERE upper < 259200
        ) SELECT * FROM bounds
    """)
