"""
Webhooks on their way out: bounded, in order per contact, signed, retried as each vendor does.

`Webhooks` has a fixed number of lanes. All deliveries of one contact take the same lane, and a lane sends
one at a time, so their order is kept, through retries too. What is delayed leaves the line and is overtaken.

Sakari documents no retry: here connection errors, 429 and 5xx are tried up to ``sakari_attempts`` times.
The Users API repeats on 429 only, at most 6 times (FACTS §2); any other answer or a timeout is final.
"""

import asyncio
import base64
import heapq
import itertools
import random
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.sandbox.faults import DELIVERY_KINDS, FaultKind, FaultRule, Faults
from pipeline.sandbox.state import Hook, Product, SandboxState

__all__ = ["Attempt", "Delivery", "DeliverySettings", "Signer", "Webhooks", "addressed"]

SignatureKind = Literal["valid", "forged", "absent", "n/a"]
_LOG_ENTRIES: Final = 100_000


class Signer:
    """Signs as the Users API does: Ed25519 over the raw body, base64, in ``X-GHL-Signature``."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        raw = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        self.public_key_pem = self._key.public_key().public_bytes(*raw).decode()

    def sign(self, body: bytes) -> str:
        """The signature of exactly these bytes."""
        return base64.b64encode(self._key.sign(body)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One webhook for one URL."""

    product: Product
    owner: str  #: account or location id
    url: str = field(repr=False)  #: its path may hold a secret
    body: bytes = field(repr=False)
    subject: str  #: deliveries of one subject keep their order
    kind: str = ""
    id: str = ""  #: ours, for the log; empty: a running number
    delay_s: float = 0.0  #: sent so much later; then it no longer keeps its place in the order
    ordered: bool = False  #: true: delay and reorder faults, and delayed duplicates, pass it by
    signature: SignatureKind = "valid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one try; ``status`` is None where nobody answered."""

    id: str
    product: Product
    owner: str
    kind: str
    subject: str
    url: str = field(repr=False)
    number: int  #: 1 is the first try, 0: lost on purpose, never tried
    status: int | None
    accepted: bool
    final: bool  #: nothing more will be tried


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """How deliveries are made; times in seconds."""

    lanes: int = 64
    lane_capacity: int = 256  #: deliveries waiting in one lane; then `Webhooks.deliver` waits
    delayed_capacity: int = 50_000
    timeout_s: float = 15.0
    sakari_attempts: int = 12  #: 1: no retry
    sakari_base_s: float = 0.25  #: doubles from try to try, up to 5 s
    users_retries: int = 6
    users_base_s: float = 1.0  #: the vendor waits 600 s


def addressed(state: SandboxState, hook: Hook, *, delay_s: float = 0.0) -> tuple[Delivery, ...]:
    """*hook* for each URL that asked for it: Sakari's subscriptions, the Users API app's callback URLs."""
    if hook.product == "sakari":
        subscriptions = state.sakari.account(hook.owner).subscriptions.values()
        urls = [each.url for each in subscriptions if each.wants(hook.kind)]
    else:
        urls = state.users.callback_urls
    body = hook.encoded() if urls else b""
    return tuple(
        Delivery(
            product=hook.product,
            owner=hook.owner,
            url=url,
            body=body,
            subject=hook.subject,
            kind=hook.kind,
            delay_s=delay_s,
        )
        for url in urls
    )


class Webhooks:
    """
    Sends deliveries until cancelled; `run` belongs into a task group.

    Args:
        faults: its delivery kinds are applied to each delivery once, when it is handed in.
        on_final: told the last `Attempt` of each delivery; must not block.
    """

    def __init__(
        self,
        faults: Faults,
        *,
        signer: Signer | None = None,
        settings: DeliverySettings | None = None,
        on_final: Callable[[Attempt], None] | None = None,
        seed: int = 0,
    ) -> None:
        self.settings = settings or DeliverySettings()
        self.signer = signer or Signer()
        self.on_final = on_final
        self.log: deque[Attempt] = deque(maxlen=_LOG_ENTRIES)
        self.counts = {"handed_in": 0, "sent": 0, "accepted": 0, "duplicated": 0, "lost": 0, "retried": 0}
        self._faults = faults
        self._random = random.Random(f"webhooks {seed}")
        self._ids = itertools.count(1)
        self._sequence = itertools.count()
        capacity = self.settings.lane_capacity
        self._lanes: list[asyncio.Queue[Delivery]] = [
            asyncio.Queue(capacity) for _ in range(self.settings.lanes)
        ]
        self._later: list[tuple[float, int, Delivery, bool]] = []
        self._held: dict[str, Delivery] = {}
        self._later_changed = asyncio.Event()
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def pending(self) -> int:
        """Deliveries handed in of which the last attempt is still to come."""
        return self._pending

    async def deliver(self, delivery: Delivery) -> None:
        """
        Take *delivery*; returns when it has its place in a line, and waits while that line is full.

        Raises:
            OverflowError: too many delayed ones are waiting already.
        """
        if len(self._later) >= self.settings.delayed_capacity:
            raise OverflowError(f"more than {self.settings.delayed_capacity} delayed webhooks")
        self.counts["handed_in"] += 1
        delivery = replace(delivery, id=delivery.id or f"d{next(self._ids)}")
        rules = {
            rule.kind: rule for rule in self._faults.strike(f"{delivery.product}.deliver", DELIVERY_KINDS)
        }
        self._begin()
        if FaultKind.LOST in rules:
            self.counts["lost"] += 1
            self._finish(delivery, number=0, status=None)
            return
        await self._place(delivery, rules)

    async def drain(self) -> None:
        """Wait until everything handed in has had its last attempt."""
        await self._idle.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        connector = aiohttp.TCPConnector(limit=self.settings.lanes, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=self.settings.timeout_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            self._session = session
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._release(), name="sandbox webhooks: delayed")
                for number, lane in enumerate(self._lanes):
                    tasks.create_task(self._work(lane), name=f"sandbox webhooks: lane {number}")

    # -- placing -----------------------------------------------------------------------------------

    async def _place(self, delivery: Delivery, rules: dict[FaultKind, FaultRule]) -> None:
        twin = rules.get(FaultKind.DUPLICATED)
        if twin:
            self._begin()
            self.counts["duplicated"] += 1
        delay_s = delivery.delay_s + _delay(rules.get(FaultKind.DELAYED), delivery)
        swap = rules.get(FaultKind.REORDERED)
        if delay_s > 0:
            self._put_later(delivery, delay_s)
        elif swap and not delivery.ordered and delivery.subject not in self._held:
            self._held[delivery.subject] = delivery
            self._put_later(delivery, swap.delay_s, held=True)
        else:
            await self._line(delivery)
            if held := self._held.pop(delivery.subject, None):
                await self._line(held)
        if twin:
            twin_delay_s = delay_s + _delay(twin, delivery)
            await self._place_twin(replace(delivery, id=f"{delivery.id}+"), twin_delay_s)

    async def _place_twin(self, twin: Delivery, delay_s: float) -> None:
        if delay_s > 0:
            self._put_later(twin, delay_s)
        else:
            await self._line(twin)

    async def _line(self, delivery: Delivery) -> None:
        lane = zlib.crc32(delivery.subject.encode()) % len(self._lanes)
        await self._lanes[lane].put(delivery)

    def _put_later(self, delivery: Delivery, delay_s: float, *, held: bool = False) -> None:
        due = asyncio.get_running_loop().time() + delay_s
        heapq.heappush(self._later, (due, next(self._sequence), delivery, held))
        self._later_changed.set()

    async def _release(self) -> None:
        """Move what is due from the heap into its lane; a held one that was overtaken is gone already."""
        loop = asyncio.get_running_loop()
        while True:
            self._later_changed.clear()
            while self._later and self._later[0][0] <= loop.time():
                await self._release_one(*heapq.heappop(self._later)[2:])
            wait_s = self._later[0][0] - loop.time() if self._later else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._later_changed.wait()
            except TimeoutError:
                continue

    async def _release_one(self, delivery: Delivery, held: bool) -> None:
        if held:
            if self._held.get(delivery.subject) is not delivery:
                return
            del self._held[delivery.subject]
        await self._line(delivery)

    # -- sending -----------------------------------------------------------------------------------

    async def _work(self, lane: asyncio.Queue[Delivery]) -> None:
        while True:
            await self._send(await lane.get())

    async def _send(self, delivery: Delivery) -> None:
        number = 1
        status = await self._post(delivery)
        while (wait_s := self._wait_s(delivery, number, status)) is not None:
            self._note(delivery, number=number, status=status, final=False)
            self.counts["retried"] += 1
            await asyncio.sleep(wait_s)
            number += 1
            status = await self._post(delivery)
        self._finish(delivery, number=number, status=status)

    async def _post(self, delivery: Delivery) -> int | None:
        assert self._session is not None
        self.counts["sent"] += 1
        headers = {"Content-Type": "application/json", **self._signature(delivery)}
        try:
            async with self._session.post(delivery.url, data=delivery.body, headers=headers) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _signature(self, delivery: Delivery) -> dict[str, str]:
        if delivery.product == "sakari" or delivery.signature == "absent":
            return {}
        if delivery.signature == "n/a":
            return {"X-GHL-Signature": "N/A"}
        body = delivery.body + b" " if delivery.signature == "forged" else delivery.body
        return {"X-GHL-Signature": self.signer.sign(body)}

    def _wait_s(self, delivery: Delivery, number: int, status: int | None) -> float | None:
        """Seconds until the next try after try *number*; None: that was the last."""
        settings = self.settings
        if delivery.product == "users":
            if status != 429 or number > settings.users_retries:
                return None
            return settings.users_base_s * self._random.uniform(1.0, 1.2)
        if number >= settings.sakari_attempts or not (status is None or status == 429 or status >= 500):
            return None
        return min(5.0, settings.sakari_base_s * 2.0 ** (number - 1)) * self._random.uniform(0.8, 1.2)

    # -- accounting --------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._pending += 1
        self._idle.clear()

    def _finish(self, delivery: Delivery, *, number: int, status: int | None) -> None:
        attempt = self._note(delivery, number=number, status=status, final=True)
        self.counts["accepted"] += attempt.accepted
        self._pending -= 1
        if self._pending == 0:
            self._idle.set()
        if self.on_final is not None:
            self.on_final(attempt)

    def _note(self, delivery: Delivery, *, number: int, status: int | None, final: bool) -> Attempt:
        attempt = Attempt(
            id=delivery.id,
            product=delivery.product,
            owner=delivery.owner,
            kind=delivery.kind,
            subject=delivery.subject,
            url=delivery.url,
            number=number,
            status=status,
            accepted=status is not None and 200 <= status < 300,
            final=final,
        )
        self.log.append(attempt)
        return attempt


def _delay(rule: FaultRule | None, delivery: Delivery) -> float:
    return 0.0 if rule is None or delivery.ordered else rule.delay_s
