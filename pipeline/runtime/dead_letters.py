"""
What becomes of a record that cannot be processed: its bytes as they came, and where and why it failed.

A redriven dead letter is again the record that it was, with one more attempt behind it.
"""

from collections.abc import Container
from typing import NamedTuple

from pipeline.codec import Fetched, Record, Sent, text_headers
from pipeline.errors import RecordError
from pipeline.headers import decoded, encoded
from pipeline.stage import Reject

__all__ = ["MAX_ERROR_TEXT", "PROVENANCE", "Place", "made", "original"]

#: Headers of a dead letter that say where and why it failed.
PROVENANCE = ("dl_stage", "dl_topic", "dl_partition", "dl_offset", "dl_reason", "dl_error", "dl_attempts")

#: The longest error text that a dead letter carries, in characters.
MAX_ERROR_TEXT = 500

#: A dead letter above this, in bytes, could not be appended: its value is left where it came from.
MAX_DEAD_LETTER_BYTES = 1_000_000


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
    return key, _bounded((record.timestamp, record.key, record.value, encoded(kept + provenance)))


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
    headers = tuple(header for header in record.headers if header[0] not in PROVENANCE)
    original = Record(topic, partition, offset, record.timestamp, record.key, record.value, headers)
    return original, attempts + 1


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
