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
from pipeline.events import TYPES, Received, ce_type
from pipeline.headers import Header, decoded, encoded, named, varint
from pipeline.instants import Time, from_ms, parse, to_ms
from pipeline.partitioning import partition_of
from pipeline.stage import Emit, Event
from pipeline.topics import Topic, Topics

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

#: A record larger than this is refused before it is appended (brokers take 1 MiB).
MAX_RECORD_BYTES = 900 * 1024

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

#: How many keys of a topic a writer remembers the partitions of, and the longest such key.
_REMEMBERED_KEYS = 100_000
_REMEMBERED_LENGTH = 256

#: Up to so many characters no record is too large, whatever they take in bytes.
_SURELY_SMALL_BYTES = MAX_RECORD_BYTES // 4

#: The parts of a public topic's headers that are the same for all, in Kafka's bytes.
_EIGHT, _NINE = varint(8), varint(9)
_SUBJECT, _TRACE, _ID = named("ce_subject"), named("traceparent"), named("ce_id")
_DIGEST_LENGTH = varint(64)
_BACKFILL = encoded([("backfill", b"true")])[1:]


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
    known = {type_: _Typed(decoders[type_], topic) for type_ in topic.types if type_ in decoders}

    # A record of a public topic that comes without a trace begins one, which its place tells apart.
    begun = (
        f"00-{sha256(f'{name}/{partition}'.encode()).hexdigest()[:16]}"
        if topic.visibility == "public"
        else ""
    )

    def valued(record: Fetched, headers: Mapping[str, bytes], type_: str, key: str) -> Any:
        raw, typed = record.value, known.get(type_)
        if raw is None or typed is None:
            return _untyped(topic, type_, raw, headers)
        try:
            value = typed.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RecordError("invalid-value", f"no {type_}: {error}") from error
        if typed.check is not None:
            typed.check(value, key)
        return value

    def read(record: Fetched) -> Event[Any]:
        key = _key(name, record.key)
        headers = dict(record.headers)
        if not headers:
            value = valued(record, headers, only_type, key)
            offset = record.offset
            place = f"{name}/{partition}/{offset}"
            trace = f"{begun}{offset:016x}-{offset + 1:016x}-01"
            return Event(
                topic=name,
                key=key,
                value=value,
                type=only_type,
                id=place,
                received_at=record.timestamp,
                traceparent=trace,
            )
        get = headers.get
        type_ = _text(get("ce_type")) or only_type
        return Event(
            topic=name,
            key=key,
            value=valued(record, headers, type_, key),
            type=type_,
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
        return _received(raw, text_headers(headers.items()))
    raise RecordError("unknown-type", f"{type_ or 'no ce_type'!r} may not stand on {topic.name}")


class _Typed:
    """How values of one type are read from one topic."""

    __slots__ = ("check", "decode")

    def __init__(self, decoder: msgspec.json.Decoder[Any], topic: Topic) -> None:
        self.decode = decoder.decode
        self.check = None if topic.name == "statistics.posted" else _check(decoder.type)


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


#: A record on its way to a known partition: timestamp, key, value, and the headers in Kafka's bytes.
Sent: TypeAlias = tuple[int, bytes | None, bytes | None, bytes]

#: Topic and partition -> what goes there, in order.
Places: TypeAlias = dict[tuple[str, int], list[Sent]]


def sent_as_outputs(places: Places) -> list[Output]:
    """The records of *places*, place by place."""
    return [
        Output(topic, partition, timestamp, key, value, decoded(headers))
        for (topic, partition), records in places.items()
        for timestamp, key, value, headers in records
    ]


#: An emit, its cause, and which of the outcome's it is.
Made: TypeAlias = tuple[Emit, Event[Any], int]


class Writer:
    """Encodes all that one stage emits."""

    def __init__(self, codec: Codec, stage: str) -> None:
        self._codec = codec
        self._stage = stage
        self._targets: dict[str, _Target] = {}

    def outputs(self, emit: Emit, cause: Event[Any], index: int) -> list[Output]:
        """
        The records that *emit* amounts to, the *index*-th of what the stage made of *cause*.

        Raises:
            RecordError: the record would be too large.
        """
        places: Places = {}
        self.write(((emit, cause, index),), places)
        return sent_as_outputs(places)

    def write(self, made: Iterable[Made], places: Places) -> None:
        """
        Add the records that *made* amounts to, in order, to *places*.

        Raises:
            RecordError: a record would be too large.
        """
        targets, encode_value = self._targets, _ENCODER.encode
        for emit, cause, index in made:
            target = targets.get(emit.topic) or self._target(emit.topic)
            key, value = emit.key, emit.value
            raw = value if value is None or type(value) is bytes else encode_value(value)
            headers = target.headers(emit, cause, raw, index)
            sent = (cause.received_at, key.encode(), raw, headers)
            if len(raw or b"") + len(headers) + len(key) > _SURELY_SMALL_BYTES:
                _check_size(emit.topic, sent)
            for partition in target.remembered.get(key) or target.placed(key):
                place = (emit.topic, partition)
                if place in places:
                    places[place].append(sent)
                else:
                    places[place] = [sent]

    def _target(self, topic: str) -> "_Target":
        target = self._targets[topic] = _Target(self._codec, topic, self._stage)
        return target


class _Target:
    """What a writer looks up of one topic for each record."""

    def __init__(self, codec: Codec, topic: str, stage: str) -> None:
        self.remembered: dict[str, Sequence[int]] = {}  # key -> partitions
        self._public = codec.topics[topic].visibility == "public"
        self._is_table = codec.topics[topic].is_table
        self._constant: dict[type, bytes] = {}  # by the value's type
        self._codec = codec
        self._topic = codec.topics[topic]
        self._stage = stage

    def headers(self, emit: Emit, cause: Event[Any], raw: bytes | None, index: int) -> bytes:
        """The headers of *emit*, the *index*-th of what the stage made of *cause*; *raw* is its value."""
        if not self._public:
            made = _internal(cause)
        else:
            time = (emit.occurred_at or from_ms(cause.received_at)).encode()
            subject = (emit.subject or emit.key).encode()
            trace = (cause.traceparent or new_traceparent(cause.id.encode())).encode()
            made = b"".join(
                (
                    _NINE if cause.backfill else _EIGHT,
                    self._constant.get(type(emit.value)) or self._learn(emit.value),
                    varint(len(time)),
                    time,
                    _SUBJECT,
                    varint(len(subject)),
                    subject,
                    _TRACE,
                    varint(len(trace)),
                    trace,
                    _ID,
                    self._identifier(emit, cause, raw, index),
                    _BACKFILL if cause.backfill else b"",
                )
            )
        return _with_own(made, emit.headers) if emit.headers else made

    def _identifier(self, emit: Emit, cause: Event[Any], raw: bytes | None, index: int) -> bytes:
        """The value of ``ce_id`` after its length."""
        if emit.id:
            given = emit.id.encode()
            return varint(len(given)) + given
        if self._is_table:
            text = f"{emit.key}|{sha256(raw or b'').hexdigest()}"
        else:
            text = f"{self._stage}|{cause.id}|{emit.topic}|{index}"
        return _DIGEST_LENGTH + sha256(text.encode()).hexdigest().encode()

    def _learn(self, value: Any) -> bytes:
        """What is the same for all values of *value*'s type, up to the length of the time."""
        constant = (
            ("ce_specversion", b"1.0"),
            ("ce_type", self._codec.type_of(value, self._topic).encode()),
            ("ce_source", f"/{self._codec.application_id}/{self._stage}".encode()),
            ("content-type", b"application/json"),
        )
        made = encoded(constant)[1:] + named("ce_time")
        self._constant[type(value)] = made
        return made

    def placed(self, key: str) -> Sequence[int]:
        """The partitions of *key*, remembered."""
        found = self._codec.placed(self._topic, key)
        if len(self.remembered) >= _REMEMBERED_KEYS:
            self.remembered.clear()
        if len(key) <= _REMEMBERED_LENGTH:  # ids come from outside, and the memory is by number of keys
            self.remembered[key] = found
        return found


def _text(header: bytes | None) -> str:
    return str(header, "utf-8", "replace") if header else ""


def _others(headers: Mapping[str, bytes]) -> Mapping[str, str]:
    return {name: text for name, text in text_headers(headers.items()).items() if name not in _KNOWN}


def _internal(cause: Event[Any]) -> bytes:
    """The headers of an internal topic: what every stage hands on."""
    headers = [("traceparent", cause.traceparent.encode())] if cause.traceparent else []
    if cause.backfill:
        headers.append(("backfill", b"true"))
    return encoded(headers)


def _with_own(headers: bytes, own: Sequence[tuple[str, str]]) -> bytes:
    """*headers* with *own* ones instead of those of the same names."""
    names = {name for name, _ in own}
    kept = [each for each in decoded(headers) if each[0] not in names]
    return encoded([*kept, *((name, text.encode()) for name, text in own)])


def _check_size(topic: str, sent: Sent) -> None:
    _, key, value, headers = sent
    size = len(key or b"") + len(value or b"") + len(headers)
    if size > MAX_RECORD_BYTES:
        raise RecordError("too-large", f"a record of {size} bytes for {topic}; at most {MAX_RECORD_BYTES}")


def _key(topic: str, key: bytes | None) -> str:
    if key is None:
        raise RecordError("no-key", f"a record of {topic} must have a key")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise RecordError("wrong-key", "the key is no UTF-8 text") from error


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
