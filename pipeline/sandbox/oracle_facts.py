"""
The oracle's first part: which facts must and may have become activities, and what each must say.

A fact must be there if a webhook that tells it was accepted, or if polling finds it at the end; it may be
there if it was ever true. Each is there once, with what the ledger says of it, under a contact key that its
person had at the time, and not earlier or later than one of its webhooks was under way. Makes these tables:

``told``           the message facts of ``activities``, with where they came from
``opts_told``, ``conversations_told``  likewise
"""

from typing import Final

from pipeline.sandbox.oracle_tables import Database

__all__ = ["check_facts"]

_IMPLIED: Final = """
    CREATE TABLE implied AS
    WITH versions AS (
        SELECT m.*,
               m.updated_ms = max(m.updated_ms) OVER (PARTITION BY m.message_id)
                   AND m.created_ms > $now_ms - $reconcile_ms
               OR EXISTS (FROM accepted w WHERE w.resource_id = m.message_id
                              AND w.updated_ms = m.updated_ms AND w.is_accepted) AS is_required
        FROM messages m),
    facts AS (
        SELECT message_id, if(outgoing, 'sent', 'received') AS fact, created_ms AS at_ms, is_required
        FROM versions
        UNION ALL
        SELECT message_id, 'status:' || status, updated_ms, is_required FROM versions WHERE outgoing
        UNION ALL
        SELECT message_id, 'priced:' || segments || ':' || price, updated_ms, is_required
        FROM versions WHERE outgoing)
    SELECT message_id, fact, list(at_ms) AS times, bool_or(is_required) AS is_required FROM facts GROUP BY ALL
"""
_TOLD: Final = """
    CREATE TABLE told AS
    WITH origins AS (
        SELECT traceparent, any_value(source) AS source
        FROM received WHERE traceparent IS NOT NULL GROUP BY ALL)
    SELECT a.*, o.source,
           CASE a.type WHEN 'sakari.message.sent.v1' THEN 'sent'
                       WHEN 'sakari.message.received.v1' THEN 'received'
                       WHEN 'sakari.message.status-changed.v1' THEN 'status:' || a.status
                       ELSE 'priced:' || a.segments || ':' || a.price END AS fact,
           row_number() OVER (PARTITION BY a.message_id, fact ORDER BY a.partition, a.position) AS nth
    FROM activities a LEFT JOIN origins o USING (traceparent)
    WHERE a.type LIKE 'sakari.message.%'
"""
#: the last version of each message, as far as versions don't differ
_MESSAGES: Final = """
    CREATE TABLE known_messages AS
    SELECT m.* REPLACE (n.hash AS number), m.number AS own_number
    FROM (SELECT DISTINCT ON (message_id) * FROM messages) m
    LEFT JOIN own_numbers n ON n.tenant = m.tenant AND n.number = m.number
"""


def check_facts(database: Database) -> None:
    """Compare the ledger's facts with the activities."""
    for statement in (_IMPLIED, _TOLD, _MESSAGES):
        database.run(statement)
    _check_presence(database)
    _check_content(database)
    _check_arrival(database)
    _check_conversations(database)
    _check_opts(database)
    _check_people(database)


def _check_presence(database: Database) -> None:
    database.compare(
        "message fact missing",
        "SELECT count(*) FROM implied WHERE is_required",
        "SELECT message_id || ' ' || fact, 'an activity', 'none' "
        "FROM implied ANTI JOIN told USING (message_id, fact) WHERE is_required",
    )
    database.compare(
        "message fact invented",
        "SELECT count(*) FROM told",
        "SELECT message_id || ' ' || fact, 'nothing', 'an activity' "
        "FROM told ANTI JOIN implied USING (message_id, fact)",
    )
    database.compare(
        "message fact twice",
        "SELECT count(*) FROM told",
        "SELECT message_id || ' ' || fact, 'once', 'again' FROM told WHERE nth > 1",
    )
    database.compare(
        "activity twice",
        "SELECT count(*) FROM activities",
        "SELECT fact_id, 'once', count(*)::VARCHAR FROM activities GROUP BY fact_id HAVING count(*) > 1",
    )


def _check_content(database: Database) -> None:
    fields = (
        "tenant",
        "account_id",
        "contact_id",
        "conversation_id",
        "outgoing",
        "created_ms",
        "template",
        "number",
    )
    for field in fields:
        database.compare(
            f"message {field}",
            "SELECT count(*) FROM told",
            f"SELECT t.message_id || ' ' || t.fact, m.{field}::VARCHAR, t.{field}::VARCHAR "  # noqa: S608
            "FROM told t JOIN known_messages m USING (message_id) "
            f"WHERE m.{field} IS DISTINCT FROM t.{field}",
        )
    # REST items carry neither job nor campaign.
    for field in ("job", "campaign"):
        database.compare(
            f"message {field}",
            "SELECT count(*) FROM told WHERE source IS NOT NULL",
            f"SELECT t.message_id || ' ' || t.fact, if(t.source = 'webhook', m.{field}, NULL), t.{field} "  # noqa: S608
            "FROM told t JOIN known_messages m USING (message_id) "
            f"WHERE if(t.source = 'webhook', m.{field}, NULL) IS DISTINCT FROM t.{field}",
        )
    database.compare(
        "message fact's time",
        "SELECT count(*) FROM told",
        "SELECT t.message_id || ' ' || t.fact, i.times::VARCHAR, t.occurred_ms::VARCHAR "
        "FROM told t JOIN implied i USING (message_id, fact) WHERE NOT list_contains(i.times, t.occurred_ms)",
    )


def _check_arrival(database: Database) -> None:
    database.compare(
        "activity's source",
        "SELECT count(*) FROM told",
        "SELECT message_id || ' ' || fact, 'a received record', 'none' FROM told WHERE source IS NULL",
    )
    database.compare(
        "webhook's arrival",
        "SELECT count(*) FROM told WHERE source = 'webhook'",
        """
        SELECT t.message_id || ' ' || t.fact, 'while a webhook of it was under way', t.received_ms::VARCHAR
        FROM told t
        WHERE t.source = 'webhook' AND NOT EXISTS (
            FROM accepted w WHERE w.resource_id = t.message_id
                AND t.received_ms BETWEEN w.at_ms - $slack_ms AND w.until_ms + $slack_ms)
        """,
    )


def _check_conversations(database: Database) -> None:
    database.run("""
        CREATE TABLE conversation_facts AS
        WITH ends AS (
            SELECT conversation_id, any_value(contact_id) AS contact_id, any_value(hash) AS number,
                   min(created_ms) AS created_ms, max(closed_ms) AS closed_ms
            FROM conversations JOIN own_numbers USING (tenant, number) GROUP BY conversation_id)
        SELECT conversation_id, contact_id, number,
               'sakari.conversation.started.v1' AS type, created_ms AS at_ms
        FROM ends
        UNION ALL
        SELECT conversation_id, contact_id, number, 'sakari.conversation.closed.v1', closed_ms FROM ends
        WHERE closed_ms IS NOT NULL
    """)
    database.run("""
        CREATE TABLE conversations_told AS
        SELECT DISTINCT ON (a.conversation_id, a.type) a.*
        FROM activities a WHERE type IN ('sakari.conversation.started.v1', 'sakari.conversation.closed.v1')
    """)
    database.compare(
        "conversation fact",
        "SELECT count(*) FROM conversation_facts",
        """
        SELECT coalesce(f.conversation_id, t.conversation_id) || ' ' || coalesce(f.type, t.type),
               concat_ws(' ', f.at_ms, f.contact_id, f.number),
               concat_ws(' ', t.occurred_ms, t.contact_id, t.number)
        FROM conversation_facts f FULL JOIN conversations_told t USING (conversation_id, type)
        WHERE (f.at_ms, f.contact_id, f.number) IS DISTINCT FROM (t.occurred_ms, t.contact_id, t.number)
        """,
    )


def _check_opts(database: Database) -> None:
    # Untimed opt changes are told in order and count when they change what the pipeline knows.
    database.run("""
        CREATE TABLE opt_changes AS
        SELECT o.*, w.is_accepted, w.is_unknown AND NOT w.is_accepted AS is_unsure, w.until_ms,
               o.rowid AS row
        FROM opts o JOIN accepted w USING (webhook)
    """)
    database.run("""
        CREATE TABLE opts_told AS
        SELECT *, type = 'sakari.contact.opted-out.v1' AS out
        FROM activities WHERE type IN ('sakari.contact.opted-out.v1', 'sakari.contact.opted-in.v1')
    """)
    database.compare(
        "opt change missing",
        "SELECT count(*) FROM opt_changes WHERE is_accepted AND changed_ms IS NOT NULL",
        """
        SELECT contact_id || ' out=' || out, changed_ms::VARCHAR, 'none' FROM opt_changes c
        WHERE is_accepted AND changed_ms IS NOT NULL AND NOT EXISTS (
            FROM opts_told t WHERE (t.contact_id, t.out, t.occurred_ms) = (c.contact_id, c.out, c.changed_ms))
        """,
    )
    database.compare(
        "opt change invented",
        "SELECT count(*) FROM opts_told",
        """
        SELECT contact_id || ' out=' || out, 'nothing', occurred_ms::VARCHAR FROM opts_told t
        WHERE NOT EXISTS (
            FROM opt_changes c WHERE (c.contact_id, c.out) = (t.contact_id, t.out) AND (
                c.changed_ms = t.occurred_ms
                OR c.changed_ms IS NULL AND t.occurred_ms = t.received_ms
                   AND t.received_ms BETWEEN c.at_ms - $slack_ms AND c.until_ms + $slack_ms))
        """,
    )
    database.compare("untimed opt change", _UNTIMED_TOTAL, _UNTIMED_WRONG)


_UNTIMED: Final = """
    untimed AS (
        SELECT *, bool_or(is_unsure) OVER (PARTITION BY contact_id) AS is_contact_unsure
        FROM opt_changes WHERE changed_ms IS NULL),
    effective AS (
        SELECT contact_id, out, row_number() OVER (PARTITION BY contact_id ORDER BY row) AS nth
        FROM (SELECT *, lag(out, 1, false) OVER (PARTITION BY contact_id ORDER BY row) AS was
              FROM untimed WHERE is_accepted AND NOT is_contact_unsure)
        WHERE out <> was)
"""
_UNTIMED_TOTAL: Final = f"WITH {_UNTIMED} SELECT count(*) FROM effective"  # noqa: S608
_UNTIMED_WRONG: Final = f"""
    WITH {_UNTIMED},
    seen AS (
        SELECT contact_id, out,
               row_number() OVER (PARTITION BY contact_id ORDER BY received_ms, position) AS nth
        FROM opts_told SEMI JOIN (FROM untimed WHERE NOT is_contact_unsure) USING (contact_id))
    SELECT coalesce(e.contact_id, s.contact_id) || ' ' || coalesce(e.nth, s.nth),
           e.out::VARCHAR, s.out::VARCHAR
    FROM effective e FULL JOIN seen s USING (contact_id, nth) WHERE e.out IS DISTINCT FROM s.out
"""  # noqa: S608


def _check_people(database: Database) -> None:
    """Each fact stands under a contact key that its contact had when it came, give or take polling."""
    database.compare(
        "activity's contact key",
        "SELECT count(*) FROM activities WHERE type LIKE 'sakari.%' AND contact_id IS NOT NULL",
        """
        SELECT a.contact_id || ' ' || a.fact_id, 'a key the contact had', a.contact_key
        FROM activities a
        WHERE a.type LIKE 'sakari.%' AND a.type <> 'sakari.contact.moved.v1' AND a.contact_id IS NOT NULL
          AND NOT EXISTS (
            FROM contact_versions v
            WHERE (v.tenant, v.contact_id, v.contact_key) = (a.tenant, a.contact_id, a.contact_key)
              AND v.system = 'sakari' AND v.at_ms <= a.received_ms + $slack_ms
              AND v.until_ms >= a.received_ms - $poll_delay_ms)
        """,
    )
