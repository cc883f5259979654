"""
Bytes and headers <-> events.

Public topics carry CloudEvents 1.0 in Kafka's binary content mode and W3C ``traceparent``; internal
ones only what they need. The value of a typed topic is JSON; that of ``sources.received`` and
``dead-letters`` is the bytes as they came.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import RecordError
from pipeline.events import TYPES, Received, ce_type
from pipeline.instants import Time, from_ms, parse, to_ms
from pipeline.partitioning import partition_of
from pipeline.stage import Emit, Event
from pipeline.topics import Topic, Topics

__all__ = [
    "MAX_RECORD_BYTES",
    "Codec",
    "Header",
    "Output",
    "Record",
    "encode",
    "new_traceparent",
    "text_headers",
]

#: A record larger than this is refused before it is appended (brokers take 1 MiB).
MAX_RECORD_BYTES = 900 * 1024

Header = tuple[str, bytes]

_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {name: msgspec.json.Decoder(t) for name, t in TYPES.items()}
_NO_TYPES: Mapping[str, type[msgspec.Struct]] = {}
_KNOWN = frozenset(
    {"ce_specversion", "ce_source", "content-type", "ce_id", "ce_type", "ce_time", "traceparent", "backfill"}
)


class Record(NamedTuple):
    """A record as read from Kafka; *timestamp* in ms since 1970, *topic* as `topics.yaml` names it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class Output(NamedTuple):
    """A record to be written."""

    topic: str
    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]


def encode(value: msgspec.Struct) -> bytes:
    """The JSON of *value* as every writer writes it: all fields, in their order."""
    return _ENCODER.encode(value)


def text_headers(headers: Iterable[Header]) -> dict[str, str]:
    """*headers* as text; bytes that are no UTF-8 are replaced, the last of a repeated name wins."""
    return {name: value.decode(errors="replace") for name, value in headers if value is not None}


def new_traceparent(seed: bytes) -> str:
    """A sampled W3C ``traceparent`` whose ids follow from *seed*, so that a repeat has the same trace."""
    digest = hashlib.sha256(seed).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


class Codec:
    """
    Decodes and encodes the records of *topics*; each has *partitions* unless it says otherwise.

    *types* are ``ce_type`` -> struct that this codec alone knows, beside those of `pipeline.events`.
    """

    def __init__(
        self,
        topics: Topics,
        partitions: int,
        application_id: str = "pipeline",
        types: Mapping[str, type[msgspec.Struct]] = _NO_TYPES,
    ) -> None:
        self.topics = topics
        self.application_id = application_id
        self._decoders = _DECODERS | {name: msgspec.json.Decoder(struct) for name, struct in types.items()}
        self._names = {struct: name for name, struct in types.items()}
        self._counts = {name: topic.partitions or partitions for name, topic in topics.items()}

    def partitions(self, topic: str) -> int:
        """How many partitions *topic* has."""
        return self._counts[topic]

    def decode(self, record: Record) -> Event[Any]:
        """
        The event that *record* holds.

        Raises:
            RecordError: no key, null where there are no tombstones, an unknown type, a value that is
                no JSON or doesn't fit its type, a key of another tenant.
        """
        topic = self.topics[record.topic]
        headers = text_headers(record.headers)
        name = headers.get("ce_type") or (topic.types[0] if len(topic.types) == 1 else "")
        return Event(
            topic=topic.name,
            key=_key(record),
            value=self._value(topic, record, name, headers),
            type=name,
            id=headers.get("ce_id") or f"{record.topic}/{record.partition}/{record.offset}",
            received_at=record.timestamp,
            occurred_at=Time(headers.get("ce_time", "")),
            traceparent=headers.get("traceparent", ""),
            backfill=headers.get("backfill") == "true",
            headers={name: text for name, text in headers.items() if name not in _KNOWN},
        )

    def encode(self, emit: Emit, cause: Event[Any], stage: str, index: int) -> list[Output]:
        """
        The records that *emit* amounts to, the *index*-th of what *stage* made of *cause*.

        Raises:
            RecordError: the record would be too large.
        """
        topic = self.topics[emit.topic]
        key = emit.key.encode()
        value = _bytes(emit.value)
        if topic.visibility == "public":
            derived = emit.id or _derived_id(emit, topic, value, f"{stage}|{cause.id}|{emit.topic}|{index}")
            headers = self._public(emit, topic, cause, stage, derived)
        else:
            headers = [("traceparent", cause.traceparent.encode())] if cause.traceparent else []
        if cause.backfill:
            headers.append(("backfill", b"true"))
        if emit.headers:
            own = {name for name, _ in emit.headers}
            headers = [header for header in headers if header[0] not in own]
            headers += [(name, text.encode()) for name, text in emit.headers]
        size = len(key) + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        if size > MAX_RECORD_BYTES:
            raise RecordError(
                "too-large", f"a record of {size} bytes for {emit.topic}; at most {MAX_RECORD_BYTES}"
            )
        return [
            Output(emit.topic, partition, cause.received_at, key, value, headers)
            for partition in self.placed(topic, emit.key)
        ]

    def placed(self, topic: Topic, key: str) -> Iterable[int]:
        """The partitions that a record of *key* goes to."""
        count = self._counts[topic.name]
        match topic.partitioned_by:
            case "every":
                return range(count)
            case "explicit":
                return (int(key),)
            case "prefix":
                return (partition_of(key.rpartition("|")[0].encode(), count),)
            case _:
                return (partition_of(key.encode(), count),)

    def _public(
        self, emit: Emit, topic: Topic, cause: Event[Any], stage: str, identifier: str
    ) -> list[Header]:
        return [
            *_constant(self._type(emit, topic), f"/{self.application_id}/{stage}"),
            ("ce_id", identifier.encode()),
            ("ce_time", (emit.occurred_at or from_ms(cause.received_at)).encode()),
            ("ce_subject", (emit.subject or emit.key).encode()),
            ("traceparent", (cause.traceparent or new_traceparent(cause.id.encode())).encode()),
        ]

    def _type(self, emit: Emit, topic: Topic) -> str:
        if emit.value is None:
            return topic.types[0]
        if isinstance(emit.value, bytes):
            return f"{topic.name}.v1"
        struct = type(emit.value)
        return self._names.get(struct) or ce_type(struct)

    def _value(self, topic: Topic, record: Record, name: str, headers: Mapping[str, str]) -> Any:
        if record.value is None:
            if topic.is_table:
                return None
            raise RecordError("null", f"{topic.name} has no tombstones, so a value must be there")
        if topic.types == ("raw",):
            return _received(record.value, headers)
        if name not in topic.types:
            raise RecordError("unknown-type", f"{name or 'no ce_type'!r} may not stand on {topic.name}")
        try:
            value = self._decoders[name].decode(record.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RecordError("invalid-value", f"no {name}: {error}") from error
        _belonging(record, value)
        return value


@lru_cache(maxsize=1024)
def _constant(name: str, source: str) -> tuple[Header, ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", name.encode()),
        ("ce_source", source.encode()),
        ("content-type", b"application/json"),
    )


def _bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return _ENCODER.encode(value)


def _derived_id(emit: Emit, topic: Topic, value: bytes | None, place: str) -> str:
    text = f"{emit.key}|{hashlib.sha256(value or b'').hexdigest()}" if topic.is_table else place
    return hashlib.sha256(text.encode()).hexdigest()


def _key(record: Record) -> str:
    if record.key is None:
        raise RecordError("no-key", f"a record of {record.topic} must have a key")
    try:
        return record.key.decode()
    except UnicodeDecodeError as error:
        raise RecordError("wrong-key", "the key is no UTF-8 text") from error


def _belonging(record: Record, value: Any) -> None:
    """The key must be that of *value*'s tenant and contact: stages find a record's state by its key."""
    tenant: str | None = getattr(value, "tenant", None)
    if tenant is None or record.topic == "statistics.posted":
        return
    key = record.key or b""
    if not key.startswith((f"{tenant}:".encode(), f"{tenant}|".encode())):
        raise RecordError("wrong-key", f"the key does not belong to tenant {tenant}")
    contact_key: str | None = getattr(value, "contact_key", None)
    if contact_key is not None and key != contact_key.encode():
        raise RecordError("wrong-key", "the key is not the value's contact key")


def _received(body: bytes, headers: Mapping[str, str]) -> Received:
    scan = headers.get("scan_started_at")
    try:
        started = to_ms(parse(scan)) if scan else 0
    except ValueError as error:
        raise RecordError("invalid-header", "scan_started_at: is no time") from error
    return Received(
        body=body,
        source=headers.get("source", ""),
        product=headers.get("product", ""),
        resource=headers.get("resource", ""),
        tenant=headers.get("tenant", "-"),
        account=headers.get("account", ""),
        verified=headers.get("verified") == "true",
        change=headers.get("change", ""),
        scan_started_at=started,
    )
