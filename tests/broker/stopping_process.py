"""
A toy worker in a process of its own that stops as `pipeline run` does, and says how it is.

`started` is the parent's side. The child says its state as a line on standard output whenever that
changes: ``begun``, then what its stage is at, ``ready``, and when a signal came ``stopping``.
"""

import asyncio
import ctypes
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGKILL, Signals
from typing import BinaryIO

import structlog
import uvloop

from pipeline.cli.stopping import stopped_by_signals
from pipeline.effects import Unit
from pipeline.runtime.worker import Worker
from tests.broker.runtime_world import World

_PR_SET_PDEATHSIG = 1

#: Bound of every wait for the child, which has a whole interpreter to start, in seconds.
DEADLINE_S = 90.0

#: What the child adds to its deadline of stopping, in seconds, before it is ended.
GRACE_S = 2.0


class Child:
    """A worker's process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.states: list[str] = []
        self._process = process
        self._log = log

    async def at(self, state: str) -> None:
        """Return when it says *state*."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while state not in self.states:
                line = await self._process.stdout.readline()
                assert line, f"never {state!r}, only {self.states}: {self._log.read_text()[-2000:]}"
                self.states.append(line.decode().strip())

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def stopped(self, number: Signals) -> tuple[int, float]:
        """Exit code, and how many seconds after the signal *number* it took to end."""
        begun = time.monotonic()
        self.signal(number)
        async with asyncio.timeout(DEADLINE_S):
            code = await self._process.wait()
        return code, time.monotonic() - begun


@asynccontextmanager
async def started(world: World, folder: Path) -> AsyncIterator[Child]:
    """A child of *world* with its disk and log in *folder*; killed at the end if it still runs."""
    settings = world.settings.model_copy(update={"state_dir": folder}).model_dump_json()
    with _log_file(folder) as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, world.kafka, world.id, settings),
            stdout=asyncio.subprocess.PIPE,
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


async def _tell(worker: Worker) -> None:
    said = "begun"
    while True:
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()
        while (state := next(iter(worker.unready.values()), "ready")) == said:  # noqa: ASYNC110 - a look
            await asyncio.sleep(0.001)
        said = state


async def _work(kafka: str, name: str, settings: str) -> None:
    world = World(kafka, Path(), name=name)
    world.settings = world.settings.model_validate_json(settings)
    worker = Worker([Unit(stage=world.stage())], world.cluster(world.settings.state_dir))
    with stopped_by_signals(worker.stop, world.settings.stop_timeout_s + GRACE_S):
        telling = asyncio.create_task(_tell(worker), name="tell")
        await worker.run()
        telling.cancel()


def main() -> int:
    """Work until a signal; exits as the command line does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, SIGKILL)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(*sys.argv[1:]))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
