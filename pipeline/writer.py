"""
Encodes what stages emit: values as JSON, headers in Kafka's bytes, for the partitions where it belongs.

Public topics carry CloudEvents 1.0 in Kafka's binary content mode and W3C ``traceparent``; internal ones
only what they need.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from pipeline.errors import RecordError
from pipeline.headers import VARINTS, Header, decoded, encoded, marks, named
from pipeline.instants import from_ms
from pipeline.stage import Emit, Event
from pipeline.topics import Topic

__all__ = [
    "MAX_RECORD_BYTES",
    "Made",
    "Output",
    "Places",
    "Sent",
    "Writer",
    "encode",
    "new_traceparent",
    "sent_as_outputs",
]

#: A record larger than this is refused before it is appended (brokers take 1 MiB).
MAX_RECORD_BYTES = 900 * 1024

_ENCODER = msgspec.json.Encoder(order="deterministic")
#: How many keys of a topic a writer remembers the partitions of, and the longest such key.
_REMEMBERED_KEYS = 100_000
_REMEMBERED_LENGTH = 256

#: Up to so many characters no record is too large, whatever they take in bytes.
_SURELY_SMALL_BYTES = MAX_RECORD_BYTES // 4

#: What stands before the values of a public topic's headers, in Kafka's bytes.
_TIME, _SUBJECT, _TRACE, _ID = map(named, ("ce_time", "ce_subject", "traceparent", "ce_id"))
#: How many headers a public topic has that is not deprecated; one more is for what was backfilled.
_USUAL = 8
_BACKFILL = encoded([("backfill", b"true")])[1:]


class Output(NamedTuple):
    """A record to be written."""

    topic: str
    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]


class Contract(Protocol):
    """What a writer has to know of topics and types."""

    @property
    def topics(self) -> Mapping[str, Topic]:
        """By name."""
        ...

    @property
    def application_id(self) -> str:
        """Whose stages write."""
        ...

    def placed(self, topic: Topic, key: str) -> Sequence[int]:
        """The partitions that a record of *key* goes to."""
        ...

    def type_of(self, value: Any, topic: Topic) -> str:
        """The ``ce_type`` of *value* on *topic*."""
        ...


def encode(value: msgspec.Struct) -> bytes:
    """The JSON of *value* as every writer writes it: all fields, in their order."""
    return _ENCODER.encode(value)


def new_traceparent(seed: bytes) -> str:
    """A sampled W3C ``traceparent`` whose ids follow from *seed*, so that a repeat has the same trace."""
    digest = sha256(seed).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


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

    def __init__(self, codec: Contract, stage: str) -> None:
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
                waiting = places.get(place)
                if waiting is None:
                    places[place] = [sent]
                else:
                    waiting.append(sent)

    def _target(self, topic: str) -> "_Target":
        target = self._targets[topic] = _Target(self._codec, topic, self._stage)
        return target


class _Target:
    """What a writer looks up of one topic for each record."""

    def __init__(self, codec: Contract, topic: str, stage: str) -> None:
        self.remembered: dict[str, Sequence[int]] = {}  # key -> partitions
        self._public = codec.topics[topic].visibility == "public"
        self._sunset = _sunset(codec.topics[topic])
        self._count, self._count_backfilled = (VARINTS[_USUAL + len(self._sunset) + more] for more in (0, 1))
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
            id_ = (emit.id or self._derived(emit, cause, raw, index)).encode()
            made = b"".join(
                (
                    self._count_backfilled if cause.backfill else self._count,
                    self._constant.get(type(emit.value)) or self._learn(emit.value),
                    _TIME[len(time)],
                    time,
                    _SUBJECT[len(subject)],
                    subject,
                    _TRACE[len(trace)],
                    trace,
                    _ID[len(id_)],
                    id_,
                    _BACKFILL if cause.backfill else b"",
                )
            )
        own = (*marks(cause.headers), *emit.headers) if cause.headers else emit.headers
        return _with_own(made, own) if own else made

    def _derived(self, emit: Emit, cause: Event[Any], raw: bytes | None, index: int) -> str:
        """The ``ce_id`` that follows from what is told."""
        if self._is_table:
            text = f"{emit.key}|{sha256(raw or b'').hexdigest()}"
        else:
            text = f"{self._stage}|{cause.id}|{emit.topic}|{index}"
        return sha256(text.encode()).hexdigest()

    def _learn(self, value: Any) -> bytes:
        """What is the same for all values of *value*'s type."""
        constant = (
            ("ce_specversion", b"1.0"),
            ("ce_type", self._codec.type_of(value, self._topic).encode()),
            ("ce_source", f"/{self._codec.application_id}/{self._stage}".encode()),
            ("content-type", b"application/json"),
            *self._sunset,
        )
        made = self._constant[type(value)] = encoded(constant)[1:]
        return made

    def placed(self, key: str) -> Sequence[int]:
        """The partitions of *key*, remembered."""
        found = self._codec.placed(self._topic, key)
        if len(self.remembered) >= _REMEMBERED_KEYS:
            self.remembered.clear()
        if len(key) <= _REMEMBERED_LENGTH:  # ids come from outside, and the memory is by number of keys
            self.remembered[key] = found
        return found


def _sunset(topic: Topic) -> tuple[Header, ...]:
    """What tells in each record that *topic* ends: two extensions of CloudEvents; none where it does not."""
    if topic.deprecated is None:
        return ()
    until, successor = f"{topic.deprecated.until}T23:59:59.999Z", topic.deprecated.instead
    return ("ce_sunset", until.encode()), ("ce_successor", successor.encode())


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
