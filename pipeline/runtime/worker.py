"""
One process: all its groups and services under one task group, readiness, and the order of stopping.

Stop: unready → services stop taking → groups finish their batches, commit and leave, within one
deadline; a second signal cancels.
"""

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import structlog

from pipeline.effects import Unit
from pipeline.runtime.cluster import Cluster
from pipeline.runtime.group import Group
from pipeline.runtime.watchdog import Watchdog

__all__ = ["Service", "Worker", "seldom_collecting"]

#: Objects made, by generation, before garbage is looked for: a batch makes tens of thousands, none of them
#: in a cycle. Looking through them after every 700, as Python does, took a third of all time.
_COLLECT_AFTER = (100_000, 50, 100)

_log = structlog.get_logger(__name__)

#: How often the event loop's lag is measured, in seconds.
_MEASURE_S = 1.0

_READY_POLL_S = 0.02

#: A loop that runs later than this is unready, in seconds.
MAX_LOOP_LAG_S = 1.0


class Service(Protocol):
    """What runs beside the groups: the receiver, the admin port."""

    name: str

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        ...

    async def run(self) -> None:
        """Serve until ``stop``."""
        ...

    def stop(self) -> None:
        """Take nothing more, finish what was taken, then return from ``run``."""
        ...


class Worker:
    """Runs *units* and *services* until ``stop``."""

    def __init__(self, units: Sequence[Unit], cluster: Cluster, services: Sequence[Service] = ()) -> None:
        self.groups = {unit.stage.name: Group(unit, cluster) for unit in units}
        self.loop_lag_s = 0.0
        self._watchdogs = {name: Watchdog(group, cluster) for name, group in self.groups.items()}
        self._cluster = cluster
        self._services = services
        self._stopping = asyncio.Event()

    @property
    def unready(self) -> dict[str, str]:
        """What is not ready, and why; empty when all is."""
        if self._stopping.is_set():
            return {"process": "stopping"}
        states = {
            name: group.failed or _states(group) for name, group in self.groups.items() if not group.ready
        }
        states |= {name: idle for name, dog in self._watchdogs.items() if (idle := dog.idle)}
        states |= {service.name: "starting" for service in self._services if not service.ready}
        if self.loop_lag_s > MAX_LOOP_LAG_S:
            states["event loop"] = f"{self.loop_lag_s:.1f} s late"
        return states

    @property
    def stuck(self) -> dict[str, str]:
        """Stages for whose sake the process has to be started anew, and why; empty as long as it lives."""
        return {name: dog.stuck for name, dog in self._watchdogs.items() if dog.stuck}

    @property
    def last_lags(self) -> dict[str, int | None]:
        """Records not yet processed, by stage, as last read; None where that is not known now."""
        return {name: dog.lag for name, dog in self._watchdogs.items()}

    async def until_ready(self) -> None:
        """Return when everything is ready."""
        while self.unready:  # noqa: ASYNC110 - readiness comes from many places
            await asyncio.sleep(_READY_POLL_S)

    def stop(self) -> None:
        """Begin to stop; ``run`` returns when everything is finished or the deadline has passed."""
        self._stopping.set()

    async def run(self) -> None:
        """
        Work until ``stop``.

        Raises:
            ExceptionGroup: of a `TimeoutError` where the deadline of stopping passed, what was uncommitted
                will be done again; of a `Stuck` where a stage makes no progress; else of what no group or
                service could handle.
        """
        with seldom_collecting():
            await self._run()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            jobs = [
                tasks.create_task(group.run(), name=f"group {name}") for name, group in self.groups.items()
            ]
            serving = [tasks.create_task(one.run(), name=one.name) for one in self._services]
            measuring = [
                tasks.create_task(self._measure_loop(), name="measure loop"),
                *(tasks.create_task(one.run(), name=f"watch {n}") for n, one in self._watchdogs.items()),
            ]
            await self._stopping.wait()
            _log.info("worker.stopping")
            async with asyncio.timeout(self._cluster.settings.stop_timeout_s):
                for service in self._services:
                    service.stop()
                await _ended(serving)
                for group in self.groups.values():
                    group.stop()
                await _ended(jobs)
            for measure in measuring:
                measure.cancel()
        _log.info("worker.stopped")

    async def lags(self) -> dict[str, int]:
        """
        Records not yet processed, by stage.

        Raises:
            BrokerError: it is not known now.
        """
        return {name: sum((await group.lag()).values()) for name, group in self.groups.items()}

    async def _measure_loop(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_MEASURE_S)
            self.loop_lag_s = time.monotonic() - before - _MEASURE_S
            self._cluster.metrics.loop_lag.set(self.loop_lag_s)


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Look for garbage seldom, and not among what was imported and assembled before."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _states(group: Group) -> str:
    states = sorted({task.state for task in group.tasks.values()})
    return ", ".join(states) or "waiting for partitions"
