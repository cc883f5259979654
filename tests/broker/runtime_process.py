"""
A toy worker in a process of its own, to be killed, frozen or stopped as a whole.

`started` is the parent's side. The child is this module as a program: it takes its orders as JSON, logs
to standard error, and stops at SIGTERM.
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, final

import msgspec
import structlog
from aiokafka import AIOKafkaProducer

from tests.broker.runtime_world import DEADLINE_S, World, running, until

#: Longest that a process may take to start and join, in seconds.
START_S = 90.0

_PR_SET_PDEATHSIG = 1


@final
class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to do."""

    kafka: str
    world: str
    folder: str
    inputs: tuple[str, ...]
    settings: dict[str, Any] = {}
    freeze_at: int = 0  #: the transaction in which it stops itself as by SIGSTOP; 0 is none
    freeze_before: str = ""  #: which step of that transaction


class Child:
    """A worker's process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self._log.read_text()

    @property
    def assignments(self) -> list[list[int]]:
        """Its assignments so far, as partitions."""
        events = [msgspec.json.decode(line) for line in self.log.splitlines() if line.startswith("{")]
        return [each["partitions"] for each in events if each["event"] == "partitions.assigned"]

    async def assigned(self, beyond: int = 0) -> None:
        """Return when it had more than *beyond* assignments."""
        await until(lambda: len(self.assignments) > beyond, "an assignment", START_S)

    async def frozen(self, deadline_s: float = DEADLINE_S) -> None:
        """Return when it stopped itself, as its orders say."""
        await until(lambda: self._state == "T", "frozen", deadline_s)

    @property
    def _state(self) -> str:
        """One letter of Linux's."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def stop(self) -> None:
        """Stop it in order; it must say that all went well."""
        self.signal(signal.SIGTERM)
        async with asyncio.timeout(START_S):
            assert await self.process.wait() == 0, self.log[-2000:]


@asynccontextmanager
async def started(world: World, folder: Path, **orders: Any) -> AsyncIterator[Child]:
    """A child of *world* with a disk and a log below *folder*; killed at the end if it still runs."""
    told = Orders(
        **{
            "kafka": world.kafka,
            "world": world.id,
            "folder": str(folder),
            "inputs": (world.input,),
            "settings": world.settings.model_dump(mode="json"),
            **orders,
        }
    )
    with _log_file(folder) as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            msgspec.json.encode(told).decode(),
            stdout=log,
            stderr=log,
        )
    try:
        yield Child(process, folder / "log")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _log_file(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "log").open("ab")


def _freeze(orders: Orders) -> None:
    """Let the transaction that *orders* name be interrupted by a SIGSTOP to this process."""
    step = getattr(AIOKafkaProducer, orders.freeze_before)
    count = 0

    async def interrupted(producer: AIOKafkaProducer, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == orders.freeze_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        return await step(producer, *arguments)

    setattr(AIOKafkaProducer, orders.freeze_before, interrupted)


async def _work(orders: Orders) -> None:
    world = World(orders.kafka, Path(orders.folder), name=orders.world)
    world.settings = world.settings.model_copy(update={**orders.settings, "state_dir": world.folder})
    async with running(world, world.stage(inputs=orders.inputs)) as one:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, one.worker.stop)
        await asyncio.wait((one.job,))


def main() -> None:
    """Work as the orders say."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(default=str)],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    if orders.freeze_at:
        _freeze(orders)
    asyncio.run(_work(orders))


if __name__ == "__main__":
    main()
