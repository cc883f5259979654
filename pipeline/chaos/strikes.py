"""Carries a fault out, and heals what it did."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, assert_never

from pipeline.chaos.scene import Scene
from pipeline.chaos.schedule import Fault, Kind

__all__ = ["strike"]

#: An answer comes so late: nobody waits for it any more.
_LATE_S: Final = 6.0

#: Everything through a delayed connection comes so much later, in seconds.
_DELAY_S: Final = 0.3

#: What the sandbox is told: a rule of `pipeline.sandbox.faults`.
_RULES: Final[dict[Kind, dict[str, Any]]] = {
    Kind.API_THROTTLED: {"kind": "throttled", "probability": 0.6},
    Kind.API_ERRORS: {"kind": "server_error", "probability": 0.6},
    Kind.API_TIMEOUTS: {"kind": "latency", "probability": 0.4, "delay_s": _LATE_S},
    Kind.API_TRUNCATED: {"kind": "truncated", "probability": 0.4},
    Kind.API_TOKENS: {"kind": "expired_token", "probability": 0.2},
    Kind.WEBHOOKS_DOUBLED: {"kind": "duplicated", "operation": "*.deliver", "probability": 0.5},
    Kind.WEBHOOKS_REORDERED: {"kind": "reordered", "operation": "*.deliver", "probability": 0.5},
}


async def strike(scene: Scene, fault: Fault) -> None:
    """Let *fault* be in force for as long as it says; it is healed also where this is cancelled."""
    async with _in_force(scene, fault):
        await asyncio.sleep(fault.for_s)


def _in_force(scene: Scene, fault: Fault) -> Any:
    match fault.kind:
        case Kind.SIGTERM | Kind.SIGINT | Kind.SIGKILL | Kind.DISK_LOST:
            return _signalled(scene, fault)
        case Kind.FROZEN | Kind.ZOMBIE:
            return _frozen(scene, fault)
        case Kind.BROKER_KILLED:
            return _broker_killed(scene, fault)
        case Kind.BROKER_FROZEN:
            return _broker_frozen(scene, fault)
        case Kind.CUT | Kind.STALLED | Kind.DELAYED:
            return _network(scene, fault)
        case (
            Kind.API_THROTTLED
            | Kind.API_ERRORS
            | Kind.API_TIMEOUTS
            | Kind.API_TRUNCATED
            | Kind.API_TOKENS
            | Kind.WEBHOOKS_DOUBLED
            | Kind.WEBHOOKS_REORDERED
        ):
            return _sandboxed(scene, _RULES[fault.kind])
        case _:
            assert_never(fault.kind)


@asynccontextmanager
async def _signalled(scene: Scene, fault: Fault) -> AsyncIterator[None]:
    numbers = {Kind.SIGTERM: signal.SIGTERM, Kind.SIGINT: signal.SIGINT}
    number = numbers.get(fault.kind, signal.SIGKILL)
    await scene.processes[fault.target].struck(number, disk=fault.kind is Kind.DISK_LOST)
    yield


@asynccontextmanager
async def _frozen(scene: Scene, fault: Fault) -> AsyncIterator[None]:
    process = scene.processes[fault.target]
    pid = await process.struck(signal.SIGSTOP)
    try:
        yield
    finally:
        process.thaw(pid)


@asynccontextmanager
async def _broker_killed(scene: Scene, fault: Fault) -> AsyncIterator[None]:
    node = scene.nodes[fault.target]
    async with scene.away:
        await node.kill()
        yield
        await node.start()


@asynccontextmanager
async def _broker_frozen(scene: Scene, fault: Fault) -> AsyncIterator[None]:
    node = scene.nodes[fault.target]
    async with scene.away:
        node.freeze()
        try:
            yield
        finally:
            node.thaw()


@asynccontextmanager
async def _network(scene: Scene, fault: Fault) -> AsyncIterator[None]:
    proxy = scene.proxies[fault.target]
    match fault.kind:
        case Kind.CUT:
            proxy.refusing = True
            proxy.cut()
        case Kind.STALLED:
            proxy.stalled = True
        case _:
            proxy.delay_s = _DELAY_S
    try:
        yield
    finally:
        match fault.kind:
            case Kind.CUT:
                proxy.refusing = False
            case Kind.STALLED:
                proxy.stalled = False
            case _:
                proxy.delay_s = 0.0


@asynccontextmanager
async def _sandboxed(scene: Scene, rule: dict[str, Any]) -> AsyncIterator[None]:
    number = await scene.sandbox.put_fault(rule)
    try:
        yield
    finally:
        await scene.sandbox.remove_fault(number)
