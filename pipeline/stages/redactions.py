"""
Who was erased: what the stages that know people keep of ``redactions``, each task all of it.

A redaction stands under a contact key or a native key. While it stands, nothing of that person is written.
A tombstone lifts it: who comes back begins anew.
"""

from typing import Any

from pipeline.events import Redaction
from pipeline.stage import Delete, Event, Put, Store, Stores, Write

__all__ = ["ANY", "REDACTED", "is_redacted", "remembered"]

#: Contact key or native key -> the redaction's report; `ANY` where there ever was a redaction.
REDACTED: Store[str] = Store("redacted", str)

#: Looked up first, so that whoever erased nobody pays next to nothing; no key is like it.
ANY = "*"


def is_redacted(read: Stores, key: str) -> bool:
    """Whether the person of the contact key or native key *key* was erased."""
    return read.get(REDACTED, ANY) is not None and read.get(REDACTED, key) is not None


def remembered(event: Event[Any]) -> tuple[Write, ...]:
    """What to keep of a record of ``redactions``; a tombstone takes it back."""
    redaction: Redaction | None = event.value
    if redaction is None:
        return (Delete(REDACTED, event.key),)
    return Put(REDACTED, ANY, ""), Put(REDACTED, event.key, redaction.report)
