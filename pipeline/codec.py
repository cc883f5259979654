"""
Bytes and headers <-> events.

Public topics carry CloudEvents 1.0 in Kafka's binary content mode and W3C ``traceparent``; internal
ones only what they need. The value of a typed topic is JSON; that of ``sources.received`` and
``dead-letters`` is the bytes as they came.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from pipeline.errors import RecordError
from pipeline.events import TYPES, Activity, Received, ce_type, with_unknown_fact
from pipeline.headers import Header
from pipeline.instants import Time, parse, to_ms
from pipeline.partitioning import partition_of
from pipeline.stage import Emit, Event
from pipeline.topics import Topic, Topics
from pipeline.writer import (
    MAX_RECORD_BYTES,
    Made,
    Output,
    Places,
    Sent,
    Writer,
    encode,
    new_traceparent,
    sent_as_outputs,
)

__all__ = [
    "MAX_RECORD_BYTES",
    "Codec",
    "Fetched",
    "Header",
    "Made",
    "Output",
    "Places",
    "Read",
    "Record",
    "Sent",
    "Writer",
    "encode",
    "new_traceparent",
    "sent_as_outputs",
    "text_headers",
]

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {name: msgspec.json.Decoder(t) for name, t in TYPES.items()}
_NO_TYPES: Mapping[str, type[msgspec.Struct]] = {}
_NOTHING: Mapping[str, str] = MappingProxyType({})
_KNOWN = frozenset(
    {
        *("ce_specversion", "ce_source", "ce_id", "ce_type", "ce_time", "ce_subject", "content-type"),
        *("traceparent", "backfill"),
    }
)


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
    def headers(self) -> Sequence[Header]: ...  # noqa: D102


class Record(NamedTuple):
    """A record as read from Kafka; *timestamp* in ms since 1970, *topic* as `topics.yaml` names it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


def text_headers(headers: Iterable[Header]) -> dict[str, str]:
    """*headers* as text; bytes that are no UTF-8 are replaced, the last of a repeated name wins."""
    return {name: value.decode(errors="replace") for name, value in headers if value is not None}


class Codec:
    """
    Decodes and encodes the records of *topics*; each has *partitions* unless it says otherwise.

    *types* are ``ce_type`` -> struct that this codec alone knows, beside those of `pipeline.events`.
    """

    #: Where what cannot be processed goes.
    dead_letters: str = "dead-letters"

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
        self._readers: dict[tuple[str, int], Read] = {}
        self._writers: dict[str, Writer] = {}

    def partitions(self, topic: str) -> int:
        """How many partitions *topic* has."""
        return self._counts[topic]

    def reader(self, topic: str, partition: int) -> "Read":
        """
        The function that makes events of the records of *partition* of *topic*.

        It raises `RecordError`: no key, null where there are no tombstones, an unknown type, a value that
        is no JSON or doesn't fit its type, a key of another tenant.
        """
        read = self._readers.get((topic, partition))
        if read is None:
            read = self._readers[topic, partition] = _reader(self.topics[topic], partition, self._decoders)
        return read

    def writer(self, stage: str) -> "Writer":
        """What encodes all that *stage* emits."""
        writer = self._writers.get(stage)
        if writer is None:
            writer = self._writers[stage] = Writer(self, stage)
        return writer

    def decode(self, record: Record) -> Event[Any]:
        """
        The event that *record* holds.

        Raises:
            RecordError: as said at ``reader``.
        """
        return self.reader(record.topic, record.partition)(record)

    def encode(self, emit: Emit, cause: Event[Any], stage: str, index: int) -> list[Output]:
        """
        The records that *emit* amounts to, the *index*-th of what *stage* made of *cause*.

        Raises:
            RecordError: the record would be too large.
        """
        return self.writer(stage).outputs(emit, cause, index)

    def placed(self, topic: Topic, key: str) -> Sequence[int]:
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

    def type_of(self, value: Any, topic: Topic) -> str:
        """The ``ce_type`` of *value* on *topic*; of a tombstone, that of what it removes."""
        if value is None:
            return topic.types[0]
        if isinstance(value, bytes):
            return f"{topic.name}.v1"
        struct = type(value)
        return self._names.get(struct) or ce_type(struct)


#: Makes an event of a record.
Read: TypeAlias = Callable[[Fetched], Event[Any]]


def _reader(topic: Topic, partition: int, decoders: Mapping[str, msgspec.json.Decoder[Any]]) -> Read:
    name = topic.name
    only_type = topic.types[0] if len(topic.types) == 1 else ""
    known = {
        type_.encode(): _Typed(type_, decoders[type_], topic) for type_ in topic.types if type_ in decoders
    }
    only = known.get(only_type.encode())

    # A record of a public topic that comes without a trace begins one, which its place tells apart.
    begun = (
        f"00-{sha256(f'{name}/{partition}'.encode()).hexdigest()[:16]}"
        if topic.visibility == "public"
        else ""
    )

    def read(record: Fetched) -> Event[Any]:
        raw_key, raw, headers = record.key, record.value, dict(record.headers)
        try:
            key = raw_key.decode()  # type: ignore[union-attr]  # told of below
        except (AttributeError, UnicodeDecodeError):
            raise _unusable_key(name, raw_key) from None
        get = headers.get
        raw_type = get("ce_type")
        typed = known.get(raw_type) if raw_type else only
        if raw is None or typed is None:
            value = _untyped(topic, _text(raw_type) or only_type, raw, headers)
        else:
            try:
                value = typed.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                value = typed.rescued(raw, error)
            if typed.check is not None:
                typed.check(value, key)
        if not headers:
            offset = record.offset
            return Event(
                topic=name,
                key=key,
                value=value,
                type=only_type,
                id=f"{name}/{partition}/{offset}",
                received_at=record.timestamp,
                traceparent=f"{begun}{offset:016x}-{offset + 1:016x}-01",
            )
        return Event(
            topic=name,
            key=key,
            value=value,
            type=typed.name if typed else _text(raw_type) or only_type,
            id=_text(get("ce_id")) or f"{name}/{partition}/{record.offset}",
            received_at=record.timestamp,
            occurred_at=Time(_text(get("ce_time"))),
            traceparent=_text(get("traceparent")),
            backfill=get("backfill") == b"true",
            headers=_NOTHING if _KNOWN.issuperset(headers) else _others(headers),
        )

    return read


def _untyped(topic: Topic, type_: str, raw: bytes | None, headers: Mapping[str, bytes]) -> Any:
    if raw is None:
        if topic.is_table:
            return None
        raise RecordError("null", f"{topic.name} has no tombstones, so a value must be there")
    if topic.types == ("raw",):
        return _received(raw, headers)
    raise RecordError("unknown-type", f"{type_ or 'no ce_type'!r} may not stand on {topic.name}")


class _Typed:
    """How values of one type are read from one topic."""

    __slots__ = ("_type", "check", "decode", "name")

    def __init__(self, name: str, decoder: msgspec.json.Decoder[Any], topic: Topic) -> None:
        self.name = name
        self._type = decoder.type
        self.decode = decoder.decode
        self.check = None if topic.name == "statistics.posted" else _check(decoder.type)

    def rescued(self, raw: bytes, error: Exception) -> Any:
        """
        What of *raw* can be read although decoding it ended with *error*: a fact of a type to come.

        Raises:
            RecordError: nothing can.
        """
        value = with_unknown_fact(raw) if self._type is Activity else None
        if value is None:
            raise RecordError("invalid-value", f"no {self.name}: {error}") from error
        return value


#: Refuses a value that its key does not belong to: stages find a record's state by its key.
_Check: TypeAlias = Callable[[Any, str], None]


def _check(struct: Any) -> _Check | None:
    """What has to hold between a value of type *struct* and its key."""
    fields = getattr(struct, "__struct_fields__", ())
    if "tenant" not in fields:
        return None
    return _of_contact if "contact_key" in fields else _of_tenant


def _of_tenant(value: Any, key: str) -> None:
    tenant: str | None = value.tenant
    if tenant is not None and not key.startswith((f"{tenant}:", f"{tenant}|")):
        raise RecordError("wrong-key", f"the key does not belong to tenant {tenant}")


def _of_contact(value: Any, key: str) -> None:
    _of_tenant(value, key)
    if value.contact_key is not None and key != value.contact_key:
        raise RecordError("wrong-key", "the key is not the value's contact key")


def _text(header: bytes | None) -> str:
    return str(header, "utf-8", "replace") if header else ""


def _others(headers: Mapping[str, bytes]) -> Mapping[str, str]:
    return text_headers((name, value) for name, value in headers.items() if name not in _KNOWN)


def _unusable_key(topic: str, key: bytes | None) -> RecordError:
    if key is None:
        return RecordError("no-key", f"a record of {topic} must have a key")
    return RecordError("wrong-key", "the key is no UTF-8 text")


def _received(body: bytes, headers: Mapping[str, bytes]) -> Received:
    get = headers.get
    scan = get("scan_started_at")
    try:
        started = to_ms(parse(_text(scan))) if scan else 0
    except ValueError as error:
        raise RecordError("invalid-header", "scan_started_at: is no time") from error
    return Received(
        body=body,
        source=_text(get("source")),
        product=_text(get("product")),
        resource=_text(get("resource")),
        tenant=_text(get("tenant")) or "-",
        account=_text(get("account")),
        verified=get("verified") == b"true",
        change=_text(get("change")),
        scan_started_at=started,
    )
