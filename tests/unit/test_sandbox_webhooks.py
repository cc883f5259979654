"""Webhook delivery: order, faults, retries and signatures, against a real receiver on loopback."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pipeline.sandbox.faults import FaultKind, FaultRule, Faults
from pipeline.sandbox.webhooks import Delivery, DeliverySettings, Webhooks

FAST = DeliverySettings(lanes=4, timeout_s=5, sakari_attempts=4, sakari_base_s=0.001, users_base_s=0.001)


@dataclass(slots=True)
class Receiver:
    """Keeps what it is sent; answers the given statuses first, then 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Take one webhook."""
        status = self.statuses.pop(0) if self.statuses else 200
        self.bodies.append(await request.read())
        self.signatures.append(request.headers.get("X-GHL-Signature", ""))
        return web.Response(status=status)


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
async def sending(*rules: FaultRule, settings: DeliverySettings = FAST) -> AsyncIterator[Webhooks]:
    """Webhooks that are being sent until the block ends and everything is delivered."""
    webhooks = Webhooks(Faults(rules), settings=settings)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(webhooks.run(), name="webhooks")
        yield webhooks
        async with asyncio.timeout(10):
            await webhooks.drain()
        task.cancel()


def sakari(url: str, body: bytes, subject: str = "c1") -> Delivery:
    """A Sakari webhook."""
    return Delivery(product="sakari", owner="a", url=url, body=body, subject=subject)


def users(url: str, body: bytes) -> Delivery:
    """A webhook of the Users API."""
    return Delivery(product="users", owner="l", url=url, body=body, subject="c1")


def closed_url() -> str:
    """A loopback URL at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{bound.getsockname()[1]}/in"


async def test_the_order_of_a_contact_is_kept_through_retries(receiver: Receiver) -> None:
    """What is refused with 503 is tried again before the contact's next webhook is sent."""
    receiver.statuses = [200, 503, 503]
    async with sending() as webhooks:
        for number in range(6):
            await webhooks.deliver(sakari(receiver.url, b"%d" % number))
    assert receiver.bodies == [b"0", b"1", b"1", b"1", b"2", b"3", b"4", b"5"]
    assert webhooks.counts["accepted"] == 6


@pytest.mark.parametrize(("status", "tries"), [(429, 2), (500, 1), (404, 1)])
async def test_the_users_api_repeats_on_429_only(receiver: Receiver, status: int, tries: int) -> None:
    """Any other answer of the receiver is final and the event is lost (FACTS §2)."""
    receiver.statuses = [status]
    async with sending() as webhooks:
        await webhooks.deliver(users(receiver.url, b"{}"))
    assert len(receiver.bodies) == tries
    assert webhooks.counts["accepted"] == tries - 1


async def test_the_users_api_gives_up_after_six_repeats(receiver: Receiver) -> None:
    """A receiver that answers 429 for ever is asked seven times."""
    receiver.statuses = [429] * 20
    async with sending() as webhooks:
        await webhooks.deliver(users(receiver.url, b"{}"))
    assert len(receiver.bodies) == 7
    assert [attempt.final for attempt in webhooks.log] == [False] * 6 + [True]


async def test_nobody_listening_is_an_outcome() -> None:
    """A refused connection is tried as often as set, then logged as final without a status."""
    async with sending() as webhooks:
        await webhooks.deliver(sakari(closed_url(), b"{}"))
    last = webhooks.log[-1]
    assert (last.number, last.status, last.accepted, last.final) == (4, None, False, True)


async def test_a_lost_webhook_is_never_sent(receiver: Receiver) -> None:
    """The loss fault leaves an outcome with no try, and the next webhook arrives."""
    async with sending(FaultRule(kind=FaultKind.LOST, next_calls=1)) as webhooks:
        await webhooks.deliver(sakari(receiver.url, b"lost"))
        await webhooks.deliver(sakari(receiver.url, b"kept"))
    assert receiver.bodies == [b"kept"]
    assert (webhooks.log[0].number, webhooks.log[0].final) == (0, True)


async def test_a_duplicate_has_the_same_bytes(receiver: Receiver) -> None:
    """A duplicated webhook comes twice with one body; the log tells the two apart."""
    async with sending(FaultRule(kind=FaultKind.DUPLICATED, next_calls=1, delay_s=0.01)) as webhooks:
        await webhooks.deliver(users(receiver.url, b'{"webhookId":"w"}'))
    assert receiver.bodies == [b'{"webhookId":"w"}'] * 2
    assert len({attempt.id for attempt in webhooks.log}) == 2


async def test_a_reordered_webhook_is_overtaken_by_the_next(receiver: Receiver) -> None:
    """It is sent right after the contact's next one, and only once."""
    async with sending(FaultRule(kind=FaultKind.REORDERED, next_calls=1, delay_s=0.2)) as webhooks:
        for body in (b"1", b"2", b"3"):
            await webhooks.deliver(sakari(receiver.url, body))
    assert receiver.bodies == [b"2", b"1", b"3"]


async def test_a_reordered_webhook_without_a_next_one_comes_late(receiver: Receiver) -> None:
    """If nothing overtakes it, it is sent after its delay."""
    async with sending(FaultRule(kind=FaultKind.REORDERED, delay_s=0.01)) as webhooks:
        await webhooks.deliver(sakari(receiver.url, b"1"))
    assert receiver.bodies == [b"1"]


async def test_a_delayed_webhook_is_overtaken_and_an_ordered_one_is_not(receiver: Receiver) -> None:
    """The delay fault passes by what is marked as ordered."""
    async with sending(FaultRule(kind=FaultKind.DELAYED, delay_s=0.05, next_calls=2)) as webhooks:
        await webhooks.deliver(sakari(receiver.url, b"late"))
        await webhooks.deliver(replace(sakari(receiver.url, b"ordered"), ordered=True))
        await webhooks.deliver(sakari(receiver.url, b"next"))
    assert receiver.bodies == [b"ordered", b"next", b"late"]


async def test_the_signature_is_over_the_raw_body(receiver: Receiver) -> None:
    """X-GHL-Signature verifies with the exposed key over exactly the bytes that came."""
    async with sending() as webhooks:
        await webhooks.deliver(users(receiver.url, b'{"a": 1}'))
    key = load_pem_public_key(webhooks.signer.public_key_pem.encode())
    assert isinstance(key, Ed25519PublicKey)
    key.verify(base64.b64decode(receiver.signatures[0]), receiver.bodies[0])
    assert webhooks.counts["accepted"] == 1


async def test_signatures_can_be_forged_absent_or_na(receiver: Receiver) -> None:
    """A Sakari webhook has no signature; the Users API's can be left out, N/A or false on demand."""
    async with sending(settings=replace(FAST, lanes=1)) as webhooks:
        await webhooks.deliver(sakari(receiver.url, b"{}"))
        for kind in ("absent", "n/a", "forged"):
            await webhooks.deliver(replace(users(receiver.url, b"{}"), signature=kind))
    assert receiver.signatures[:3] == ["", "", "N/A"]
    assert receiver.signatures[3] not in ("", webhooks.signer.sign(b"{}"))


async def test_a_full_lane_makes_the_sender_wait(receiver: Receiver) -> None:
    """Lines are bounded: without a running sender, the delivery after a full lane does not return."""
    webhooks = Webhooks(Faults(), settings=replace(FAST, lanes=1, lane_capacity=2))
    for _ in range(2):
        await webhooks.deliver(sakari(receiver.url, b"{}"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await webhooks.deliver(sakari(receiver.url, b"{}"))
    assert receiver.bodies == []


def test_the_url_is_not_shown() -> None:
    """A callback URL may hold a secret: no representation shows it."""
    assert "secret" not in repr(sakari("http://127.0.0.1/in/secret", b"{}"))
