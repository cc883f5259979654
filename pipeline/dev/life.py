"""
The life of `pipeline dev`: start, traffic, and with ``--exit-after`` drain, compare and end.

What happens is told to a `Front` as it happens: the live view, or the JSON lines.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, Protocol, TypeVar, final

import msgspec

from pipeline.dev.drain import check_stages, drain
from pipeline.dev.monitor import WATCHED, Monitor
from pipeline.dev.stack import Options, Stack, Tell, started
from pipeline.dev.summary import summary
from pipeline.runtime.reader import reading
from pipeline.runtime.worker import Worker

__all__ = ["Front", "Until", "live"]

T = TypeVar("T")

#: How long a drain may take at most, in seconds.
DRAIN_S: Final = 240.0

#: How often it is looked at whether the traffic is over, in seconds.
_LOOK_S: Final = 0.1


@final
class Until(msgspec.Struct, frozen=True):
    """When to stop the traffic: after *seconds* of it, or after *webhooks*; neither: when told to."""

    seconds: float | None = None
    webhooks: int | None = None

    @property
    def given(self) -> bool:
        """Whether the run ends by itself."""
        return self.seconds is not None or self.webhooks is not None


class Front(Protocol):
    """Whoever is told what happens: the live view, or the JSON lines."""

    def tell(self, kind: str, **fields: Any) -> None:
        """An event of the life cycle."""
        ...

    def progress(self, step: Any) -> None:
        """A step of Kafka's start."""
        ...

    async def show(self, stack: Stack, monitor: Monitor) -> None:
        """Show what goes on until cancelled."""
        ...


async def live(
    options: Options, until: Until, stopping: asyncio.Event, front: Front
) -> dict[str, Any] | None:
    """Run until *until* or *stopping*; the summary where the run ended by itself, else None."""
    begun, tell = time.monotonic(), front.tell
    async with started(options, tell, front.progress) as stack:
        cluster = stack.process.cluster
        async with reading(cluster.connection, WATCHED, cluster.partitions) as reader:
            monitor = Monitor(reader, begun)
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(stack.process.worker.run(), name="worker")
                watching = tasks.create_task(monitor.run(), name="monitor")
                await _ready(stack, stopping, tell)
                showing = tasks.create_task(front.show(stack, monitor), name="show")
                firsts = tasks.create_task(_firsts(monitor, tell), name="firsts")
                await _traffic(stack, until, stopping)
                ending = _ended(stack, monitor, begun, tell) if until.given else _nothing()
                found = await _unless(stopping, ending)
                for task in (showing, firsts, watching):
                    task.cancel()
                stack.process.worker.stop()
                await working
    return found


async def _ready(stack: Stack, stopping: asyncio.Event, tell: Tell) -> None:
    """Begin the traffic once everything is ready."""
    await _unless(stopping, _until_ready(stack.process.worker))
    if not stopping.is_set():
        receiver = stack.process.receiver
        assert receiver is not None
        tell("ready", receiver=receiver.url, admin=stack.process.admin.url)
        await stack.sandbox.start(receiver.url, stack.options.rate)
        tell("traffic", rate=stack.options.rate, seed=stack.options.seed)


async def _until_ready(worker: Worker) -> None:
    while worker.unready:
        check_stages(worker)
        await asyncio.sleep(_LOOK_S)


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What *work* returns; None where *stopping* is set first, which ends it."""
    async with asyncio.TaskGroup() as tasks:
        both = (
            tasks.create_task(work, name="work"),
            tasks.create_task(stopping.wait(), name="stopping"),
        )
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
    return None if both[0].cancelled() else both[0].result()


async def _nothing() -> None:
    """There is nothing to wait for."""


async def _traffic(stack: Stack, until: Until, stopping: asyncio.Event) -> None:
    """Return when the traffic is to end."""
    begun = time.monotonic()
    while not stopping.is_set():
        if until.seconds is not None and time.monotonic() - begun >= until.seconds:
            return
        if until.webhooks is not None and (await stack.sandbox.status())["webhooks_sent"] >= until.webhooks:
            return
        await asyncio.sleep(_LOOK_S)


async def _ended(stack: Stack, monitor: Monitor, begun: float, tell: Tell) -> dict[str, Any]:
    await stack.sandbox.stop()
    tell("traffic_stopped", **await stack.sandbox.status())
    await drain(stack, DRAIN_S)
    tell("drained", seconds=round(time.monotonic() - begun, 1))
    return await summary(stack, monitor, time.monotonic() - begun)


async def _firsts(monitor: Monitor, tell: Tell) -> None:
    """Tell when the first event was enriched, and its statistics posted."""
    for topic, kind in (("activity.enriched", "first_enriched"), ("statistics.posted", "first_posted")):
        while topic not in monitor.first_s:  # noqa: ASYNC110 - the monitor tells nobody
            await asyncio.sleep(_LOOK_S)
        tell(kind, seconds=round(monitor.first_s[topic], 2))
