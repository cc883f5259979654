"""
Take a person out of what decode knows, and keep them out.

Their contacts go: a tombstone each, and their state. Which contact key a native contact had is kept, as
what comes without a number is known for theirs by it; it tells no number. A redaction of a contact key
looks through all contacts of the task, a chunk at a time.
"""

from typing import Any

from pipeline.instants import Time
from pipeline.stage import NOTHING, Cursor, Delete, Emit, Event, Outcome, Stores, Write
from pipeline.stages.decode.intake import table_key
from pipeline.stages.decode.stores import CONTACTS, KEYS
from pipeline.stages.redactions import ANY, REDACTED, is_redacted, remembered

__all__ = ["SWEEP", "redact", "swept", "without_redacted"]

#: Begins the jobs of cursors, whose rest is the contact key.
SWEEP = "redacted:"

#: Contacts looked at in one call of `swept`.
_CHUNK = 500

_TABLES = ("sakari.contacts", "users.contacts")


def redact(read: Stores, event: Event[Any]) -> Outcome:
    """Take out whose key the redaction *event* has, or let them in again where it is a tombstone."""
    if event.value is None:
        return Outcome(remembered(event))
    if read.get(REDACTED, event.key) == event.value.report:
        return NOTHING
    writes, emits = _forgotten(read, event.key, event.value.erased_at)
    is_shared = event.key.split(":", 2)[1:2] == ["m"]  # a native key is its contact's alone
    more = (Cursor(f"{SWEEP}{event.value.erased_at}|{event.key}"),) if is_shared else ()
    return Outcome((*remembered(event), *writes), emits, more=more)


def swept(read: Stores, cursor: Cursor) -> Outcome:
    """Forget those of the next contacts whose contact key is the one that *cursor* names."""
    erased_at, _, redacted = cursor.job.removeprefix(SWEEP).partition("|")
    tenant = redacted.partition(":")[0]
    found = list(read.scan(KEYS, cursor.at or f"{tenant}:", f"{tenant};", _CHUNK))
    writes: list[Write] = []
    emits: list[Emit] = []
    for native in (native for native, key in found if key == redacted):
        gone, told = _forgotten(read, native, Time(erased_at))
        writes += gone
        emits += told
    left = (Cursor(cursor.job, found[-1][0] + "\0"),) if len(found) == _CHUNK else ()
    return Outcome(tuple(writes), tuple(emits), more=left)


def without_redacted(read: Stores, native: str, outcome: Outcome) -> Outcome:
    """
    *outcome* without what it tells of people who were erased; *native* is the native key of its record.

    Tombstones stay, and so does what says that facts were seen.
    """
    if read.get(REDACTED, ANY) is None or not any(_is_hidden(read, emit) for emit in outcome.emit):
        return outcome
    kept = tuple(emit for emit in outcome.emit if not _is_hidden(read, emit))
    writes = outcome.writes
    if any(emit.topic in _TABLES and _is_hidden(read, emit) for emit in outcome.emit):
        writes = (*(write for write in writes if write.store is not CONTACTS), Delete(CONTACTS, native))
    return Outcome(writes, kept)


def _is_hidden(read: Stores, emit: Emit) -> bool:
    return emit.value is not None and is_redacted(read, emit.key.partition("|")[0])


def _forgotten(read: Stores, native: str, at: Time) -> tuple[tuple[Write, ...], tuple[Emit, ...]]:
    """What forgets the contact *native*, if it is known here."""
    state = read.get(CONTACTS, native)
    if state is None:
        return (), ()
    gone = (Delete(CONTACTS, native),)
    if state.value is None:
        return gone, ()
    key = table_key(read.get(KEYS, native) or native, state.value.contact_id)
    return gone, (Emit(f"{state.value.SYSTEM}.contacts", key, None, occurred_at=at),)
