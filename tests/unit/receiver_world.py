"""A receiver on a loopback port, what it publishes, and webhooks to send to it."""

import asyncio
import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.codec import Codec, Output, text_headers
from pipeline.errors import BrokerError
from pipeline.instants import from_ms
from pipeline.settings import Settings
from pipeline.sources.receiver import Receiver
from pipeline.topics import load as load_topics

NOW_MS = 1_893_456_000_000  # 2030-01-01T00:00:00Z
SECRET = "0123456789abcdef0123456789abcdef"
OLD_SECRET = "fedcba9876543210fedcba9876543210"
SHARED = "survey-shared-secret-ümlaut"
SIGNING = "whsec_" + base64.b64encode(b"standard webhooks signing secret").decode()
KEYS = tuple(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
SAKARI_PATH = f"/in/sakari/acme/{SECRET}"


def pem(key: Ed25519PrivateKey) -> str:
    """The public half of *key*."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def settings(**receiver: Any) -> Settings:
    """Two tenants, one of which takes unsigned webhooks, and two configured sources; `KEYS[:2]` are known."""
    hashes = [hashlib.sha256(secret.encode()).hexdigest() for secret in (OLD_SECRET, SECRET)]
    secret = {"value": "x"}

    def tenant(number: int, **more: Any) -> dict[str, Any]:
        sakari = {"client_id": secret, "client_secret": secret, "webhook_secrets_sha256": hashes}
        return {
            "sakari": [{"account_id": f"account-{number}", **sakari}],
            "users": [{"location_id": f"location-{number}", "token": secret}],
            **more,
        }

    return Settings(
        receiver={"port": 0, "users_api_keys": [pem(key) for key in KEYS[:2]], **receiver},
        tenants={"acme": tenant(1), "open": tenant(2, accept_unverified=True)},
        sources={
            "survey": {"auth": "shared-secret", "secret": {"value": SHARED}, "id_path": "event.id"},
            "signed": {"auth": "standard-webhooks", "secret": {"value": SIGNING}},
        },
    )


class Published:
    """An in-memory `Publish`: what is durable; *failure* makes it fail, *gate* holds it back while clear."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0

    async def __call__(self, output: Output) -> None:
        """Keep *output*."""
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if self.failure is not None:
            raise self.failure
        self.outputs.append(output)


@dataclass(slots=True, kw_only=True)
class World:
    """The running receiver, and a session to it."""

    receiver: Receiver
    published: Published
    session: aiohttp.ClientSession
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> "Answer":
        """Send *body* (bytes, an async iterator of them, or JSON)."""
        data = orjson.dumps(body) if isinstance(body, dict) else body
        async with self.session.post(self.receiver.url + path, data=data, headers=headers) as response:
            return Answer(response.status, dict(response.headers), await response.text())

    async def users(self, body: Any, signature: str | None = "", **headers: str) -> "Answer":
        """Send *body* as the Users API, signed by the first key unless *signature* is given."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        told = sign(raw) if signature == "" else signature
        given = {} if told is None else {"X-GHL-Signature": told}
        return await self.post("/in/users", raw, {**given, **headers})

    @property
    def only(self) -> "Stored":
        """The one record that is durable."""
        (output,) = self.published.outputs
        return Stored(output)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sender gets back."""

    status: int
    headers: Mapping[str, str]
    text: str


class Stored:
    """A durable record as a reader sees it."""

    def __init__(self, output: Output) -> None:
        self.key = (output.key or b"").decode()
        self.value = output.value
        self.timestamp = output.timestamp
        self.headers = text_headers(output.headers)


def sign(body: bytes, key: int = 0) -> str:
    """The signature of *body* by the key of this number."""
    return base64.b64encode(KEYS[key].sign(body)).decode()


def standard(body: bytes, *, stamp: str = str(NOW_MS // 1000), secret: str = SIGNING) -> dict[str, str]:
    """The headers of Standard Webhooks 1.0, computed as its text says."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.new(key, f"msg-1.{stamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1a,ignored v1,{base64.b64encode(made).decode()}"
    return {"webhook-id": "msg-1", "webhook-timestamp": stamp, "webhook-signature": signature}


def message(**fields: Any) -> dict[str, Any]:
    """A message webhook of Sakari's account-1."""
    payload = {"id": "m1", "contact": {"id": "c1"}, "message": "hello"}
    return {"accountId": "account-1", "eventType": "message-sent", "payload": payload, **fields}


def users_event(**fields: Any) -> dict[str, Any]:
    """A webhook of the Users API's location-1, sent just now."""
    told = {"type": "InboundMessage", "locationId": "location-1", "contactId": "u1", "webhookId": "w1"}
    return {**told, "timestamp": from_ms(NOW_MS), **fields}


@asynccontextmanager
async def receiving(**receiver: Any) -> AsyncIterator[World]:
    """A receiver that listens until the block ends; its clock stands at `NOW_MS`."""
    published, answered = Published(), Counter[tuple[str, int]]()

    def count(product: str, status: int) -> None:
        answered[product, status] += 1

    codec = Codec(load_topics(), 2)
    made = Receiver(settings(**receiver), codec, published, count, now=lambda: NOW_MS)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(made.run(), name="receiver")
        try:
            await until(lambda: made.ready)
            yield World(receiver=made, published=published, session=session, answered=answered)
        finally:
            published.gate.set()
            made.stop()
            await asyncio.wait([running])


async def until(true: Callable[[], object]) -> None:
    """Return when *true* holds, at the latest in 10 s."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


def unavailable() -> BrokerError:
    """What the publisher raises while Kafka is away."""
    return BrokerError("writing to sources.received: TimeoutError")


async def send_raw(
    world: World, rest: bytes, line: bytes = f"POST {SAKARI_PATH} HTTP/1.1\r\n".encode()
) -> bytes:
    """Send a request byte for byte; the beginning of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.receiver.port)
    try:
        writer.write(line + b"Host: x\r\n" + rest)
        await writer.drain()
        return await reader.read(200)
    finally:
        writer.close()
        await writer.wait_closed()
