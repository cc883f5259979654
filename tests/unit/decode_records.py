"""Received records for the tests of decode, and a task of it without a broker."""

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from pipeline.errors import RecordError
from pipeline.events import Received, Tick
from pipeline.identity import Identity
from pipeline.instants import Time, to_ms
from pipeline.runtime.state import Layers, Memory
from pipeline.stage import Cursor, Event, Outcome
from pipeline.stages.decode import Config, SourceConfig, TenantConfig, stage
from pipeline.stages.decode.stores import STORES

IDENTITY = Identity(b"decode tests, not a secret of anybody")
ACCOUNT, LOCATION, OTHER_LOCATION = "account-1", "location-1", "location-2"
ADA, BOB = "+12025550101", "+12025550102"
ADA_KEY = IDENTITY.contact_key("acme", ADA)
BOB_KEY = IDENTITY.contact_key("acme", BOB)
CONFIG = Config(
    identity=IDENTITY,
    tenants={
        "acme": TenantConfig(accounts=frozenset({ACCOUNT}), locations=frozenset({LOCATION, OTHER_LOCATION})),
        "open": TenantConfig(accept_unverified=True, locations=frozenset({"location-9"})),
    },
    sources={
        "survey": SourceConfig(
            type_path="kind", id_path="event.id", time_path="event.at", phone_path="who.phone"
        )
    },
    seen_days=45,
)
STAGE = stage(CONFIG)
NOON = Time("2030-01-10T12:00:00.000Z")


def at(day: int, hour: int = 0, second: int = 0) -> Time:
    """An instant in January 2030."""
    return Time(f"2030-01-{day:02d}T{hour:02d}:{second // 60:02d}:{second % 60:02d}.000Z")


def moment(time: str) -> dict[str, Any]:
    """``created`` or ``updated`` as Sakari writes it."""
    return {"at": time, "by": {"source": "api"}}


def sakari_message(**fields: Any) -> dict[str, Any]:
    """A delivered outbound message to Ada, as a webhook carries it."""
    return {
        "id": "m1",
        "message": "hello",
        "status": "delivered",
        "outgoing": True,
        "segments": 1,
        "price": 0.0079,
        "contact": {"id": "c1", "mobile": {"number": ADA, "country": "US"}},
        "created": moment(at(10)),
        "updated": moment(at(10, 1)),
    } | fields


def sakari_contact(**fields: Any) -> dict[str, Any]:
    """Ada as Sakari has her."""
    return {
        "id": "c1",
        "firstName": "Ada",
        "mobile": {"number": ADA, "country": "US"},
        "tags": [{"tag": "vip", "visible": True}],
        "attributes": {},
        "created": moment(at(1)),
        "updated": moment(at(5)),
    } | fields


def hook(kind: str, payload: Any, **fields: Any) -> bytes:
    """A Sakari webhook."""
    return orjson.dumps({"accountId": ACCOUNT, "eventType": kind, "payload": payload} | fields)


def users_hook(kind: str, **fields: Any) -> bytes:
    """A Users API webhook about Ada."""
    head = {"type": kind, "timestamp": at(6), "webhookId": "w1", "locationId": LOCATION, "id": "u1"}
    return orjson.dumps(head | fields)


class Task:
    """One partition of decode, with all that it emitted."""

    def __init__(self) -> None:
        self.layers = Layers(0, STORES, Memory())
        self.layers.push()
        self.outcomes: list[Outcome] = []
        self.tables: dict[tuple[str, str], Any] = {}

    def take(
        self,
        body: bytes,
        key: str = "acme:s:c1",
        *,
        received_at: str = NOON,
        scan: str = "",
        id: str = "",  # noqa: A002 - the field's name
        **headers: Any,
    ) -> Outcome:
        """Decode one record."""
        told = {
            "source": "poll" if scan else "webhook",
            "product": "sakari",
            "resource": "webhook",
            "tenant": "acme",
            "account": ACCOUNT,
            "verified": True,
        }
        value = Received(body=body, scan_started_at=to_ms(Time(scan)) if scan else 0, **(told | headers))
        return self._step(
            Event(
                topic="sources.received",
                key=key,
                value=value,
                id=id,
                received_at=to_ms(Time(received_at)),
            )
        )

    def users(self, body: bytes, key: str = "acme:u:u1", **headers: Any) -> Outcome:
        """Decode one record of the Users API."""
        return self.take(body, key, **({"product": "users", "account": LOCATION} | headers))

    def poll(self, resource: str, item: Any, key: str = "acme:s:c1", **headers: Any) -> Outcome:
        """Decode one polled item of Sakari."""
        headers = {"resource": resource, "scan": at(9), **headers}
        return self.take(orjson.dumps(item), key, **headers)

    def users_poll(self, resource: str, item: Any, key: str = "acme:u:u1", **headers: Any) -> Outcome:
        """Decode one polled item of the Users API."""
        headers = {"product": "users", "account": LOCATION, **headers}
        return self.poll(resource, item, key, **headers)

    def tick(self, time: str) -> Outcome:
        """Let the clock tick, and go on until nothing is left to do."""
        event = Event(topic="clock.ticks", key="0", value=Tick(Time(time)))
        outcome = self._step(event)
        waiting: list[Cursor] = list(outcome.more)
        while waiting:
            assert STAGE.resume is not None
            more = STAGE.resume(self.layers, waiting.pop())
            assert len(more.writes) <= 500
            self.layers.write(more.writes)
            waiting += more.more
        return outcome

    def facts(self) -> list[Any]:
        """All facts so far."""
        return [emit.value for outcome in self.outcomes for emit in outcome.emit if _is_fact(emit.topic)]

    def fact_ids(self) -> list[str]:
        """The ids of all facts so far."""
        return [emit.id for outcome in self.outcomes for emit in outcome.emit if _is_fact(emit.topic)]

    def table(self, topic: str) -> dict[str, Any]:
        """The last value of each key of *topic* that was not deleted."""
        return {key: value for (name, key), value in self.tables.items() if name == topic}

    def _step(self, event: Event[Any]) -> Outcome:
        outcome = STAGE.step(self.layers, event)
        self.layers.write(outcome.writes)
        self.outcomes.append(outcome)
        for emit in outcome.emit:
            if not _is_fact(emit.topic):
                self.tables.pop((emit.topic, emit.key), None)
                if emit.value is not None:
                    self.tables[emit.topic, emit.key] = emit.value
        return outcome


def names(values: Sequence[msgspec.Struct]) -> list[str]:
    """The types of *values*."""
    return [type(value).__name__ for value in values]


def refusal(task: Task, body: bytes, **headers: Any) -> tuple[str, str]:
    """Reason and text of the error that *body* ends in."""
    try:
        task.take(body, **headers)
    except RecordError as error:
        return error.reason, str(error)
    raise AssertionError("the record was taken")


def _is_fact(topic: str) -> bool:
    return topic.endswith(".events")
