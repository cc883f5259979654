"""
The oracle's second part: every measure of every window, from the ledger's facts in SQL (DESIGN §4).

What is taken from the activities: when each fact was received (which decides what is late), and the
dimensions of each message, those of its first activity. All else is the ledger's, as `oracle_facts` compared
them. A fact that is late for a window of one width does not exist for that width: neither does an outbound
message take replies there, nor a status correct another.
"""

from typing import Final

from pipeline.sandbox.oracle_records import MEASURES
from pipeline.sandbox.oracle_tables import Database

__all__ = ["check_measures"]

#: each message fact once, and only if the ledger knows it
_FACTS: Final = """
    CREATE TABLE facts AS
    SELECT t.tenant, t.contact_key, t.account_id, t.message_id, t.fact, t.partition, t.position,
           t.received_ms, t.backfill, t.occurred_ms, t.segments, t.price, m.created_ms,
           coalesce(m.conversation_id, '-') AS conversation_id,
           list_concat(['all'], t.tag_dimensions[:$max_tags], t.own_dimensions) AS dimensions
    FROM told t JOIN implied USING (message_id, fact) JOIN known_messages m USING (message_id)
    WHERE t.nth = 1
"""
_DIMENSIONS: Final = """
    CREATE TABLE message_dimensions AS
    SELECT contact_key, account_id, message_id, list_distinct(arg_min(dimensions, position)) AS dimensions
    FROM facts GROUP BY ALL
"""
#: opt changes and conversations, at their own time
_HAPPENINGS: Final = """
    CREATE TABLE happenings AS
    SELECT tenant, contact_key, if(out, 'opt_outs', 'opt_ins') AS measure, occurred_ms, received_ms, backfill,
           partition, position,
           list_distinct(list_concat(['all'], tag_dimensions[:$max_tags])) AS dimensions
    FROM (SELECT DISTINCT ON (contact_id, out, occurred_ms) * FROM opts_told)
    UNION ALL
    SELECT tenant, contact_key,
           if(type = 'sakari.conversation.started.v1', 'conversations_started', 'conversations_closed'),
           occurred_ms, received_ms, backfill, partition, position,
           list_distinct(list_concat(['all'], tag_dimensions[:$max_tags], own_dimensions))
    FROM conversations_told
"""
#: the hour (UTC) and the day (the tenant's) of every time that matters; and all time, for contacts' totals
_WINDOWS: Final = """
    CREATE TABLE windows_of AS
    WITH times AS (
        SELECT tenant, created_ms AS at_ms FROM facts UNION SELECT tenant, occurred_ms FROM happenings)
    SELECT tenant, at_ms, '1h' AS width, at_ms - at_ms % 3600000 AS start_ms, start_ms + 3600000 AS end_ms
    FROM times
    UNION ALL
    SELECT t.tenant, t.at_ms, '1d', d.start_ms, d.end_ms
    FROM times t ASOF JOIN days d ON t.tenant = d.tenant AND t.at_ms >= d.start_ms
    UNION ALL
    SELECT tenant, at_ms, 'ever', 0, 9e15::BIGINT FROM times
"""
_PLACED: Final = """
    CREATE TABLE placed AS
    SELECT f.* EXCLUDE (dimensions), d.dimensions, w.width, w.start_ms, w.end_ms,
           NOT f.backfill AND f.received_ms - w.end_ms > $grace_ms AS is_late
    FROM facts f
    JOIN message_dimensions d USING (contact_key, account_id, message_id)
    JOIN windows_of w ON w.tenant = f.tenant AND w.at_ms = f.created_ms
"""
_REPLIES: Final = """
    CREATE TABLE replies AS
    SELECT o.tenant, o.contact_key, o.width, o.start_ms, o.end_ms, o.dimensions,
           (i.created_ms - o.created_ms) // 1000 AS seconds,
           NOT i.backfill AND i.received_ms - o.end_ms > $grace_ms AS is_late
    FROM (FROM placed WHERE fact = 'received') i
    ASOF JOIN (FROM placed WHERE fact = 'sent' AND NOT is_late) o
      ON (i.contact_key, i.account_id, i.conversation_id, i.width)
       = (o.contact_key, o.account_id, o.conversation_id, o.width) AND i.created_ms >= o.created_ms
    WHERE i.created_ms - o.created_ms <= $reply_window_ms
"""
_BOOKED: Final = """
    CREATE TABLE booked AS
    WITH in_time AS (FROM placed WHERE NOT is_late),
    outcomes AS (
        SELECT tenant, contact_key, width, start_ms, end_ms, any_value(dimensions) AS dimensions,
               arg_max(fact = 'status:delivered', (occurred_ms, fact = 'status:delivered')) AS is_delivered
        FROM in_time
        WHERE fact IN ('status:delivered', 'status:error', 'status:invalid', 'status:undelivered')
        GROUP BY tenant, contact_key, account_id, message_id, width, start_ms, end_ms),
    prices AS (
        SELECT tenant, contact_key, width, start_ms, end_ms, any_value(dimensions) AS dimensions,
               arg_max({cost: price::DECIMAL(28, 10), segments: segments},
                       (occurred_ms, price::DECIMAL(28, 10), segments)) AS told
        FROM in_time WHERE fact LIKE 'priced:%'
        GROUP BY tenant, contact_key, account_id, message_id, width, start_ms, end_ms)
    SELECT tenant, contact_key, width, start_ms, end_ms, dimensions, fact AS measure,
           1::DECIMAL(28, 10) AS amount
    FROM in_time WHERE fact IN ('sent', 'received')
    UNION ALL
    SELECT tenant, contact_key, width, start_ms, end_ms, dimensions,
           if(is_delivered, 'delivered', 'failed'), 1
    FROM outcomes
    UNION ALL
    SELECT tenant, contact_key, width, start_ms, end_ms, dimensions, 'segments', told.segments FROM prices
    UNION ALL
    SELECT tenant, contact_key, width, start_ms, end_ms, dimensions, 'cost', told.cost FROM prices
    UNION ALL
    SELECT tenant, contact_key, width, start_ms, end_ms, dimensions, 'replies', 1
    FROM replies WHERE NOT is_late
    UNION ALL
    SELECT h.tenant, h.contact_key, w.width, w.start_ms, w.end_ms, h.dimensions, h.measure, 1
    FROM happenings h JOIN windows_of w ON w.tenant = h.tenant AND w.at_ms = h.occurred_ms
    WHERE h.backfill OR h.received_ms - w.end_ms <= $grace_ms
"""
_KEY: Final = """
    tenant || '|' || dimension || '|' || width || '|'
           || strftime(make_timestamp(start_ms * 1000), '%Y-%m-%dT%H:%M:%S.%g') || 'Z'
"""
#: measure -> the measure whose contacts it counts
_DISTINCT: Final = {"contacts_messaged": "sent", "repliers": "replies", "contacts_engaged": "received"}


def check_measures(database: Database) -> None:
    """Compare every window of ``engagement.metrics`` with what the ledger amounts to."""
    for statement in (_FACTS, _DIMENSIONS, _HAPPENINGS, _WINDOWS, _PLACED, _REPLIES, _BOOKED):
        database.run(statement)
    database.run(_expected())
    _compute_histograms(database)
    database.run("""
        CREATE TABLE published AS
        SELECT * FROM metrics QUALIFY row_number() OVER (PARTITION BY window_key ORDER BY position DESC) = 1
    """)
    for measure in MEASURES:
        _compare(database, measure, f"coalesce(e.{measure}, 0)::BIGINT", f"coalesce(p.{measure}, 0)")
    _compare(database, "cost", "coalesce(e.cost, 0)", "coalesce(p.cost, '0')::DECIMAL(28, 10)")
    _compare(
        database,
        "reply_seconds",
        "coalesce(h.counts, [])",
        "list_sort([{bucket: e.key::INTEGER, number: e.value} "
        "for e in map_entries(coalesce(p.reply_seconds, MAP {}))])",
    )
    _compare_derived(database)
    _check_windows(database)
    _check_late(database)


def _expected() -> str:
    sums = ", ".join(
        f"sum(amount) FILTER (measure = '{name}') AS {name}"
        for name in (*MEASURES, "cost")
        if name not in _DISTINCT
    )
    distinct = ", ".join(
        f"count(DISTINCT contact_key) FILTER (measure = '{source}') AS {name}"
        for name, source in _DISTINCT.items()
    )
    return f"""
        CREATE TABLE expected AS
        WITH spread AS (SELECT * EXCLUDE (dimensions), unnest(dimensions) AS dimension FROM booked)
        SELECT {_KEY} AS window_key, tenant, dimension, width, start_ms, end_ms, {sums}, {distinct}
        FROM spread WHERE width <> 'ever' GROUP BY tenant, dimension, width, start_ms, end_ms
    """  # noqa: S608


def _compute_histograms(database: Database) -> None:
    """Replies per bucket, in order of the buckets; quantiles by nearest rank."""
    database.run(f"""
        CREATE TABLE histograms AS
        WITH spread AS (
            SELECT * EXCLUDE (dimensions), unnest(dimensions) AS dimension FROM replies
            WHERE NOT is_late AND width <> 'ever'),
        counted AS (
            SELECT {_KEY} AS window_key, b.bucket, any_value(b.upper) AS upper, count(*) AS number
            FROM spread r ASOF JOIN buckets b ON least(r.seconds, 259200) <= b.upper
            GROUP BY ALL),
        ranked AS (
            SELECT *, sum(number) OVER (PARTITION BY window_key ORDER BY bucket) AS until,
                   sum(number) OVER (PARTITION BY window_key) AS total
            FROM counted)
        SELECT window_key, list({{bucket: bucket, number: number}} ORDER BY bucket) AS counts,
               min(upper) FILTER (until >= ceil(total * 0.5)) AS p50,
               min(upper) FILTER (until >= ceil(total * 0.9)) AS p90,
               min(upper) FILTER (until >= ceil(total * 0.99)) AS p99
        FROM ranked GROUP BY window_key
    """)  # noqa: S608


def _compare(database: Database, name: str, expected: str, actual: str) -> None:
    joined = (
        "FROM expected e FULL JOIN published p USING (window_key) LEFT JOIN histograms h USING (window_key)"
    )
    database.compare(
        f"measure {name}",
        f"SELECT count(*) {joined}",
        f"SELECT window_key || ' {name}', ({expected})::VARCHAR, ({actual})::VARCHAR "  # noqa: S608
        f"{joined} WHERE {expected} IS DISTINCT FROM {actual}",
    )


def _compare_derived(database: Database) -> None:
    ratios = {
        "delivery": ("delivered", "sent"),
        "failure": ("failed", "sent"),
        "reply": ("repliers", "contacts_messaged"),
        "opt_out": ("opt_outs", "contacts_messaged"),
    }
    for name, (part, whole) in ratios.items():
        rounded = f"round(coalesce(e.{part}, 0)::DOUBLE / nullif(coalesce(e.{whole}, 0), 0), 6)"
        database.compare(
            f"ratio {name}",
            "SELECT count(*) FROM published",
            f"SELECT window_key || ' {name}', ({rounded})::VARCHAR, p.{name}::VARCHAR "  # noqa: S608
            "FROM published p LEFT JOIN expected e USING (window_key) "
            f"WHERE abs({rounded} - p.{name}) > 1.1e-6 OR ({rounded} IS NULL) <> (p.{name} IS NULL)",
        )
    for name in ("p50", "p90", "p99"):
        _compare(database, name, f"h.{name}", f"p.{name}")


def _check_windows(database: Database) -> None:
    """Keys say what values say; ends are right; closed is told once the grace has passed, and not before."""
    database.compare(
        "window's key and end",
        "SELECT count(*) FROM published",
        f"""
        SELECT window_key, key || ' ' || end_of, window_key || ' ' || end_ms
        FROM (SELECT window_key, end_ms, {_KEY} AS key,
                     if(width = '1h', start_ms + 3600000, (
                         SELECT d.end_ms FROM days d
                         WHERE d.tenant = p.tenant AND d.start_ms = p.start_ms)) AS end_of
              FROM published p)
        WHERE key <> window_key OR end_of IS DISTINCT FROM end_ms
        """,  # noqa: S608
    )
    database.compare(
        "window's closing",
        "SELECT count(*) FROM published",
        """
        SELECT window_key, if(closed, 'open', 'closed'), if(closed, 'closed', 'open') FROM published
        WHERE closed AND end_ms + $grace_ms > $now_ms + $slack_ms
           OR NOT closed AND end_ms + $grace_ms < $now_ms - $poll_delay_ms
        """,
    )
    database.compare(
        "window's revisions",
        "SELECT count(*) FROM metrics",
        """
        SELECT window_key, 'more than ' || before, revision::VARCHAR
        FROM (SELECT *, lag(revision) OVER (PARTITION BY window_key ORDER BY position) AS before FROM metrics)
        WHERE revision <= before
        """,
    )


def _check_late(database: Database) -> None:
    """
    Dead letters as ``late``: each fact that is late for one of its windows, once.

    Whether an inbound message is told to be late as a reply depends on what was known when it came.
    """
    database.run("""
        CREATE TABLE late_facts AS
        SELECT DISTINCT partition, position FROM placed
        WHERE is_late AND (fact IN ('sent', 'received') OR fact LIKE 'priced:%'
            OR fact IN ('status:delivered', 'status:error', 'status:invalid', 'status:undelivered'))
        UNION
        SELECT h.partition, h.position
        FROM happenings h JOIN windows_of w ON w.tenant = h.tenant AND w.at_ms = h.occurred_ms
        WHERE NOT h.backfill AND h.received_ms - w.end_ms > $grace_ms
    """)
    database.run("""
        CREATE TABLE late_told AS
        SELECT partition, position, count(*) AS times FROM dead_letters
        WHERE stage = 'engagement' AND reason = 'late' GROUP BY ALL
    """)
    database.compare(
        "late fact's dead letter",
        "SELECT count(*) FROM late_facts",
        """
        SELECT concat_ws('/', 'activity.enriched', partition, position), '1', coalesce(times, 0)::VARCHAR
        FROM late_facts LEFT JOIN late_told USING (partition, position) WHERE times IS DISTINCT FROM 1
        """,
    )
    database.compare(
        "late dead letter",
        "SELECT count(*) FROM late_told",
        """
        SELECT concat_ws('/', 'activity.enriched', partition, position), 'none', times::VARCHAR
        FROM late_told ANTI JOIN late_facts USING (partition, position)
        ANTI JOIN (FROM facts WHERE fact = 'received') USING (partition, position)
        """,
    )
