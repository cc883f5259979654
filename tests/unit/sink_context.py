"""The statistics sink in memory: the same batch core as the runtime's, without a broker."""

import asyncio
from collections.abc import Mapping
from typing import Any

from pipeline.clients.users import UsersClient
from pipeline.codec import Codec, Output, Record, text_headers
from pipeline.effects import Change, Unit
from pipeline.errors import BrokerError
from pipeline.events import (
    ContactEngagement,
    EnrichedContact,
    Measures,
    NativeContact,
    PostedStatistics,
    Ratios,
    WindowMetrics,
    ce_type,
)
from pipeline.instants import Time
from pipeline.runtime.batch import Processor
from pipeline.runtime.state import Memory
from pipeline.settings import BreakerSettings, SecretRef, SinkSettings, Tenant, UsersLocation
from pipeline.sinks import statistics
from pipeline.sinks.statistics.state import DUE, PENDING, Pending
from pipeline.stage import Event, Stage, Stores
from pipeline.topics import load

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: 2030-01-02T00:00:00Z
NOW_MS = 1_893_542_400_000
BREAKER = BreakerSettings(backoff_initial_s=0.01, backoff_max_s=0.02, failures_to_open=3, open_s=0.05)


class MemoryContext:
    """An `EffectContext` of one partition whose clock is set by hand."""

    partition = 0
    partitions = 1

    def __init__(self, stage: Stage, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms
        self.outputs: list[Output] = []
        self.commits_to_fail = 0
        self.codec = Codec(load(), 1, "test")
        self._stage = stage
        self._backend = Memory()
        self._processor = Processor(stage, 0, self.codec, self._backend)
        self._changed = asyncio.Event()

    @property
    def read(self) -> Stores:
        """The committed state."""
        return self._processor.layers

    def now(self) -> int:
        """The clock."""
        return self.now_ms

    async def changed(self) -> None:
        """Return when something was committed."""
        await self._changed.wait()
        self._changed.clear()

    def wake(self) -> None:
        """Let the effect look at the clock."""
        self._changed.set()

    async def commit(self, change: Change, *, cause: Event[Any] | None = None) -> None:
        """Apply *change* and keep its outputs, or fail as a broker does."""
        await asyncio.sleep(0)
        if self.commits_to_fail:
            self.commits_to_fail -= 1
            raise BrokerError("the producer was fenced")
        assert cause is not None
        self._apply(change, cause)

    def feed(self, *events: Event[Any]) -> None:
        """What the runtime does with input records: a step each, committed."""
        for event in events:
            self._apply(self._stage.step(self.read, event), event)

    def _apply(self, change: Change, cause: Event[Any]) -> None:
        outcome = change(self.read) if callable(change) else change
        self._processor.apply(outcome, cause)
        batch = self._processor.close()
        if batch is not None:
            self._backend.apply(batch.changes)
            self._processor.committed()
            self.outputs += batch.outputs
            self._changed.set()

    @property
    def pending(self) -> list[Pending]:
        """What waits to be posted, by key."""
        return [value for _, value in self.read.scan(PENDING, "", "~")]

    @property
    def queue(self) -> list[str]:
        """The keys of what waits, by when it is due."""
        return [value for _, value in self.read.scan(DUE, "", "~")]

    @property
    def posted(self) -> list[PostedStatistics]:
        """All of ``statistics.posted``."""
        records = [each for each in self.outputs if each.topic == "statistics.posted"]
        return [self.codec.decode(_record(each)).value for each in records]

    @property
    def dead_letters(self) -> list[dict[str, str]]:
        """The headers of all dead letters."""
        return [text_headers(each.headers) for each in self.outputs if each.topic == "dead-letters"]


def _record(output: Output) -> Record:
    return Record(output.topic, output.partition, 0, *output[2:5], tuple(output[5]))


def tenant(*locations: str, dialect: str = "catalogue") -> Tenant:
    """A tenant with *locations*."""
    token = SecretRef.model_validate({"value": "token"})
    places = tuple(UsersLocation(location_id=each, token=token) for each in locations)
    return Tenant.model_validate({"dialect": dialect, "users": places})


def sink(
    tenants: Mapping[str, Tenant],
    clients: Mapping[str, UsersClient] | None = None,
    *,
    breaker: BreakerSettings = BREAKER,
    **settings: Any,
) -> Unit:
    """The statistics sink with *settings*, without chance in its back-off."""
    return statistics.unit(
        tenants=tenants,
        clients=clients or {},
        settings=SinkSettings(**settings),
        breaker=breaker,
        jitter=lambda: 0.0,
    )


def window(
    revision: int = 1,
    *,
    tenant: str = "acme",
    dimension: str = "all",
    width: str = "1d",
    day: int = 1,
    closed: bool = False,
    sent: int = 3,
) -> Event[WindowMetrics]:
    """A record of ``engagement.metrics``."""
    start, end = Time(f"2030-01-{day:02d}T00:00:00.000Z"), Time(f"2030-01-{day + 1:02d}T00:00:00.000Z")
    value = WindowMetrics(
        tenant=tenant,
        dimension=dimension,
        width=width,
        start=start,
        end=end,
        revision=revision,
        closed=closed,
        measures=Measures(sent=sent, contacts_messaged=2),
        ratios=Ratios(delivery=0.5),
    )
    return _event("engagement.metrics", f"{tenant}|{dimension}|{width}|{start}", value, f"w{revision}")


def engaged(score: float = 50.0, *, day: int = 1, key: str = "acme:m:1") -> Event[ContactEngagement]:
    """A record of ``engagement.contacts``."""
    at = Time(f"2030-01-{day:02d}T12:00:00.000Z")
    value = ContactEngagement(
        tenant="acme", contact_key=key, sent=1, score=score, score_at=at, last_activity_at=at
    )
    return _event("engagement.contacts", key, value, f"e{score}")


def enriched(*natives: tuple[str, str], key: str = "acme:m:1") -> Event[EnrichedContact]:
    """A record of ``contacts.enriched`` with Users API *natives* (location, contact id)."""
    places = tuple(NativeContact(system="users", account_id=a, contact_id=c) for a, c in natives)
    value = EnrichedContact(tenant="acme", contact_key=key, natives=places)
    return _event("contacts.enriched", key, value, f"c{len(natives)}")


def gone(key: str = "acme:m:1", topic: str = "contacts.enriched") -> Event[None]:
    """A tombstone of *topic*."""
    return Event(topic=topic, key=key, value=None, received_at=NOW_MS)


def _event(topic: str, key: str, value: Any, identity: str) -> Event[Any]:
    return Event(
        topic=topic,
        key=key,
        value=value,
        type=ce_type(type(value)),
        id=identity,
        received_at=NOW_MS - 1000,
        traceparent=TRACE,
    )
