"""
Waits until nothing moves any more.

Drained is: every webhook had its last attempt, every poller has made two further complete scans, no lag,
nothing buffered or uncommitted, nothing waiting to be posted.
"""

import asyncio
from typing import Final

from pipeline.dev.stack import Stack
from pipeline.errors import BrokerError, PipelineError, StageFailed
from pipeline.runtime.group import Group
from pipeline.runtime.worker import Worker
from pipeline.sinks.statistics.state import PENDING
from pipeline.sources.scan import SCHEDULE

__all__ = ["check_stages", "drain", "scans", "unposted"]

#: Further complete scans that every poller has to make.
SCANS: Final = 2

_LOOK_S: Final = 0.25

#: Looks in a row that must find nothing moving: a record may be between two topics at one of them.
_QUIET_LOOKS: Final = 4


async def drain(stack: Stack, timeout_s: float) -> None:
    """
    Return when nothing moves; the traffic has been stopped before.

    Raises:
        PipelineError: something still moves after *timeout_s*; says what.
    """
    why = "it began"
    try:
        async with asyncio.timeout(timeout_s):
            await stack.sandbox.drain()
            wanted = {key: completed + SCANS for key, completed in scans(stack).items()}
            quiet = 0
            while quiet < _QUIET_LOOKS:
                why = await _moving(stack, wanted)
                quiet = 0 if why else quiet + 1
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise PipelineError(f"not drained within {timeout_s:.0f} s: {why}") from error


async def _moving(stack: Stack, wanted: dict[str, int]) -> str:
    """What still moves, empty if nothing does."""
    check_stages(stack.process.worker)
    made = scans(stack)
    awaited = [key for key, completed in wanted.items() if made.get(key, 0) < completed]
    if awaited:
        return f"scans are awaited: {', '.join(awaited[:5])}"
    try:
        lags = {name: lag for name, lag in (await stack.process.worker.lags()).items() if lag}
    except BrokerError as error:
        return str(error)
    if lags:
        return f"lag: {lags}"
    busy = [name for name, group in stack.process.worker.groups.items() if not _idle(group)]
    if busy:
        return f"at work: {', '.join(busy)}"
    waiting = unposted(stack)
    return f"{waiting} values are to be posted" if waiting else ""


def check_stages(worker: Worker) -> None:
    """
    Refuse to wait for a stage that has given up.

    Raises:
        StageFailed: one has; says why.
    """
    for name, group in worker.groups.items():
        if group.failed:
            raise StageFailed(f"{name} has stopped: {group.failed}")


def _idle(group: Group) -> bool:
    return not group.unit.reads or all(task.idle for task in group.tasks.values())


def scans(stack: Stack) -> dict[str, int]:
    """Complete scans so far, by resource."""
    group = stack.process.worker.groups["poller"]
    return {
        key: state.completed
        for task in group.tasks.values()
        for key, state in task.read.scan(SCHEDULE, "", "~", limit=100_000)
    }


def unposted(stack: Stack) -> int:
    """Values that wait to be posted."""
    group = stack.process.worker.groups["statistics"]
    return sum(1 for task in group.tasks.values() for _ in task.read.scan(PENDING, "", "~", limit=1_000_000))
