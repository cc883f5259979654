"""
The oracle's third part: who everybody is on both systems, and which tags they have.

At the end, ``contacts.enriched`` must hold exactly the people whose contacts stand in the ledger, joined by
mobile, with the tags of both systems, matched with the location tags by id, else by name. And on the way, the
tags that an activity carried must have been true when it came, give or take the delay of polling.
"""

from typing import Final

from pipeline.sandbox.oracle_tables import Database

__all__ = ["check_contacts", "check_truth"]

#: contacts that stand, and location tags that do
_STANDING: Final = """
    CREATE TABLE standing AS SELECT * FROM contact_versions WHERE is_last AND NOT removed;
    CREATE TABLE standing_tags AS
    SELECT t.*, f.folded FROM tag_versions t JOIN folds f ON f.text = t.name WHERE is_last AND NOT removed;
"""
#: of several location tags of one name: one of the person's own locations first, then the smallest id
_TAGS: Final = """
    CREATE TABLE expected_tags AS
    WITH typed AS (
        SELECT DISTINCT s.tenant, s.contact_key, s.system, f.trimmed, f.folded
        FROM (SELECT *, unnest(tags) AS text FROM standing) s JOIN folds f USING (text)
        WHERE f.trimmed <> ''),
    homes AS (SELECT DISTINCT contact_key, account_id AS location_id FROM standing WHERE system = 'users'),
    matched AS (
        SELECT t.*, l.tag_id, l.name, l.folded AS tag_folded, l.location_id, l.colour, l.description
        FROM typed t
        LEFT JOIN standing_tags l
          ON l.tenant = t.tenant AND (l.tag_id = t.trimmed OR l.folded = t.folded)
        LEFT JOIN homes h ON h.contact_key = t.contact_key AND h.location_id = l.location_id
        QUALIFY row_number() OVER (
            PARTITION BY t.contact_key, t.system, t.trimmed
            ORDER BY l.tag_id = t.trimmed DESC, h.location_id IS NULL, l.tag_id) = 1)
    SELECT contact_key, coalesce(tag_folded, folded) AS folded, tag_id,
           list_sort(list(DISTINCT system)) AS systems, any_value(name) AS name,
           any_value(location_id) AS location_id, any_value(colour) AS colour,
           any_value(description) AS description
    FROM matched GROUP BY contact_key, coalesce(tag_folded, folded), tag_id
"""
_TOLD: Final = """
    CREATE TABLE people_told AS
    SELECT * FROM (SELECT DISTINCT ON (contact_key) * FROM enriched ORDER BY contact_key, position DESC)
    WHERE natives IS NOT NULL;
    CREATE TABLE tags_told AS SELECT contact_key, unnest(tags, recursive := true) FROM people_told;
"""


def check_contacts(database: Database) -> None:
    """Compare every enriched contact's natives and tags with what stands at the end."""
    for statement in (_STANDING, _TAGS, _TOLD):
        database.run(statement)
    database.compare(
        "enriched contact",
        "SELECT count(DISTINCT contact_key) FROM standing",
        """
        WITH people AS (
            SELECT contact_key, list_sort(list(system || ':' || contact_id)) AS natives
            FROM standing GROUP BY contact_key)
        SELECT contact_key, p.natives::VARCHAR, t.natives::VARCHAR
        FROM people p FULL JOIN people_told t USING (contact_key) WHERE p.natives IS DISTINCT FROM t.natives
        """,
    )
    # The name of a tag that matches no location tag is spelled as on one of the systems: compared folded.
    database.compare(
        "enriched contact's tag",
        "SELECT count(*) FROM expected_tags",
        """
        WITH one AS (
            SELECT contact_key, folded, tag_id,
                   concat_ws(' ', systems, name, location_id, colour, description) AS told
            FROM expected_tags),
        other AS (
            SELECT contact_key, folded, tag_id,
                   concat_ws(' ', list_sort(systems), if(tag_id IS NULL, NULL, name), location_id,
                             colour, description) AS told
            FROM tags_told)
        SELECT coalesce(one.contact_key, other.contact_key) || ' ' || coalesce(one.folded, other.folded),
               one.told, other.told
        FROM one FULL JOIN other ON one.contact_key = other.contact_key AND one.folded = other.folded
            AND one.tag_id IS NOT DISTINCT FROM other.tag_id
        WHERE one.told IS DISTINCT FROM other.told
        """,
    )


def check_truth(database: Database) -> None:
    """Each tag of an activity was on its person, and matched so, at some time within the poll delay."""
    database.run("""
        CREATE TABLE typed_versions AS
        SELECT v.contact_key, v.tenant, v.system, f.trimmed, f.folded, v.at_ms, v.until_ms
        FROM (SELECT *, unnest(tags) AS text FROM contact_versions WHERE NOT removed) v
            JOIN folds f USING (text);
        CREATE TABLE tags_carried AS
        SELECT fact_id, contact_key, tenant, received_ms, unnest(tags, recursive := true) FROM activities;
        CREATE TABLE named_versions AS
        SELECT t.*, f.folded FROM tag_versions t JOIN folds f ON f.text = t.name WHERE NOT removed;
    """)
    database.compare(
        "activity's tag",
        "SELECT coalesce(sum(len(systems)), 0) FROM tags_carried",
        """
        SELECT c.contact_key || ' ' || c.fact_id, 'on ' || system || ' within the poll delay', c.folded
        FROM (SELECT *, unnest(systems) AS system FROM tags_carried) c
        WHERE NOT EXISTS (
            FROM typed_versions v
            LEFT JOIN named_versions t ON t.tenant = v.tenant AND t.tag_id = c.tag_id
            WHERE v.contact_key = c.contact_key AND v.system = c.system
              AND v.at_ms <= c.received_ms + $poll_delay_ms AND v.until_ms >= c.received_ms - $poll_delay_ms
              AND (c.tag_id IS NULL AND v.folded = c.folded
                OR t.tag_id = c.tag_id AND t.folded = c.folded
                    AND (v.trimmed = t.tag_id OR v.folded = t.folded)
                   AND t.at_ms <= c.received_ms + $poll_delay_ms
                       AND t.until_ms >= c.received_ms - $poll_delay_ms))
        """,
    )
    database.compare("activity lacks a tag", _LACKING_TOTAL, _LACKING_WRONG)


#: tags that a known contact had all the time from well before the activity to well after
_LASTING: Final = """
    lasting AS (
        SELECT a.fact_id, a.contact_key, v.system, v.folded, a.tags
        FROM activities a JOIN typed_versions v
          ON v.contact_key = a.contact_key AND v.folded <> ''
         AND v.at_ms < a.received_ms - $poll_delay_ms AND v.until_ms > a.received_ms + $poll_delay_ms
        WHERE EXISTS (FROM contact_versions k JOIN received r
            ON r.native_key = k.tenant || ':' || k.system[1] || ':' || k.contact_id
            WHERE k.contact_key = a.contact_key AND k.system = v.system AND r.resource = 'contacts'
              AND r.received_ms < a.received_ms - $poll_delay_ms))
"""
_LACKING_TOTAL: Final = f"WITH {_LASTING} SELECT count(*) FROM lasting"  # noqa: S608
_LACKING_WRONG: Final = f"""
    WITH {_LASTING}
    SELECT contact_key || ' ' || fact_id, system || ' ' || folded,
           list_transform(tags, lambda t: t.folded)::VARCHAR
    FROM lasting l
    WHERE NOT EXISTS (
        FROM (SELECT unnest(l.tags) AS tag)
        WHERE list_contains(tag.systems, l.system) AND (tag.folded = l.folded OR EXISTS (
            FROM named_versions t WHERE t.tag_id = tag.tag_id
                AND (t.folded = l.folded OR t.tag_id = l.folded))))
"""  # noqa: S608
