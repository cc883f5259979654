"""
The oracle's fourth part: what the Users API holds at the end is what the topics say last.

In the catalogue's dialect each window of the dimensions ``all`` and ``tag`` stands there whole, with its
newest revision; in the vendor's, each dimension's newest day as custom values, and contacts' totals as custom
fields. The measures themselves are compared with the ledger by `oracle_measures`, contacts' totals here.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from pipeline.sandbox.oracle_records import MEASURES, TOTALS
from pipeline.sandbox.oracle_tables import Database
from pipeline.sandbox.state import SandboxState

__all__ = ["HELD", "check_posted", "check_totals", "holdings"]

#: column -> DuckDB type of what `holdings` gives
HELD: Final[Mapping[str, str]] = dict.fromkeys(("location_id", "kind", "owner", "name", "value"), "VARCHAR")
#: what no custom field shows
_HIDDEN: Final = ("conversations_started", "conversations_closed")


def holdings(state: SandboxState) -> Iterator[dict[str, Any]]:
    """
    What the Users API's sandbox was given: rows of `HELD`.

    ``submission``: the name is the window key, the value its metrics; ``custom_value``; ``contact_field``:
    the owner is the contact's id.
    """
    for location in state.users.locations.values():
        row = {"location_id": location.id}
        for identity, submission in location.submissions.items():
            metrics = dict(submission.body.get("metrics", {}))
            name = metrics.pop("window_key", "")
            value = orjson.dumps(metrics, option=orjson.OPT_SORT_KEYS).decode()
            yield {**row, "kind": "submission", "owner": identity, "name": name, "value": value}
        for shown in location.custom_values.values():
            yield {
                **row,
                "kind": "custom_value",
                "owner": None,
                "name": shown["name"],
                "value": shown["value"],
            }
        for contact in location.contacts.values():
            for entry in contact.get("customFields", []):
                name = location.custom_fields.get(entry["id"], {}).get("name", entry["id"])
                value = str(entry.get("value"))
                yield {**row, "kind": "contact_field", "owner": contact["id"], "name": name, "value": value}


def check_totals(database: Database) -> None:
    """Compare each contact's lifetime totals, in which late facts count too."""
    sums = ", ".join(f"sum(amount) FILTER (measure = '{name}') AS {name}" for name in TOTALS)
    database.run(f"""
        CREATE TABLE totals AS
        SELECT contact_key, {sums} FROM booked WHERE width = 'ever' GROUP BY contact_key;
        CREATE TABLE engaged_last AS
        SELECT DISTINCT ON (contact_key) * FROM engaged ORDER BY contact_key, position DESC;
    """)  # noqa: S608
    joined = "FROM totals t FULL JOIN engaged_last e USING (contact_key)"
    for name in TOTALS:
        expected = f"coalesce(t.{name}, 0)::DECIMAL(28, 10)"
        actual = f"coalesce(e.{name}::DECIMAL(28, 10), 0)"
        database.compare(
            f"contact's {name}",
            f"SELECT count(*) {joined}",
            f"SELECT contact_key, {expected}::VARCHAR, {actual}::VARCHAR {joined} "
            f"WHERE {expected} <> {actual}",
        )


def check_posted(database: Database, held: Iterable[Mapping[str, Any]]) -> None:
    """Compare what the Users API holds with the topics."""
    database.load("held", HELD, held)
    database.run("""
        CREATE TABLE to_post AS
        SELECT p.*, t.location_id, t.dialect FROM published p JOIN tenants t USING (tenant)
        WHERE p.dimension = 'all' OR starts_with(p.dimension, 'tag:')
    """)
    database.compare(
        "posted window",
        "SELECT count(*) FROM to_post WHERE dialect = 'catalogue'",
        """
        SELECT window_key, p.value, h.value
        FROM (FROM to_post WHERE dialect = 'catalogue') p
        LEFT JOIN (FROM held WHERE kind = 'submission') h
          ON h.location_id = p.location_id AND h.name = p.window_key
        WHERE p.value IS DISTINCT FROM h.value
        """,
    )
    database.compare(
        "posted window twice",
        "SELECT count(*) FROM held WHERE kind = 'submission'",
        """
        SELECT name, 'one id', count(*)::VARCHAR FROM held WHERE kind = 'submission'
        GROUP BY location_id, name HAVING count(*) > 1
        """,
    )
    _check_custom_values(database)
    _check_contact_fields(database)


def _check_custom_values(database: Database) -> None:
    pairs = ", ".join(f"{{k: '{name}', v: {name}::VARCHAR}}" for name in (*MEASURES, "cost"))
    database.run(f"""
        CREATE TABLE days_to_show AS
        SELECT location_id, dimension, unnest(map_entries(map_from_entries([{pairs}]))) AS shown
        FROM (SELECT DISTINCT ON (location_id, dimension) * FROM to_post
              WHERE dialect = 'vendor' AND width = '1d' ORDER BY location_id, dimension, start_ms DESC)
    """)  # noqa: S608
    database.compare(
        "custom value",
        "SELECT count(*) FROM days_to_show",
        """
        SELECT concat_ws('/', 'engagement', dimension, d.shown.key), d.shown.value, h.value
        FROM days_to_show d LEFT JOIN (FROM held WHERE kind = 'custom_value') h
          ON h.location_id = d.location_id AND h.name = concat_ws('/', 'engagement', d.dimension, d.shown.key)
        WHERE d.shown.value IS DISTINCT FROM h.value
        """,
    )


def _check_contact_fields(database: Database) -> None:
    for name in (total for total in TOTALS if total not in _HIDDEN):
        database.compare(
            f"contact field {name}",
            "SELECT count(*) FROM standing JOIN tenants USING (tenant) JOIN engaged_last USING (contact_key) "
            "WHERE system = 'users' AND dialect = 'vendor'",
            f"""
            SELECT s.contact_id || ' {name}', e.{name}::VARCHAR, h.value
            FROM standing s JOIN tenants t USING (tenant) JOIN engaged_last e USING (contact_key)
            LEFT JOIN held h ON h.kind = 'contact_field' AND h.owner = s.contact_id
                 AND h.name = 'engagement_{name}'
            WHERE s.system = 'users' AND t.dialect = 'vendor' AND e.{name}::VARCHAR IS DISTINCT FROM h.value
            """,  # noqa: S608
        )
