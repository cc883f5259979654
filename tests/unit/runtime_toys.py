"""Toy stages and topics for the batch core and the driver."""

from typing import Any

from pipeline.codec import Codec, Output, Record, text_headers
from pipeline.errors import RecordError
from pipeline.events import Tick, ce_type
from pipeline.instants import Time
from pipeline.runtime.batch import Batch, Processor
from pipeline.runtime.state import Memory
from pipeline.stage import Cursor, Delete, Emit, Event, Outcome, Put, Reject, Stage, Store, Stores
from pipeline.topics import Topic, Topics, load

COUNTS: Store[int] = Store("counts", int)
TYPE = ce_type(Tick)
FAN_OUT = 1_200


def topic(name: str, **changes: Any) -> Topic:
    """A public topic of `Tick`, whose ``at`` is whatever text a test wants to send."""
    fields: dict[str, Any] = {
        "description": name,
        "owner": "tests",
        "visibility": "public",
        "key": "text",
        "types": (TYPE,),
        "cleanup": ("delete",),
        "retention_ms": 1,
    }
    return Topic(name=name, **(fields | changes))


def topics() -> Topics:
    """``in`` -> ``out`` and the table ``table``, with dead letters and redrive."""
    real = load()
    made = [topic("in"), topic("out"), topic("table", cleanup=("compact",), retention_ms=None)]
    redrive = topic("toy.redrive", types=("raw",), partitioned_by="explicit")
    return Topics([*made, redrive, real["dead-letters"]], real.profiles.values(), real.changelogs)


def step(read: Stores, event: Event[Any]) -> Outcome:
    """What the text of a record asks for; by default count its key and pass it on."""
    text = event.value.at
    match text:
        case "bug":
            raise KeyError("phone +15551234567")
        case "refuse":
            raise RecordError("refused", "not this one")
        case "reject":
            return Outcome(emit=(Emit("out", event.key, event.value),), reject=(Reject("late", "too late"),))
        case "delete":
            return Outcome(writes=(Delete(COUNTS, event.key),), emit=(Emit("table", event.key, None),))
        case "fan out":
            return Outcome(more=(Cursor(event.key, "0"),))
        case "large":
            return Outcome(emit=(Emit("out", event.key, b"x" * 1_000_000),))
        case "large state" | "bad state":
            value = 1 << 70 if text == "bad state" else "x" * 1_000_000
            return Outcome(
                writes=(Put(COUNTS, event.key, value),), emit=(Emit("out", event.key, event.value),)
            )
        case _:
            return _counted(read, event)


def _counted(read: Stores, event: Event[Any]) -> Outcome:
    count = (read.get(COUNTS, event.key) or 0) + 1
    tick = Tick(Time(str(count)))
    emits = (Emit("out", event.key, tick), Emit("table", event.key, tick))
    return Outcome(writes=(Put(COUNTS, event.key, count),), emit=emits)


def resume(_: Stores, cursor: Cursor) -> Outcome:
    """Five hundred outputs a call, up to `FAN_OUT`; a job named ``bug`` fails at its second call."""
    at = int(cursor.at)
    if cursor.job == "bug" and at:
        raise KeyError("fan-out")
    end = min(at + 500, FAN_OUT)
    emit = tuple(Emit("out", cursor.job, Tick(Time(str(number)))) for number in range(at, end))
    return Outcome(emit=emit, more=(Cursor(cursor.job, str(end)),) if end < FAN_OUT else ())


STAGE = Stage(
    name="toy", inputs=("in",), outputs=("out", "table"), stores=(COUNTS,), step=step, resume=resume
)


def codec() -> Codec:
    """The codec of the toy topics, one partition each."""
    return Codec(topics(), 1, "test")


def record(text: str, offset: int = 0, key: str = "k", **changes: Any) -> Record:
    """A record of ``in``."""
    headers = (("ce_type", TYPE.encode()), ("ce_id", f"id-{offset}".encode()), ("traceparent", b"00-a-b-01"))
    made = Record("in", 0, offset, 1_000 + offset, key.encode(), b'{"at":"%s"}' % text.encode(), headers)
    return made._replace(**changes)


def processor(backend: Memory | None = None, mask: Any = str) -> Processor:
    """The toy stage on partition 0."""
    return Processor(STAGE, 0, codec(), backend or Memory(), mask)


def take(one: Processor, taken: Record) -> None:
    """Process *taken* alone."""
    one.take(taken.topic, (taken,))


def closed(one: Processor, *texts: str) -> Batch:
    """The batch of records with *texts*."""
    for offset, text in enumerate(texts):
        take(one, record(text, offset))
    batch = one.close()
    assert batch is not None
    return batch


def outputs(batch: Batch, name: str) -> list[Output]:
    """The records of *batch* for topic *name*."""
    return [output for output in batch.outputs if output.topic == name]


def headers_of(output: Output) -> dict[str, str]:
    """The headers of *output* as text."""
    return text_headers(output.headers)
