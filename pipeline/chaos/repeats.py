"""
Records that stand twice: what exactly once forbids, whether or not anybody downstream would notice.

The oracle compares what the numbers come to. Decode knows a fact again, and a table's last value hides the
one before; so a transaction that was done twice may leave no wrong number. Here every record of a topic of
events has to have an id of its own, and every dead letter a place of its own that it comes from.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from pipeline.codec import Record, text_headers

__all__ = ["repeats"]

#: Topics whose records are events: of a table's record the same may rightly stand there again.
_EVENTS: Final = frozenset(
    {"sources.received", "sakari.events", "users.events", "activity.enriched", "statistics.posted"}
)

#: Where a dead letter comes from, and why.
_ORIGIN: Final = ("dl_stage", "dl_topic", "dl_partition", "dl_offset", "dl_reason", "ce_id")


def repeats(records: Iterable[Record]) -> dict[str, int]:
    """Topic -> how many of its records are there already, where there are any."""
    seen: set[tuple[str, ...]] = set()
    found: Counter[str] = Counter()
    for record in records:
        if (identity := _identity(record)) is None:
            continue
        if identity in seen:
            found[record.topic] += 1
        seen.add(identity)
    return dict(found)


def _identity(record: Record) -> tuple[str, ...] | None:
    headers = text_headers(record.headers)
    if record.topic == "dead-letters":
        return (record.topic, *(headers.get(name, "") for name in _ORIGIN))
    return (record.topic, headers["ce_id"]) if record.topic in _EVENTS else None
