"""
A whole run without a broker: sample traffic, delivered and polled in virtual time, through the driver.

Webhooks are duplicated, late, overtaken and lost; a poll finds what webhooks did not tell. Everything follows
from the seed. Stages can be wrapped, so that the oracle can be shown to find their bugs.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from pipeline.events import Tick
from pipeline.identity import Identity
from pipeline.instants import from_ms
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.ledger import Ledger
from pipeline.sandbox.oracle import READS, OracleSettings, Report, verify
from pipeline.sandbox.state import Hook, Json, SandboxState
from pipeline.sandbox.traffic import Traffic
from pipeline.sandbox.traffic_plot import Planned
from pipeline.sandbox.traffic_recorder import Recorder
from pipeline.sandbox.traffic_time import dev_grace_s
from pipeline.sandbox.webhooks import Attempt, Webhooks
from pipeline.sandbox.world import TenantWorld, instant
from pipeline.settings import Settings
from pipeline.stage import Stage
from pipeline.testing import EPOCH_MS, Driver
from pipeline.topology import stages

SECRET = b"the oracle's tests, not a secret of anybody"
START_MS = EPOCH_MS + 40_000_000
RATE = 200.0
#: the first windows close 5 s after the story begins
GRACE_S = dev_grace_s(START_MS, 5)
POLL_MS = 3_000
Wrap = Callable[[Stage], Stage]


@dataclass
class Run:
    """One run: what was made, and where the ledger is."""

    directory: Path
    seed: int = 1
    webhooks: int = 2_000
    wrap: Wrap = lambda stage: stage
    now_ms: int = START_MS
    driver: Driver = field(init=False)
    traffic: Traffic = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"run {self.seed}")
        self.state = SandboxState(seed=self.seed)
        self._ledger = Ledger(self.directory, clock=lambda: self.now_ms)
        self.traffic = Traffic(
            self.state,
            self._ledger,
            Webhooks(Faults()),
            seed=self.seed,
            start_ms=START_MS,
            rate=RATE,
        )
        self._recorder = Recorder(self._ledger, self.traffic.world)
        self.driver = Driver([self.wrap(stage) for stage in stages(self.settings(), Identity(SECRET))])
        self._arrivals: list[tuple[int, int, str, Hook]] = []
        self._order = count()
        self._polled: dict[tuple[str, str], dict[str, tuple[bytes, str]]] = {}

    def settings(self) -> Settings:
        """What the pipeline is told of the sandbox's customers."""
        return Settings.model_validate(
            {"engagement": {"grace_s": GRACE_S}, "tenants": dict(map(_settings, self._tenants()))}
        )

    def play(self) -> "Run":
        """Play the story to its end, then let everything arrive, and poll twice more."""
        ended = 0
        while ended < 3:
            second_ms = self.now_ms
            if self.traffic.sent < self.webhooks:
                for planned in self.traffic.preview(round(RATE)):
                    self._plan(planned)
                    self.now_ms += round(1_000 / RATE)
            else:
                ended += not self._arrivals
            self.now_ms = second_ms + 1_000
            self._arrive()
            if (self.now_ms - START_MS) % POLL_MS == 0 or ended:
                self._poll()
            self._tick()
        self._ledger.close()
        return self

    def report(self, held: Iterable[Mapping[str, Any]] | None = None) -> Report:
        """What the oracle says; *held* is what the Users API holds, None: that is left out."""
        records = (record._asdict() for topic in READS for record in self.driver.records(topic))
        settings = OracleSettings(grace_s=GRACE_S, poll_delay_s=8)
        return verify(
            self.directory, records, identity_secret=SECRET, settings=settings, held=held, now_ms=self.now_ms
        )

    def at(self) -> datetime:
        """Now."""
        return instant(self.now_ms)

    # -- webhooks ----------------------------------------------------------------------------------

    def _plan(self, planned: Planned) -> None:
        self.traffic.sent += 1
        identity, hook = f"w{self.traffic.sent}", planned.hook
        self._recorder.webhook(identity, hook)
        lost = self._rng.random() < 0.01
        if lost:
            self._delivered(identity, hook, number=0)
            return
        delay_ms = 0 if planned.ordered else round(planned.delay_s * 1_000) + self._hitch_ms()
        self._push(identity, hook, delay_ms)
        if planned.again_s is not None or self._rng.random() < 0.03:
            self._push(f"{identity}+", hook, delay_ms + round((planned.again_s or 0) * 1_000))

    def _hitch_ms(self) -> int:
        return self._rng.randrange(100, 3_000) if self._rng.random() < 0.05 else 0

    def _push(self, identity: str, hook: Hook, delay_ms: int) -> None:
        heapq.heappush(self._arrivals, (self.now_ms + delay_ms, next(self._order), identity, hook))

    def _arrive(self) -> None:
        second_ms = self.now_ms
        while self._arrivals and self._arrivals[0][0] <= second_ms:
            self.now_ms, _, identity, hook = heapq.heappop(self._arrivals)
            tenant, system = self._tenant_of(hook.owner).spec.name, hook.product[0]
            headers = {"source": "webhook", "resource": "webhook", "account": hook.owner}
            self._receive(f"{tenant}:{system}:{hook.subject}", hook.encoded(), hook.product, headers)
            self._delivered(identity, hook, number=1)
        self.now_ms = second_ms

    def _delivered(self, identity: str, hook: Hook, *, number: int) -> None:
        self._recorder.delivered(
            Attempt(
                id=identity,
                product=hook.product,
                owner=hook.owner,
                kind=hook.kind,
                subject=hook.subject,
                url="",
                number=number,
                status=200 if number else None,
                accepted=bool(number),
                final=True,
            )
        )

    # -- polls -------------------------------------------------------------------------------------

    def _poll(self) -> None:
        for tenant in self._tenants():
            for product, resource, account, items in _listed(tenant):
                self._scan(tenant.spec.name, product, resource, account, items)

    def _scan(
        self, tenant: str, product: str, resource: str, account: str, items: Iterator[tuple[str, str, Json]]
    ) -> None:
        known = self._polled.setdefault((account, resource), {})
        headers = {
            "source": "poll",
            "resource": resource,
            "account": account,
            "scan_started_at": from_ms(self.now_ms),
        }
        found = {identity: (orjson.dumps(item), key) for identity, key, item in items}
        for identity, (body, key) in found.items():
            if known.get(identity, (b"", ""))[0] != body:
                self._receive(f"{tenant}:{key}", body, product, headers)
        for identity in known.keys() - found.keys():
            body, key = known[identity]
            self._receive(f"{tenant}:{key}", body, product, headers | {"change": "removed"})
        self._polled[account, resource] = found

    def _receive(self, key: str, body: bytes, product: str, headers: Mapping[str, str]) -> None:
        told = {"product": product, "tenant": key.partition(":")[0], "verified": "true", **headers}
        told["received_at"] = from_ms(self.now_ms)
        self.driver.send("sources.received", key, body, at=self.now_ms, headers=told)

    def _tick(self) -> None:
        self.driver.now_ms = self.now_ms
        for partition in ("0", "1"):
            self.driver.send("clock.ticks", partition, Tick(from_ms(self.now_ms)), at=self.now_ms)
        self.driver.run()

    def _tenants(self) -> Sequence[TenantWorld]:
        return list(self.traffic.world.tenants.values())

    def _tenant_of(self, owner: str) -> TenantWorld:
        return next(one for one in self._tenants() if owner in (one.account.id, one.location.id))


def _settings(tenant: TenantWorld) -> tuple[str, dict[str, Any]]:
    secret = {"env": "NONE"}
    account = {"account_id": tenant.account.id, "client_id": secret, "client_secret": secret}
    return tenant.spec.name, {
        "time_zone": tenant.spec.time_zone,
        "region": tenant.spec.region,
        "dialect": tenant.spec.dialect,
        "sakari": [account],
        "users": [{"location_id": tenant.location.id, "token": secret}],
    }


def _listed(tenant: TenantWorld) -> Iterator[tuple[str, str, str, Iterator[tuple[str, str, Json]]]]:
    account, location = tenant.account, tenant.location
    yield "users", "tags", location.id, _tags(tenant)
    yield (
        "sakari",
        "contacts",
        account.id,
        ((each["id"], f"s:{each['id']}", each) for each in account.contacts.values()),
    )
    yield (
        "users",
        "contacts",
        location.id,
        ((each["id"], f"u:{each['id']}", each) for each in location.contacts.values()),
    )
    yield "sakari", "messages", account.id, _of_contact(map(account.message_item, account.messages.values()))
    yield (
        "sakari",
        "conversations",
        account.id,
        _of_contact(map(account.conversation_item, account.conversations.values())),
    )


def _tags(tenant: TenantWorld) -> Iterator[tuple[str, str, Json]]:
    for tag_id in tenant.location.tags:
        details = tenant.location.tag_details(tag_id)
        if details and not details["deleted"]:
            yield tag_id, f"u:-:{tag_id}", details


def _of_contact(items: Iterator[Json]) -> Iterator[tuple[str, str, Json]]:
    for item in items:
        created = item["created"]["at"]
        if "message" not in item or created > from_ms(START_MS - 7 * 86_400_000 + 600_000):
            yield item["id"], f"s:{item['contact']['id']}", item
