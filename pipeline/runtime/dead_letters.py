"""
What becomes of a record that cannot be processed: its bytes as they came, and where and why it failed.

A redriven dead letter is again the record that it was, with one more attempt behind it. On its way it has
the time of its redrive as Kafka's timestamp, since retention would remove an old one before it is read.
"""

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple, final

import msgspec

from pipeline.codec import Fetched, Header, Record, Sent, text_headers
from pipeline.errors import RecordError
from pipeline.headers import decoded, encoded
from pipeline.instants import Time, from_ms
from pipeline.stage import Reject

__all__ = [
    "MAX_ERROR_TEXT",
    "PROVENANCE",
    "Attempt",
    "Place",
    "Redrive",
    "history",
    "made",
    "original",
    "own_headers",
    "redriven",
]

#: Headers of a dead letter that say where and why it failed.
PROVENANCE = ("dl_stage", "dl_topic", "dl_partition", "dl_offset", "dl_reason", "dl_error", "dl_attempts")

#: What the names of all headers begin with that belong to the dead letter, not to the record it was.
PREFIX = "dl_"

#: Names the headers that a dead letter has only to be a CloudEvent, as all records of public topics are.
_ADDED = "dl_added"

#: Of more attempts than this the first and the latest are remembered.
MAX_ATTEMPTS_KEPT = 20
#: The longest error text of a remembered attempt, in characters.
MAX_KEPT_ERROR_TEXT = 200

#: The longest error text that a dead letter carries, in characters.
MAX_ERROR_TEXT = 500

#: A dead letter above this, in bytes, could not be appended: its value is left where it came from.
MAX_DEAD_LETTER_BYTES = 1_000_000


@final
class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter that was redriven: what had refused it, and who tried again when."""

    letter: str  #: the dead letter's id
    attempt: int
    reason: str
    error: str
    redrive: str  #: the id of the redrive
    by: str
    at: Time  #: when it was put back
    edited: bool = False  #: whether another value was put back


@final
class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """A redrive of an operator, as dead letters remember it."""

    id: str
    by: str
    at_ms: int


class Place(NamedTuple):
    """The stage, and where it read the record."""

    stage: str
    topic: str
    partition: int


def made(place: Place, record: Fetched, reason: Reject, attempts: int) -> tuple[bytes, Sent]:
    """
    The dead letter of *record*, refused for *reason*, whose text holds no personal data.

    Returns:
        What its partition follows from, and the dead letter.
    """
    key = record.key or f"{place.topic}/{place.partition}/{record.offset}".encode()
    values = (
        place.stage,
        *_origin(place, record),
        reason.reason,
        reason.error[:MAX_ERROR_TEXT],
        str(attempts),
    )
    provenance = [(name, value.encode()) for name, value in zip(PROVENANCE, values, strict=True)]
    kept = [(name, value) for name, value in record.headers if name not in PROVENANCE]
    timestamp = _received_at(record) if place.topic.endswith(".redrive") else record.timestamp
    kept += _as_cloud_event(values, timestamp, {name for name, _ in kept})
    return key, _bounded((timestamp, record.key, record.value, encoded(kept + provenance)))


def redriven(letter: Fetched, id_: str, redrive: Redrive, edited: bytes | None = None) -> Sent:
    """
    What puts dead letter *id_* back to its stage, with the value *edited* where there is one.

    If it is refused again, the dead letter that comes of it remembers this attempt and those before.
    """
    told = text_headers(letter.headers)
    attempt = Attempt(
        letter=id_,
        attempt=_number(told.get("dl_attempts")),
        reason=told.get("dl_reason", ""),
        error=told.get("dl_error", "")[:MAX_KEPT_ERROR_TEXT],
        redrive=redrive.id,
        by=redrive.by,
        at=from_ms(redrive.at_ms),
        edited=edited is not None,
    )
    headers = [*own_headers(letter), *(each for each in letter.headers if each[0] in PROVENANCE)]
    headers += [
        ("dl_letter", id_.encode()),
        ("dl_redrive", redrive.id.encode()),
        ("dl_timestamp", str(letter.timestamp).encode()),
        ("dl_history", msgspec.json.encode(_kept((*history(letter.headers), attempt)))),
    ]
    if edited is not None or "dl_edited" in told:
        headers.append(("dl_edited", b"true"))
    value = letter.value if edited is None else edited
    return redrive.at_ms, letter.key, value, encoded(headers)


def own_headers(letter: Fetched) -> tuple[Header, ...]:
    """The headers that *letter*, or one on its way back, had as the record that it was."""
    added = text_headers(letter.headers).get(_ADDED, "").split(",")
    return tuple(each for each in letter.headers if each[0] not in added and not each[0].startswith(PREFIX))


def history(headers: Iterable[Header]) -> tuple[Attempt, ...]:
    """The attempts that a dead letter with *headers* has behind it, the first one first."""
    raw = dict(headers).get("dl_history")
    try:
        return _HISTORY.decode(raw) if raw else ()
    except msgspec.DecodeError:  # whoever wrote it was not us
        return ()


def original(record: Fetched, inputs: Container[str]) -> tuple[Record, int]:
    """
    The redriven *record* as it stood where it came from, and which attempt this is.

    Raises:
        RecordError: it was redriven without saying where it came from, or from none of *inputs*.
    """
    told = text_headers(record.headers)
    try:
        partition, offset, attempts = (
            int(told[name]) for name in ("dl_partition", "dl_offset", "dl_attempts")
        )
        topic = told["dl_topic"]
    except (KeyError, ValueError) as error:
        raise RecordError("no-provenance", "a redriven record must have a dead letter's headers") from error
    if topic not in inputs:
        raise RecordError("no-input", f"{topic} is no input of this stage")
    headers = own_headers(record)
    original = Record(topic, partition, offset, _received_at(record), record.key, record.value, headers)
    return original, attempts + 1


_HISTORY = msgspec.json.Decoder(tuple[Attempt, ...])


def _kept(attempts: Sequence[Attempt]) -> Sequence[Attempt]:
    """*attempts*, or of many the first and the latest."""
    if len(attempts) <= MAX_ATTEMPTS_KEPT:
        return attempts
    return (attempts[0], *attempts[1 - MAX_ATTEMPTS_KEPT :])


def _as_cloud_event(values: Sequence[str], timestamp: int, given: Container[str]) -> list[Header]:
    """What a record of an internal topic, whose headers are *given*, lacks of a CloudEvent."""
    stage, topic, partition, offset, *_, attempts = values
    needed = {
        "ce_specversion": "1.0",
        "ce_id": f"{topic}/{partition}/{offset}/{attempts}",
        "ce_source": f"/{stage}",
        "ce_type": "dead-letters.v1",
        "ce_time": from_ms(timestamp),
    }
    missing = [(name, value.encode()) for name, value in needed.items() if name not in given]
    names = ",".join(name for name, _ in missing)
    return [*missing, (_ADDED, names.encode())] if missing else []


def _received_at(redriven: Fetched) -> int:
    """The timestamp that a record had before it was redriven, in ms since 1970."""
    return _number(text_headers(redriven.headers).get("dl_timestamp")) or redriven.timestamp


def _number(text: str | None) -> int:
    """The number that *text* is; 0 where it is none."""
    return int(text) if text and text.isdecimal() else 0


def _origin(place: Place, record: Fetched) -> tuple[str, str, str]:
    """Topic, partition and offset where *record* first stood, as text."""
    if place.topic.endswith(".redrive"):
        told = text_headers(record.headers)
        if all(name in told for name in ("dl_topic", "dl_partition", "dl_offset")):
            return told["dl_topic"], told["dl_partition"], told["dl_offset"]
    return place.topic, str(place.partition), str(record.offset)


def _bounded(sent: Sent) -> Sent:
    """*sent*, without its value where that would make it too large for any broker."""
    timestamp, key, value, headers = sent
    if len(key or b"") + len(value or b"") + len(headers) <= MAX_DEAD_LETTER_BYTES:
        return sent
    cut = ("dl_cut_bytes", str(len(value or b"")).encode())
    return timestamp, key, None, encoded([*decoded(headers), cut])
