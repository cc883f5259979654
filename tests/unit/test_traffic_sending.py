"""Sample traffic on the wire: paced, counted, and written into the ledger with what came of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest_asyncio
from aiohttp import web

from pipeline.sandbox.faults import FaultKind, FaultRule, Faults
from pipeline.sandbox.ledger import Ledger, table_file, wall_ms
from pipeline.sandbox.state import SandboxState
from pipeline.sandbox.traffic import Traffic, traffic_faults
from pipeline.sandbox.webhooks import DeliverySettings, Webhooks


@dataclass(slots=True)
class Receiver:
    """Keeps what it is sent."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    hundred: asyncio.Event = field(default_factory=asyncio.Event)  #: so many came

    async def answer(self, request: web.Request) -> web.Response:
        """Take one webhook."""
        self.bodies.append(await request.read())
        if len(self.bodies) == 100:
            self.hundred.set()
        return web.Response()


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a free loopback port."""
    found = Receiver()
    app = web.Application()
    app.router.add_post("/in", found.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/in"
    yield found
    await runner.cleanup()


@asynccontextmanager
async def sending(directory: Path, url: str, *rules: FaultRule) -> AsyncIterator[Traffic]:
    """Traffic to *url*; when the block ends everything is delivered and the ledger written."""
    state = SandboxState(seed=1)
    webhooks = Webhooks(Faults(rules), settings=DeliverySettings(lanes=8, sakari_attempts=1))
    with Ledger(directory) as ledger:
        traffic = Traffic(state, ledger, webhooks, seed=1, start_ms=wall_ms(), rate=2_000)
        for account in state.sakari.accounts.values():
            account.subscribe(url)
        state.users.callback_urls.append(url)
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
            task = tasks.create_task(webhooks.run(), name="webhooks")
            yield traffic
            await webhooks.drain()
            task.cancel()


def rows(directory: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table of the ledger."""
    return [orjson.loads(line) for line in table_file(directory, table).read_bytes().splitlines()]


async def test_each_webhook_is_sent_and_its_delivery_noted(receiver: Receiver, tmp_path: Path) -> None:
    """As many as asked for; only inherent duplicates make more deliveries than webhooks."""
    async with sending(tmp_path / "l", receiver.url) as traffic:
        await traffic.run(count=400)
    deliveries = rows(tmp_path / "l", "deliveries")
    assert traffic.sent == len(rows(tmp_path / "l", "webhooks")) == 400
    assert {row["webhook"] for row in deliveries if row["accepted"]} == {f"w{n}" for n in range(1, 401)}
    assert sum(row["twin"] for row in deliveries) == len(receiver.bodies) - 400 > 0


async def test_faults_are_in_the_ledger_too(receiver: Receiver, tmp_path: Path) -> None:
    """A lost webhook has a delivery of no attempts; doubled ones are marked as twins."""
    lost = FaultRule(kind=FaultKind.LOST, probability=0.2)
    doubled = FaultRule(kind=FaultKind.DUPLICATED, probability=0.2, delay_s=0.01)
    async with sending(tmp_path / "l", receiver.url, lost, doubled) as traffic:
        await traffic.run(count=200)
    deliveries = rows(tmp_path / "l", "deliveries")
    assert any(row["attempts"] == 0 and not row["accepted"] for row in deliveries)
    assert sum(row["accepted"] for row in deliveries) == len(receiver.bodies)


async def test_an_unreachable_receiver_is_no_acceptance(tmp_path: Path) -> None:
    """Attempts without an answer are told as such."""
    async with sending(tmp_path / "l", "http://127.0.0.1:1/in") as traffic:
        await traffic.run(count=50)
    deliveries = rows(tmp_path / "l", "deliveries")
    assert deliveries
    assert all(row["status"] is None and not row["accepted"] and row["attempts"] == 1 for row in deliveries)


async def test_traffic_stops_when_told(receiver: Receiver, tmp_path: Path) -> None:
    """Without a count it goes on until the event is set."""
    async with sending(tmp_path / "l", receiver.url) as traffic, asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic.run(stop=receiver.hundred), name="traffic")
    assert traffic.sent >= 90
    assert len(rows(tmp_path / "l", "webhooks")) == traffic.sent


async def test_pace_follows_the_rate(receiver: Receiver, tmp_path: Path) -> None:
    """A hundred webhooks at 500 a second take their fifth of a second, and no less."""
    loop = asyncio.get_running_loop()
    async with sending(tmp_path / "l", receiver.url) as traffic:
        traffic.rate = 500
        begun = loop.time()
        await traffic.run(count=100)
    assert loop.time() - begun >= 0.19


def test_the_sample_goes_wrong_in_every_way() -> None:
    """Webhooks are lost, doubled, delayed and overtaken, each a few in a hundred."""
    rules = traffic_faults()
    assert {rule.kind for rule in rules} == {"lost", "duplicated", "delayed", "reordered"}
    assert all(0 < rule.probability <= 0.05 for rule in rules)
