"""
Bytes and headers <-> events.

Public topics carry CloudEvents 1.0 in Kafka's binary content mode and W3C ``traceparent``; internal
ones only what they need. The value of a typed topic is JSON; that of ``sources.received`` and
``dead-letters`` is the bytes as they came.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

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
    "Fetched",
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
_NOTHING: Mapping[str, str] = MappingProxyType({})
_KNOWN = frozenset(
    {
        *("ce_specversion", "ce_source", "ce_id", "ce_type", "ce_time", "ce_subject", "content-type"),
        *("traceparent", "backfill"),
    }
)

#: Key and value up to this leave room enough for any headers that the codec makes itself.
_SURELY_SMALL_BYTES = MAX_RECORD_BYTES // 2


class Fetched(Protocol):
    """What stands in a record as read from Kafka, wherever it came from; *timestamp* in ms since 1970."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Iterable[Header]: ...  # noqa: D102


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
    digest = sha256(seed).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


class _Topic:
    """What the codec looks up of a topic for each record."""

    __slots__ = ("checks", "count", "decoders", "is_raw", "is_table", "only_type", "public", "topic")

    def __init__(self, topic: Topic, count: int, decoders: Mapping[str, msgspec.json.Decoder[Any]]) -> None:
        self.topic = topic
        self.count = count
        self.public = topic.visibility == "public"
        self.is_table = topic.is_table
        self.is_raw = topic.types == ("raw",)
        self.only_type = topic.types[0] if len(topic.types) == 1 else ""
        self.decoders = {name: decoders[name].decode for name in topic.types if name in decoders}
        self.checks = {
            name: () if topic.name == "statistics.posted" else _checks(decoders[name].type)
            for name in self.decoders
        }


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
        decoders = _DECODERS | {name: msgspec.json.Decoder(struct) for name, struct in types.items()}
        self._names = {struct: name for name, struct in types.items()}
        self._topics = {
            name: _Topic(topic, topic.partitions or partitions, decoders) for name, topic in topics.items()
        }

    def partitions(self, topic: str) -> int:
        """How many partitions *topic* has."""
        return self._topics[topic].count

    def decode(self, record: Record) -> Event[Any]:
        """
        The event that *record* holds.

        Raises:
            RecordError: no key, null where there are no tombstones, an unknown type, a value that is
                no JSON or doesn't fit its type, a key of another tenant.
        """
        return self.event(record.topic, record.partition, record)

    def event(self, topic: str, partition: int, record: Fetched) -> Event[Any]:
        """As ``decode``, of a *record* that does not say where it stood."""
        known = self._topics[topic]
        headers = dict(record.headers)
        name = _text(headers.get("ce_type")) or known.only_type
        key = _key(topic, record.key)
        return Event(
            topic=topic,
            key=key,
            value=self._value(known, record, name, key),
            type=name,
            id=_text(headers.get("ce_id")) or f"{topic}/{partition}/{record.offset}",
            received_at=record.timestamp,
            occurred_at=Time(_text(headers.get("ce_time"))),
            traceparent=_text(headers.get("traceparent")),
            backfill=headers.get("backfill") == b"true",
            headers=_NOTHING if _KNOWN.issuperset(headers) else _others(record),
        )

    def encode(self, emit: Emit, cause: Event[Any], stage: str, index: int) -> list[Output]:
        """
        The records that *emit* amounts to, the *index*-th of what *stage* made of *cause*.

        Raises:
            RecordError: the record would be too large.
        """
        known = self._topics[emit.topic]
        key = emit.key.encode()
        value = emit.value
        value = value if value is None or type(value) is bytes else _ENCODER.encode(value)
        if known.public:
            headers = self._public(known.topic, emit, cause, stage)
            derived = (
                _of_content(emit.key, value) if known.is_table else f"{stage}|{cause.id}|{emit.topic}|{index}"
            )
            headers.append(("ce_id", (emit.id or sha256(derived.encode()).hexdigest()).encode()))
        else:
            headers = [("traceparent", cause.traceparent.encode())] if cause.traceparent else []
        if cause.backfill:
            headers.append(("backfill", b"true"))
        if emit.headers:
            own = {name for name, _ in emit.headers}
            headers = [header for header in headers if header[0] not in own]
            headers += [(name, text.encode()) for name, text in emit.headers]
        if emit.headers or emit.subject or len(key) + len(value or b"") > _SURELY_SMALL_BYTES:
            _check_size(emit.topic, key, value, headers)
        received_at = cause.received_at
        if known.topic.partitioned_by == "key":
            return [Output(emit.topic, partition_of(key, known.count), received_at, key, value, headers)]
        return [
            Output(emit.topic, partition, received_at, key, value, headers)
            for partition in self.placed(known.topic, emit.key)
        ]

    def placed(self, topic: Topic, key: str) -> Iterable[int]:
        """The partitions that a record of *key* goes to."""
        count = self._topics[topic.name].count
        match topic.partitioned_by:
            case "every":
                return range(count)
            case "explicit":
                return (int(key),)
            case "prefix":
                return (partition_of(key.rpartition("|")[0].encode(), count),)
            case _:
                return (partition_of(key.encode(), count),)

    def _public(self, topic: Topic, emit: Emit, cause: Event[Any], stage: str) -> list[Header]:
        return [
            *_constant(self._type(emit, topic), self.application_id, stage),
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

    def _value(self, known: _Topic, record: Fetched, name: str, key: str) -> Any:
        raw = record.value
        if raw is None:
            if known.is_table:
                return None
            raise RecordError("null", f"{known.topic.name} has no tombstones, so a value must be there")
        if known.is_raw:
            return _received(raw, text_headers(record.headers))
        decode = known.decoders.get(name)
        if decode is None:
            raise RecordError("unknown-type", f"{name or 'no ce_type'!r} may not stand on {known.topic.name}")
        try:
            value = decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RecordError("invalid-value", f"no {name}: {error}") from error
        for check in known.checks[name]:
            check(value, key)
        return value


@lru_cache(maxsize=1024)
def _constant(name: str, application_id: str, stage: str) -> tuple[Header, ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", name.encode()),
        ("ce_source", f"/{application_id}/{stage}".encode()),
        ("content-type", b"application/json"),
    )


def _of_content(key: str, value: bytes | None) -> str:
    return f"{key}|{sha256(value or b'').hexdigest()}"


def _text(header: bytes | None) -> str:
    return str(header, "utf-8", "replace") if header else ""


def _others(record: Fetched) -> Mapping[str, str]:
    return {name: text for name, text in text_headers(record.headers).items() if name not in _KNOWN}


def _check_size(topic: str, key: bytes, value: bytes | None, headers: Iterable[Header]) -> None:
    size = len(key) + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
    if size > MAX_RECORD_BYTES:
        raise RecordError("too-large", f"a record of {size} bytes for {topic}; at most {MAX_RECORD_BYTES}")


def _key(topic: str, key: bytes | None) -> str:
    if key is None:
        raise RecordError("no-key", f"a record of {topic} must have a key")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise RecordError("wrong-key", "the key is no UTF-8 text") from error


#: Refuses a value that its key does not belong to: stages find a record's state by its key.
_Check = Callable[[Any, str], None]


def _checks(struct: Any) -> tuple[_Check, ...]:
    """What has to hold between a value of type *struct* and its key."""
    fields = getattr(struct, "__struct_fields__", ())
    owned: tuple[_Check, ...] = (_of_tenant,) if "tenant" in fields else ()
    return (*owned, _of_contact) if owned and "contact_key" in fields else owned


def _of_tenant(value: Any, key: str) -> None:
    tenant: str | None = value.tenant
    if tenant is not None and not key.startswith((f"{tenant}:", f"{tenant}|")):
        raise RecordError("wrong-key", f"the key does not belong to tenant {tenant}")


def _of_contact(value: Any, key: str) -> None:
    if value.contact_key is not None and key != value.contact_key:
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
