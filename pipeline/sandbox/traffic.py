"""
START HERE: sample traffic for both sandboxes, from a seed and so repeatable.

The same seed, tenants, start and rate give the same story: its clock follows from how many webhooks were
planned, never from a wall clock, and its times are reckoned from *start_ms*. Every change of the story is
made in the state, so that polling sees it, is written into the ledger, and is told by webhooks with their
inherent lateness and repetition; `traffic_faults` adds what goes wrong on the way::

    traffic = Traffic(state, ledger, webhooks, seed=7, tenants=DEFAULT_TENANTS, rate=200, start_ms=now)
    await traffic.run(count=12_000)
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from pipeline.sandbox import traffic_messages as messages
from pipeline.sandbox import traffic_people as people
from pipeline.sandbox import traffic_silent as silent
from pipeline.sandbox.faults import FaultKind, FaultRule
from pipeline.sandbox.ledger import Ledger
from pipeline.sandbox.state import SandboxState
from pipeline.sandbox.traffic_plot import Planned, Plot
from pipeline.sandbox.traffic_recorder import Recorder
from pipeline.sandbox.webhooks import Delivery, Webhooks, addressed
from pipeline.sandbox.world import DEFAULT_TENANTS, TenantSpec, World, build_world

__all__ = ["Traffic", "traffic_faults"]

#: each kind of action, and how often it is taken
_ACTIONS: Final[tuple[tuple[Callable[[Plot], Iterable[Planned]], float], ...]] = (
    (messages.outbound, 40),
    (messages.send_campaign, 4),
    (messages.inbound, 9),
    (messages.close, 4),
    (people.opt, 3),
    (people.opt_untimed, 2),
    (people.leave_list, 0.3),
    (people.tag_at_sakari, 4),
    (people.tag_at_users, 4),
    (people.edit, 4),
    (people.switch_dnd, 2),
    (people.talk_at_users, 4),
    (people.change_number, 0.8),
    (people.leave, 0.5),
    (people.arrive, 1),
    (silent.change_location_tags, 0.4),
    (silent.change_statistics, 0.4),
    (silent.change_company, 0.2),
)
#: how long the sender sleeps at most between looks at the clock and at `stop`
_PACE_S: Final = 0.02
#: the ledger's rows reach the disk this often, in webhooks
_FLUSH_EVERY: Final = 50


class Traffic:
    """
    Sample traffic on *state*, told to *webhooks*, written to *ledger*.

    Making it builds the customers (`world`). It takes ``webhooks.on_final`` for the ledger.

    Args:
        rate: webhooks per second, also how far the story's clock goes on from one to the next.
        start_ms: when the story begins, ms since 1970; now, for a real pipeline.
        boundary: whose windows close during the run, see `traffic_time`; default: from *start_ms*.
    """

    def __init__(
        self,
        state: SandboxState,
        ledger: Ledger,
        webhooks: Webhooks,
        *,
        seed: int,
        start_ms: int,
        tenants: Iterable[TenantSpec] = DEFAULT_TENANTS,
        rate: float = 200.0,
        boundary: int | None = None,
    ) -> None:
        self.state = state
        self.ledger = ledger
        self.rate = rate
        self.sent = 0  #: webhooks handed in, without duplicates
        self.world: World = build_world(state, seed=seed, specs=tenants, start_ms=start_ms, boundary=boundary)
        self._webhooks = webhooks
        self._recorder = Recorder(ledger, self.world)
        self._plot = Plot(self.world, self._recorder, random.Random(f"traffic {seed}"), start_ms)
        self._script = self._planned()
        webhooks.on_final = self._recorder.delivered
        for tenant in self.world.tenants.values():
            self._recorder.tenant(tenant)
        ledger.flush()

    async def run(self, *, count: int | None = None, stop: asyncio.Event | None = None) -> None:
        """Send at `rate` until *count* more webhooks are sent or *stop* is set; neither: until cancelled."""
        loop = asyncio.get_running_loop()
        begun, sent = loop.time(), 0
        while not (stop and stop.is_set()) and (count is None or sent < count):
            behind = round((loop.time() - begun) * self.rate) + 1 - sent
            if behind > self.rate:  # held up: go on from here at the rate, don't catch up in a burst
                begun += (behind - 1) / self.rate
                behind = 1
            step = behind if count is None else min(behind, count - sent)
            await self.send(step)
            sent += max(step, 0)
            await asyncio.sleep(_PACE_S)
        self.ledger.flush()

    async def send(self, count: int = 1) -> None:
        """Send the next *count* webhooks at once."""
        for _ in range(count):
            await self._send(next(self._script))
            self.sent += 1
            if self.sent % _FLUSH_EVERY == 0:
                self.ledger.flush()

    def preview(self, count: int) -> list[Planned]:
        """Play the next *count* webhooks of the story without sending them."""
        return [next(self._script) for _ in range(count)]

    async def _send(self, planned: Planned) -> None:
        hook = planned.hook
        identity = f"w{self.sent + 1}"
        deliveries = addressed(self.state, hook, delay_s=planned.delay_s)
        if deliveries:
            self._recorder.webhook(identity, hook)
        for number, delivery in enumerate(deliveries):
            # A "+" marks every delivery but the first as a duplicate.
            named = replace(delivery, id=identity + "+" * number, ordered=planned.ordered)
            await self._webhooks.deliver(named)
            if planned.again_s is not None:
                await self._webhooks.deliver(_again(named, planned.again_s))

    def _planned(self) -> Iterator[Planned]:
        actions, weights = [action for action, _ in _ACTIONS], [weight for _, weight in _ACTIONS]
        plot, told = self._plot, 0.0
        begun_ms, first = plot.now_ms, messages.begin(plot)
        while True:
            due = plot.pop_due()
            for planned in first or (
                due(plot.now_ms) if due else plot.rng.choices(actions, weights)[0](plot)
            ):
                told += 1_000 / self.rate
                plot.now_ms = begun_ms + int(told)
                yield planned
            first = ()


def traffic_faults() -> tuple[FaultRule, ...]:
    """What goes wrong with webhooks in the sample: a few are lost, doubled, delayed or overtaken."""
    return (
        FaultRule(kind=FaultKind.LOST, operation="*.deliver", probability=0.01),
        FaultRule(kind=FaultKind.DUPLICATED, operation="*.deliver", probability=0.03, delay_s=0.7),
        FaultRule(kind=FaultKind.DELAYED, operation="*.deliver", probability=0.02, delay_s=2.5),
        FaultRule(kind=FaultKind.REORDERED, operation="*.deliver", probability=0.03, delay_s=1.0),
    )


def _again(delivery: Delivery, after_s: float) -> Delivery:
    return replace(delivery, id=f"{delivery.id}+again", delay_s=delivery.delay_s + after_s)
