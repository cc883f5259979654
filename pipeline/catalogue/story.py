"""
Records of a made-up story, played by the stages without a broker: what the pages show of each topic.

The sandbox's customers live through some minutes; their webhooks and what polls find go through the driver in
virtual time. Everything follows from the seed, so the pages are the same whenever they are made.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import orjson

from pipeline.codec import Record
from pipeline.events import Tick
from pipeline.identity import Identity
from pipeline.instants import from_ms
from pipeline.sandbox.faults import Faults
from pipeline.sandbox.ledger import Ledger
from pipeline.sandbox.state import Hook, Json, SandboxState
from pipeline.sandbox.traffic import Traffic
from pipeline.sandbox.webhooks import Webhooks
from pipeline.sandbox.world import TenantWorld
from pipeline.settings import Settings
from pipeline.testing import EPOCH_MS, Driver
from pipeline.topology import stages

__all__ = ["samples"]

_SEED: Final = 7
_WEBHOOKS: Final = 200
_RATE: Final = 50
_START_MS: Final = EPOCH_MS + 40_000_000
_DAY_MS: Final = 86_400_000
_IDENTITY: Final = Identity(b"of a story, and nobody's secret")

#: Key and JSON of a polled item.
_Item = tuple[str, Json]


@lru_cache(maxsize=1)
def samples() -> Mapping[str, Record]:
    """Topic -> one of its records in the story; topics of which the story does not tell are left out."""
    with TemporaryDirectory() as folder:
        driver = _played(Path(folder))
    told = ((name, list(driver.records(name))) for name in driver.codec.topics)
    return {name: _telling(records) for name, records in told if records}


def _telling(records: list[Record]) -> Record:
    """The record with the most to show among the last ones."""
    values = [record for record in records if record.value is not None][-400:]
    return max(values, key=lambda record: (len(record.value or b""), record.offset))


def _played(folder: Path) -> Driver:
    now = [_START_MS]
    ledger = Ledger(folder, clock=lambda: now[0])
    state = SandboxState(seed=_SEED)
    traffic = Traffic(state, ledger, Webhooks(Faults()), seed=_SEED, start_ms=_START_MS, rate=_RATE)
    tenants = list(traffic.world.tenants.values())
    driver = Driver(stages(_settings(tenants), _IDENTITY), application_id="pipeline")
    for tenant in tenants:
        _poll(driver, tenant, now[0])
    while traffic.sent < _WEBHOOKS:
        for planned in traffic.preview(_RATE):
            traffic.sent += 1
            now[0] += 1_000 // _RATE
            _deliver(driver, tenants, planned.hook, now[0])
        _tick(driver, now[0])
    for days in (1, 10):  # days end, and then the time in which they can still change
        _tick(driver, now[0] + days * _DAY_MS)
    ledger.close()
    return driver


def _deliver(driver: Driver, tenants: Iterable[TenantWorld], hook: Hook, at_ms: int) -> None:
    tenant = next(one for one in tenants if hook.owner in (one.account.id, one.location.id))
    told = {"source": "webhook", "resource": "webhook", "account": hook.owner, "product": hook.product}
    key = f"{tenant.spec.name}:{hook.product[0]}:{hook.subject}"
    _receive(driver, key, hook.encoded(), told, at_ms)


def _poll(driver: Driver, tenant: TenantWorld, at_ms: int) -> None:
    for product, resource, account, items in _listed(tenant):
        told = {"source": "poll", "resource": resource, "account": account, "product": product}
        told["scan_started_at"] = from_ms(at_ms)
        for key, item in items:
            _receive(driver, f"{tenant.spec.name}:{key}", orjson.dumps(item), told, at_ms)


def _listed(tenant: TenantWorld) -> Iterator[tuple[str, str, str, Iterable[_Item]]]:
    account, location = tenant.account, tenant.location
    tags = ((tag_id, location.tag_details(tag_id)) for tag_id in location.tags)
    yield "users", "tags", location.id, ((f"u:-:{tag_id}", tag) for tag_id, tag in tags if tag)
    sakari = ((f"s:{each['id']}", each) for each in account.contacts.values())
    yield "sakari", "contacts", account.id, sakari
    users = ((f"u:{each['id']}", each) for each in location.contacts.values())
    yield "users", "contacts", location.id, users


def _receive(driver: Driver, key: str, body: bytes, told: Mapping[str, str], at_ms: int) -> None:
    tenant = key.partition(":")[0]
    headers = {**told, "tenant": tenant, "verified": "true", "received_at": from_ms(at_ms)}
    driver.send("sources.received", key, body, at=at_ms, headers=headers)


def _tick(driver: Driver, now_ms: int) -> None:
    driver.now_ms = now_ms
    for partition in ("0", "1"):
        driver.send("clock.ticks", partition, Tick(from_ms(now_ms)), at=now_ms)
    driver.run()


def _settings(tenants: Iterable[TenantWorld]) -> Settings:
    return Settings.model_validate({"tenants": dict(map(_tenant, tenants))})


def _tenant(tenant: TenantWorld) -> tuple[str, dict[str, Any]]:
    secret = {"env": "NONE"}
    account = {"account_id": tenant.account.id, "client_id": secret, "client_secret": secret}
    return tenant.spec.name, {
        "time_zone": tenant.spec.time_zone,
        "region": tenant.spec.region,
        "dialect": tenant.spec.dialect,
        "sakari": [account],
        "users": [{"location_id": tenant.location.id, "token": secret}],
    }
